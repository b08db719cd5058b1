"""The implementation of `scripts/test.py`: loads the model once and denoises every subject."""

import argparse
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guided_diffusion import logger
from guided_diffusion.commands.input_flags import overrides_from
from guided_diffusion.commands.shipped_weights import weights_or_default
from guided_diffusion.config.inference_flags import ReportFlags
from guided_diffusion.config.parser import Parser, read_flags
from guided_diffusion.dist_util import (
    SharedError,
    SharedFailure,
    bound_to_few_cores,
    communicator,
    device,
    on_root,
    report_failure,
    root_first,
    share_cores,
)
from guided_diffusion.errors import InputError
from guided_diffusion.files import check_space, writable_folder
from guided_diffusion.folder_lock import one_writer
from guided_diffusion.inference import planning
from guided_diffusion.inference.denoising import PUBLISHED_GRID, Denoised, denoise_volume
from guided_diffusion.inference.earlier_results import check_replaceable, not_taken_over, results_aside
from guided_diffusion.inference.loading import load_model
from guided_diffusion.inference.presets import MODEL_FLAGS
from guided_diffusion.inference.result_files import is_bare, write_manifest, write_volumes
from guided_diffusion.inference.resume import FinishedPatches, run_key
from guided_diffusion.inference.run_manifest import Run, describe_run
from guided_diffusion.inference.subjects import DICOM_FOLDER, Subject, find_subjects
from guided_diffusion.machine.memory import keep_freed_memory
from guided_diffusion.pet.fingerprint import fingerprint
from guided_diffusion.pet.formats.dicom_writer import check_derivable, save_dicom_series
from guided_diffusion.pet.grid import Volume
from guided_diffusion.pet.suv import SUVOverrides
from guided_diffusion.pet.text import times
from guided_diffusion.pet.volume import in_suv_basis, load_volume
from guided_diffusion.ranks.stalls import stated_seconds, watching

if TYPE_CHECKING:
    from guided_diffusion.commands.report import PlannedReport


@dataclass(frozen=True)
class OpenedSubject:
    """A subject's scan, the key of its results, what is left of an earlier run with that key, and the page to come."""

    volume: Volume
    key: str
    finished: FinishedPatches
    done: bool
    report: "PlannedReport | None"


