"""The files that `get_ssim_psnr.py` compares: a reference, a generated volume and optionally the unclipped scan."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evaluation.measures.image_fidelity import SUV_MAX, clip_suv
from guided_diffusion.commands.input_flags import without_input_flags
from guided_diffusion.errors import InputError
from guided_diffusion.pet.formats import arrays, volume_formats
from guided_diffusion.pet.formats.declaration import Request
from guided_diffusion.pet.formats.folder_walk import LeftOut, notices
from guided_diffusion.pet.grid import Volume, same_grid
from guided_diffusion.pet.orientation import turned_like
from guided_diffusion.pet.plausibility import SMALLEST_PEAK_SUV, check_normalised, check_suv

UNCERTAINTY_PREFIX = "uncertainty"
UNITS = ("normalised", "suv")


@dataclass(frozen=True)
class SubjectFiles:
    """The files of one subject; `scan` is the .mat file of the unclipped scan, None if no published PSNR is wanted."""

    name: str
    reference: Path
    generated: Path
    scan: Path | None


def find_subject_files(gtr_dir: Path, gen_dir: Path, matfile_dir: Path | None) -> list[SubjectFiles]:
    """The subjects of `gtr_dir`, sorted by name. Raises InputError where a folder or file is missing or ambiguous."""
    for folder in (gtr_dir, gen_dir, matfile_dir):
        if folder is not None and not folder.is_dir():
            raise InputError(f"{folder}: no such folder")
    return [
        SubjectFiles(name, reference, _generated_volume(gen_dir / name, reference), _scan(matfile_dir, name))
        for name, reference in sorted(_references(gtr_dir).items())
    ]


def left_out_of(gtr_dir: Path, gen_dir: Path, subjects: Sequence[SubjectFiles]) -> list[str]:
    """A line for each reason why files of the two folders are not compared, with their names."""
    compared = {subject.reference for subject in subjects}
    used = {*compared, *(other for path in compared for other in volume_formats.companions_of(path))}
    references = [LeftOut(str(path), "no reference") for path in sorted(gtr_dir.iterdir()) if path not in used]
    names = {subject.name for subject in subjects}
    generated = [
        LeftOut(str(path), "no reference of that name") for path in sorted(gen_dir.iterdir()) if path.name not in names
    ]
    return [*notices(references, gtr_dir), *notices(generated, gen_dir)]


def read_pair(subject: SubjectFiles, gtr_units: str, gen_units: str) -> tuple[np.ndarray, np.ndarray]:
    """Reference and generated volume in SUV, float32, of one shape: .npz as [X, Y, Z], NIfTI as stored [i, j, k].

    Axes that the generated NIfTI stores in another order or direction than the reference are turned to the latter's.
    Negative generated values are set to 0, as in the published evaluation. Raises InputError if a file cannot be read
    or the two cannot be compared.
    """
    reference, reference_affine = _read(subject.reference, gtr_units, channel=1, channels=2)
    generated, generated_affine = _read(subject.generated, gen_units, channel=0)
    placed = reference_affine is not None and generated_affine is not None
    if placed:
        turned = turned_like(Volume(generated, generated_affine), Volume(reference, reference_affine))
        generated, generated_affine = turned.data, turned.affine
    if reference.shape != generated.shape:
        raise InputError(
            f"{subject.generated}: shape {generated.shape}, but the reference {subject.reference} is "
            f"{reference.shape}; both must be on one grid"
        )
    if placed and not same_grid(reference.shape, reference_affine, generated.shape, generated_affine):
        raise InputError(
            f"{subject.generated}: lies elsewhere in space than {subject.reference} (the affines differ); "
            "resample one onto the other"
        )
    reference = to_suv(reference, gtr_units, subject.reference, "--gtr_units")
    generated = to_suv(generated, gen_units, subject.generated, "--gen_units")
    if gtr_units == "normalised" and 0 < reference.max() <= SMALLEST_PEAK_SUV:
        raise InputError(
            f"{subject.reference}: values up to {reference.max() / SUV_MAX:.4g} are SUV up to {reference.max():.2g}, as"
            " no scan has; was it divided by 16 twice?"
        )
    return reference, np.maximum(generated, 0)


def published_peak(scan: Path) -> float:
    """The peak of the published PSNR: the largest SUV of the scan before clipping. Raises InputError if it isn't."""
    data = arrays.read_channel(scan, channel=0).data
    peak = float(data.max())
    if not peak > 0:  # NaN included
        raise InputError(f"{scan}: the largest value of suv is {peak:.4g}; an SUV above 0 is needed")
    check_suv(data, scan, advice="the scan must be in SUV, unclipped")
    return peak


