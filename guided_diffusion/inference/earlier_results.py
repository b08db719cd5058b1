"""Results of an earlier run in a subject's folder: of which scan they are, and which files a new run may replace."""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from guided_diffusion.errors import InputError
from guided_diffusion.files import disk_failure, remove_whatever, temporary_beside
from guided_diffusion.gate import read_small
from guided_diffusion.inference.resume import FinishedPatches, code_of_results
from guided_diffusion.inference.subjects import (
    DENOISED_NAME,
    MANIFEST_NAME,
    REPORT_NAME,
    UNCERTAINTY_NAME,
    Subject,
    place_of,
)

_ARRAY_NAME = re.compile(r"(samples|uncertainty)_\d+x\d+x\d+\.npz")
_NAMES = (MANIFEST_NAME, DENOISED_NAME, UNCERTAINTY_NAME, REPORT_NAME)


def check_replaceable(
    subject: Subject, voxels: str, flags: Mapping[str, Any], finished: FinishedPatches, several: bool
) -> None:
    """Refuses a folder where results would replace the scan itself, those of another scan, or a user's own files.

    Results of the same scan may be replaced, whatever the settings: those of the same voxels, or of the same path and
    series, whose content may have changed. voxels: `fingerprint` of the scan. flags: of the command line. finished: the
    kept patches of this run. several: whether standard deviations are written.

    Raises InputError.
    """
    standing = [path for path in _named_as_results(subject.folder) if _is_written(path.name, flags["report"], several)]
    for path in standing:
        if path.is_dir() and not path.is_symlink():
            raise InputError(f"{path}: a folder stands where a result goes; remove it or choose another --save_dir")
    if "://" not in subject.path and Path(subject.path).resolve() in [path.resolve() for path in standing]:
        raise InputError(f"{subject.path}: the results would replace this scan; choose another --save_dir")
    check_same_scan(subject, voxels, flags["series"])
    listed = _record_in(subject.folder) is not None
    if standing and not listed and not _was_killed_moving(subject.folder, finished):
        raise InputError(
            f"{standing[0]}: would be written over, but no {MANIFEST_NAME} of this program lists it; move it away or"
            " choose another --save_dir"
        )


def not_taken_over(subject: Subject, finished: FinishedPatches) -> list[str]:
    """Lines about what `--resume` finds, but does not take over because another version of the program made it.

    Of patches it is not known whether their settings or their version is another one.
    """
    lines = []
    record = _record_in(subject.folder)
    if record is not None and record.get("code") != code_of_results():
        lines.append(f"{subject.folder}: another version of this program made its results: the subject is done again")
    if finished.are_of_others():
        lines.append(f"{subject.folder}: kept patches of other settings or of another version are not taken over")
    return lines


def check_same_scan(subject: Subject, voxels: str, series: str | None = None, flag: str = "--save_dir") -> None:
    """Raises InputError if the folder holds results of another scan. flag: the one that names another folder."""
    record = _record_in(subject.folder)
    if record is None:
        return
    scan = record["input"]
    at_same_place = scan.get("path") == place_of(subject.path) and record["flags"].get("series") == series
    if scan.get("sha256_of_voxels_and_affine") != voxels and not at_same_place:
        earlier = scan.get("path") or scan.get("name")
        raise InputError(f"{subject.folder}: holds the results of {earlier}; choose another {flag}")


def _was_killed_moving(folder: Path, finished: FinishedPatches) -> bool:
    """Whether an earlier start of this run ended among the moves of its results, before that of the manifest."""
    manifest = folder / MANIFEST_NAME
    return finished.folder.is_dir() and not (manifest.is_symlink() or manifest.exists())


@contextmanager
def results_aside(subject: Subject) -> Iterator[Subject]:
    """Yields the subject with a hidden folder, whose files then replace the results of an earlier run.

    Results that the earlier run's manifest lists are removed first, so that old and new are never mixed, and the
    manifest is replaced last. Other files stay. On an exception the earlier results stay.
    """
    aside = temporary_beside(subject.folder / "results")
    aside.mkdir()
    try:
        yield replace(subject, folder=aside)
        written = sorted(aside.iterdir(), key=lambda path: path.name == MANIFEST_NAME)
        listed = (_record_in(subject.folder) or {"files": []})["files"]
        earlier = [path for path in _named_as_results(subject.folder) if path.name in listed]
        for old in [*earlier, *(subject.folder / path.name for path in written[:-1])]:
            remove_whatever(old)
        for path in written:
            path.rename(subject.folder / path.name)
    except OSError as error:
        raise disk_failure(error, subject.folder / MANIFEST_NAME) or error from None
    finally:
        remove_whatever(aside)


def _record_in(folder: Path) -> dict[str, Any] | None:
    """The manifest of an earlier run in a folder; None where there is none, it is another program's, or damaged."""
    try:
        record = json.loads(read_small(folder / MANIFEST_NAME))
        own = isinstance(record["key"], str) and isinstance(record["files"], list)
        return record if own and isinstance(record["input"], dict) and isinstance(record["flags"], dict) else None
    except (InputError, ValueError, LookupError, TypeError, RecursionError):
        return None


def _named_as_results(folder: Path) -> list[Path]:
    """What stands in the folder under names of results; DICOM series are replaced by their writer."""
    known = [folder / name for name in _NAMES]
    arrays = [path for path in sorted(folder.iterdir()) if _ARRAY_NAME.fullmatch(path.name)]
    return [path for path in (*known, *arrays) if path.is_symlink() or path.exists()]


def _is_written(name: str, report: bool, several: bool) -> bool:
    """Whether a run writes a result of this name. Arrays count whatever their shape, so that never two lie there."""
    if name == REPORT_NAME:
        return report
    return several or not name.startswith("uncertainty")