def denoise_subjects(parser: Parser, arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, load the model once, and denoise every subject. All ranks call this together.

    arguments: instead of the process's own. Raises InputError on all ranks; with several subjects, only after the
    others have been denoised.
    """
    with watching(stated_seconds(arguments)):
        flags = communicator().bcast(on_root(lambda: vars(parser.parse_args(arguments))))
        _denoise_with(flags)


def _denoise_with(flags: dict[str, Any]) -> None:
    """Load the model once, and denoise every subject."""
    subjects = communicator().bcast(on_root(find_subjects, flags["base_samples"], flags["save_dir"]))
    on_root(_check_single, flags, len(subjects))
    keep_freed_memory()
    threads = share_cores(flags["threads"])
    of_cores = bound_to_few_cores(flags["threads"])
    flags["model_path"], notices = communicator().bcast(on_root(weights_or_default, flags["model_path"]))
    loaded = load_model(flags["model_path"], {name: flags[name] for name in MODEL_FLAGS & set(flags)})
    folder = Path(flags["save_dir"])
    lock = nullcontext() if flags["info"] else one_writer(folder)
    with lock, logger.to_folder(folder):
        of_scans = (line for one in subjects for line in one.notices)
        for notice in filter(None, (*notices, *loaded.settings.notices, of_cores, *of_scans)):
            logger.log(f"notice: {notice}")
        if loaded.compile_seconds is not None:
            logger.log(f"compiled the network's norms in {loaded.compile_seconds:.1f} s")
        run = Run(flags, loaded, threads)
        if len(subjects) == 1:
            _denoise_alone(subjects[0], run)
        else:
            _denoise_each(subjects, run)


def _check_single(flags: dict[str, Any], subjects: int) -> None:
    """Raises InputError for flags of a page that belong to none, and for flags of one scan where there are several."""
    wanted = read_flags(ReportFlags, flags)
    if subjects == 1:
        return
    if wanted.reference:
        raise InputError(f"--reference: one image cannot be the reference of {subjects} scans; denoise them one by one")
    overrides = _overrides(flags)
    of_one = [name for name in (overrides.given() if overrides else ()) if name != "half_life_s"]
    if of_one:
        raise InputError(
            f"--{of_one[0]} is of one scan, but {flags['base_samples']} holds {subjects}; give the path of that one"
        )


def _denoise_each(subjects: list[Subject], run: Run) -> None:
    """Denoise all subjects, even if some fail.

    If any failed, raises at the end: SharedFailure if the program or the machine was the cause, else SharedError.
    """
    failed: list[tuple[Subject, bool, str]] = []
    for subject in subjects:
        try:
            _denoise_alone(subject, run)
        except Exception as error:
            if communicator().size > 1 and not isinstance(error, SharedError | SharedFailure):
                raise  # the other ranks do not have it
            is_mistake = isinstance(error, InputError)
            failed.append((subject, is_mistake, str(error) if is_mistake else report_failure(error)))
            logger.log(f"failed: {subject.folder}: {failed[-1][-1]}")
    if not failed:
        return
    logger.log(f"{len(failed)} of {len(subjects)} subjects were not done:")
    for subject, is_mistake, reason in failed:
        logger.log(f"  {'input' if is_mistake else 'failure':7}  {subject.folder}: {reason}")
    kind = SharedError if all(is_mistake for _, is_mistake, _ in failed) else SharedFailure
    raise kind(f"{len(failed)} of {len(subjects)} subjects failed: see 'failed:' in {run.flags['save_dir']}/log.txt")


def _denoise_alone(subject: Subject, run: Run) -> None:
    """One subject, into whose folder no other run writes meanwhile."""
    out = Path(run.flags["save_dir"])
    if run.flags["info"] or subject.folder == out:
        _denoise_subject(subject, run)
        return
    on_root(writable_folder, subject.folder, out)
    with one_writer(subject.folder):
        _denoise_subject(subject, run)


def _denoise_subject(subject: Subject, run: Run) -> None:
    """One subject from file to files."""
    run = replace(run, loaded=root_first(run.loaded.at_dose, subject.dose))
    began = time.perf_counter()
    if run.flags["info"]:
        _inform(subject, run)
        return
    opened = on_root(_open_subject, subject, run)
    if communicator().bcast(opened is not None and opened.done):
        logger.log(f"{subject.folder}: finished already")
        return
    if run.loaded.method.noise_free:
        logger.log(_estimated(run.loaded.sampling.dose))
    denoised = denoise_volume(
        opened.volume if opened else None,
        run.loaded,
        above_cap=run.flags["above_cap"],
        expected_patches=run.flags.get("num_samples"),
        finished=opened.finished if opened else None,
        fit_memory="patch_size" not in run.flags,
        measure=opened.report.peaks if opened and opened.report else None,
    )
    on_root(_finish, subject, run, opened, denoised, began)


def _estimated(dose: float) -> str:
    """Says of a network of the noise-free image which image it estimates, and what it keeps for that."""
    if not dose:
        return "estimating the noise-free image (--dose_fraction 0)"
    return (
        f"estimating the image of {1 / dose:.3g} times the counts, which keeps {100 * dose:.3g} % of the scan's noise"
        " (--dose_fraction)"
    )


def _finish(subject: Subject, run: Run, opened: OpenedSubject, denoised: Denoised, began: float) -> None:
    """Write the results of a subject that was begun at `began`, on the clock `time.perf_counter`."""
    seconds = time.perf_counter() - began
    manifest = describe_run(run, opened.key, subject.path, opened.volume, denoised, seconds)
    _write(subject, denoised, manifest, opened.report, run.flags)
    opened.finished.remove_all()


def _inform(subject: Subject, run: Run) -> None:
    """Say what denoising would take, without doing it. All ranks call this together."""
    free = planning.free_bytes_per_rank(device())

    def inform() -> None:
        on_grid = planning.to_grid(_load(subject, run), run.loaded.preprocessing)
        fitted = free if "patch_size" not in run.flags else None
        plan = planning.make_plan(on_grid, run.loaded, run.flags.get("num_samples"), fitted)
        logger.log(f"{subject.path}: {planning.describe(on_grid, plan, run.loaded, free)}")

    on_root(inform)


def _plan_report(scan: Volume, run: Run) -> "PlannedReport | None":
    """Plan the report on a scan; None if none is wanted.

    The report's modules are imported here, since their libraries take half a second to load.
    """
    if not run.flags["report"]:
        return None
    from guided_diffusion.commands.report import plan_report

    return plan_report(scan, run.flags, run.loaded.settings.sampling.realisations)


def _load(subject: Subject, run: Run) -> Volume:
    """The subject's scan, in SUV by body weight."""
    volume = load_volume(
        subject.path,
        bare_voxel_mm=run.loaded.settings.preprocessing.voxel_mm,
        bare_axis_codes=run.loaded.settings.preprocessing.axis_codes,
        series=run.flags["series"],
        overrides=_overrides(run.flags),
    )
    if volume.unit != "SUV":
        raise InputError(f"{subject.path}: is in {volume.unit}, but the network knows SUV by body weight only")
    return volume


def _open_subject(subject: Subject, run: Run) -> OpenedSubject:
    """The subject's volume, and how far an earlier run got with it. Raises InputError for all that can be checked."""
    volume = _load(subject, run)
    too_fine = planning.doubt_of_fine_voxels(volume, run.loaded.preprocessing)
    for notice in filter(None, (*volume.source.get("notices", ()), too_fine)):
        logger.log(f"notice: {notice}")
    if run.flags["write_dicom"] and volume.source.get("format") != "DICOM":
        raise InputError(f"{subject.path}: --write_dicom needs a DICOM input, whose headers the new series takes over")
    if run.flags["write_dicom"]:
        check_derivable(volume.series, subject.folder / DICOM_FOLDER, _overrides(run.flags))
    in_suv_basis(volume, run.flags["suv_basis"])
    check_space(subject.folder, planning.bytes_on_disk(volume, run.loaded))
    voxels = fingerprint(volume)
    key = run_key(voxels, run.loaded.sha256, run.loaded.settings.as_dict(), run.flags, device().type)
    finished = FinishedPatches.of_run(subject.folder, key)
    check_replaceable(subject, voxels, run.flags, finished, run.loaded.settings.sampling.realisations > 1)
    if not run.flags["resume"]:
        finished.remove_own()
    report = _plan_report(volume, run)
    done = run.flags["resume"] and subject.is_finished(key)
    for line in not_taken_over(subject, finished) if run.flags["resume"] and not done else ():
        logger.log(f"notice: {line}")
    if done:  # that run may have been killed between its last result and this
        finished.remove_all()
    if done and report is not None and (page := report.renew(subject, run.flags)):
        logger.log(f"wrote {page}")
    return OpenedSubject(volume, key, finished, done, report)


def _write(
    subject: Subject,
    denoised: Denoised,
    manifest: dict[str, Any],
    report: "PlannedReport | None",
    flags: dict[str, Any],
) -> None:
    """Write the results and say where they are."""
    model = manifest["checkpoint"]["name"]
    with results_aside(subject) as aside:
        suv_max = manifest["settings"]["preprocessing"]["suv_max"]
        written = write_volumes(aside, denoised, suv_max, f"denoised by {model}", flags["suv_basis"])
        if flags["write_dicom"]:
            written.append(aside.folder / DICOM_FOLDER)
            save_dicom_series(
                denoised.volume,
                denoised.volume.series,
                written[-1],
                model_description=model,
                overrides=_overrides(flags),
            )
        if report is not None:
            written.append(report.write(aside, denoised, manifest))
        written.append(write_manifest(aside, manifest, written))
    if not flags["write_dicom"] and (subject.folder / DICOM_FOLDER).exists():
        logger.log(f"notice: {subject.folder / DICOM_FOLDER} is of an earlier run")
    voxel_mm = manifest["model_grid"]["voxel_mm"]
    if is_bare(denoised) and voxel_mm != list(PUBLISHED_GRID.voxel_mm):
        logger.log(f"notice: {subject.path} was taken to have the model's voxels of {times(voxel_mm)} mm")
    end = manifest["model_grid"]["cut_off_at_suv"]
    if end is not None:
        logger.log(
            f"notice: {subject.path}: values above SUV {end:g} are cut off in samples_*.npz, whatever --above_cap says;"
            " give the scan as NIfTI to have them in denoised.nii.gz"
        )
    for path in written:
        logger.log(f"wrote {subject.folder / path.name}")
    logger.log(f"{len(denoised.plan.starts)} patches in {manifest['seconds']:.1f} s on {manifest['ranks']} rank(s)")


def _overrides(flags: dict[str, Any]) -> SUVOverrides | None:
    """Replacements of DICOM tags, where flags give any."""
    return overrides_from(argparse.Namespace(**flags))