def to_suv(volume: np.ndarray, units: str, path: Path, flag: str) -> np.ndarray:
    """A volume in SUV, float32. Given as SUV it is clipped to [0, 16]; given normalised (SUV/16) it is multiplied.

    Raises InputError where the values contradict the units: normalised values above 1, SUV in the thousands, or SUV
    that nowhere exceeds 1, which no whole-body scan shows and which would add 24 dB to a normalised pair's PSNR. An
    empty volume is judged like any other.
    """
    if units == "normalised":
        check_normalised(volume, path, advice=f"pass {flag} suv if it is SUV")
        return volume * np.float32(SUV_MAX)
    if volume.max() > 0:
        check_suv(volume, path, advice=f"pass {flag} normalised if it is SUV/16")
    return clip_suv(volume)


def _read(path: Path, units: str, channel: int, channels: int | None = None) -> tuple[np.ndarray, np.ndarray | None]:
    """Data float32 and, where the file places its voxels in space, the affine. A unit that it states is trusted."""
    with without_input_flags("this command has no such flag"):
        stored = volume_formats.read(path, Request(channel, channels))
    if stored.unit != "SUV":
        raise InputError(f"{path}: is in {stored.unit}; SUV by body weight is compared (--suv_basis bw)")
    if stored.source.get("unit_stated") and units == "normalised":
        raise InputError(f"{path}: says that it is in SUV; pass --gtr_units suv or --gen_units suv")
    if not np.isfinite(stored.data).all():
        raise InputError(f"{path}: has NaN or infinite voxels; repair the image first")
    return stored.data, stored.affine


def _references(gtr_dir: Path) -> dict[str, Path]:
    references: dict[str, Path] = {}
    for path in _volumes_in(gtr_dir):
        name = volume_formats.stem_of(path.name)
        if name in references:
            raise InputError(f"{gtr_dir}: has {references[name].name} and {path.name}; leave one of them")
        references[name] = path
    if not references:
        raise InputError(f"{gtr_dir}: holds no subject; expected <subject>.npz, .nii or .nii.gz")
    return references


def _scan(matfile_dir: Path | None, name: str) -> Path | None:
    if matfile_dir is None:
        return None
    scan = matfile_dir / f"{name}.mat"
    if not scan.is_file():
        raise InputError(f"{scan}: no such file; put it there, or leave out --matfile_dir and the published PSNR")
    return scan


def _generated_volume(folder: Path, reference: Path) -> Path:
    """The only generated file of the reference's kind; a run on NIfTI input leaves an .npz beside the NIfTI.

    The uncertainty beside the result of several realisations does not count.
    """
    bare = _is_bare(reference)
    wanted = ".npz" if bare else ".nii or .nii.gz"
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; the generated {wanted} file for {reference} belongs there")
    volumes = [
        path for path in _volumes_in(folder) if _is_bare(path) == bare and not path.name.startswith(UNCERTAINTY_PREFIX)
    ]
    if not volumes:
        raise InputError(f"{folder}: holds no {wanted} file to compare with {reference}")
    if len(volumes) > 1:
        names = ", ".join(path.name for path in volumes)
        raise InputError(f"{folder}: holds {len(volumes)} {wanted} files ({names}); leave the one to evaluate")
    return volumes[0]


def _volumes_in(folder: Path) -> list[Path]:
    """Volume files, sorted; hidden ones, such as those that are still being written, and scans (.mat) left out."""
    files = (path for path in folder.iterdir() if path.is_file() and path.name[0] != ".")
    return [path for path in volume_formats.volumes_among(files) if volume_formats.suffix_of(path.name) != ".mat"]


def _is_bare(path: Path) -> bool:
    """Whether the file holds an array, whose place in space is that of the model's grid."""
    return volume_formats.names_array(path.name)
