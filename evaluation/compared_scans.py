"""The scans of a comparison, from a virtual trial or from a user's folders, and their images."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from evaluation.measures import Examination
from evaluation.measures.blurred_truth import blurred_truth
from guided_diffusion.commands.input_flags import without_input_flags
from guided_diffusion.errors import InputError
from guided_diffusion.gate import open_regular
from guided_diffusion.pet.contents import contents_of, names_of, without_suffix
from guided_diffusion.pet.csv_rows import read_csv_rows
from guided_diffusion.pet.damage import damage_as
from guided_diffusion.pet.formats import volume_formats
from guided_diffusion.pet.formats.declaration import Request
from guided_diffusion.pet.formats.folder_walk import LeftOut
from guided_diffusion.pet.formats.folder_walk import notices as left_out
from guided_diffusion.pet.grid import (
    DEFAULT_AXIS_CODES,
    DEFAULT_VOXEL_MM,
    Volume,
    centred_affine,
    on_one_grid,
)
from guided_diffusion.pet.normalisation import DEFAULT_SUV_MAX
from guided_diffusion.pet.orientation import turned_like
from guided_diffusion.pet.plausibility import check_normalised, check_suv
from guided_diffusion.pet.text import number_of_cell, printable
from guided_diffusion.pet.trial_manifest import Case, read_cases
from guided_diffusion.pet.volume import load_volume


@dataclass(frozen=True)
class Arrays:
    """How arrays (.npz, .mat) are meant: in SUV or normalised (SUV/16), and their voxel size in mm along X, Y, Z."""

    units: str = "suv"
    voxel_mm: tuple[float, float, float] = DEFAULT_VOXEL_MM


@dataclass(frozen=True)
class ComparedScan:
    """A low-dose scan and the files that belong to it, None for missing ones.

    name: path of its results in a method's folder, such as sub-0000/low_dose_1-20. subject: the patient, who may have
    scans at several doses. tracer, scanner: "" if unknown. dose: as a fraction of the normal dose, None if unknown.
    """

    name: str
    subject: str
    low_dose: Path
    normal_dose: Path | None = None
    truth: Path | None = None
    labels: Path | None = None
    tracer: str = ""
    scanner: str = ""
    dose: float | None = None
    arrays: Arrays = Arrays()

    @classmethod
    def of_case(cls, case: Case) -> "ComparedScan":
        """A scan of a virtual trial."""
        return cls(
            case.name, case.subject, case.low_dose, case.normal_dose, case.truth, case.labels,
            tracer=case.tracer, scanner=case.scanner, dose=case.dose,
        )  # fmt: skip

    def files(self) -> list[Path]:
        """Everything that is read of it."""
        return [path for path in (self.low_dose, self.normal_dose, self.truth, self.labels) if path is not None]


@dataclass(frozen=True)
class UserFolders:
    """What a user has instead of a trial: low doses, perhaps normal doses, perhaps a table about them."""

    low_dose: Path
    normal_dose: Path | None = None
    subjects: Path | None = None
    arrays: Arrays = Arrays()


def scans_of_trial(folder: Path, split: str, doses: Sequence[float] | None = None) -> list[ComparedScan]:
    """The scans of a trial's split at some doses (None: all).

    Raises InputError if there are none at one of them, or if the trial cannot be read.
    """
    own = [case for case in read_cases(folder) if case.split == split]
    if not own:
        raise InputError(f"{folder}: no subject has the split {split!r}")
    for dose in doses or ():
        if dose not in {case.dose for case in own}:
            raise InputError(f"{folder}: no scan at dose {dose_text(dose)}; simulate it (scripts/simulate.py --doses)")
    return [ComparedScan.of_case(case) for case in own if doses is None or case.dose in doses]


def scans_of_folders(folders: UserFolders) -> tuple[list[ComparedScan], list[ComparedScan], tuple[str, ...]]:
    """A user's scans to compare, those for tuning filters, and notices on files and rows that were left out.

    Without a table each scan is a subject of its own, all are compared, and normal doses have the same names. With one,
    each scan must have a row: `scan` (its name below the folder), and as far as known `subject`, `tracer`, `scanner`,
    `dose`, `normal_dose` (its name below that folder) and `split` (test, or validation for tuning; scans of another
    split are left out). Raises InputError if a scan or a normal dose is missing, or if a subject is in both splits.
    """
    low_doses, notices = _named_scans(folders.low_dose)
    normal_doses, others = ({}, ()) if folders.normal_dose is None else _named_scans(folders.normal_dose)
    about = None if folders.subjects is None else _read_about(folders.subjects)
    by_split: dict[str, list[ComparedScan]] = {"test": [], "validation": []}
    unused: list[LeftOut] = []
    for name, path in low_doses.items():
        row = {} if about is None else about.get(name or without_suffix(path.name))
        if row is None:
            raise InputError(f"{folders.subjects}: no row about the scan {name!r} of {folders.low_dose}")
        split = row.get("split", "").lower() or "test"
        if split not in by_split:
            unused.append(LeftOut(str(path), f"split '{printable(split)}'"))
            continue
        subject = row.get("subject") or name or without_suffix(path.name)
        dose, normal = _dose_of(row, folders.subjects), None
        if folders.normal_dose is not None:
            stated = without_suffix(row.get("normal_dose", ""))
            normal = _partner(normal_doses, stated, (name, subject), folders)
        scan = ComparedScan(
            name, subject, path, normal, tracer=row.get("tracer", ""), scanner=row.get("scanner", ""),
            dose=dose, arrays=folders.arrays,
        )  # fmt: skip
        by_split[split].append(scan)
    present = {name or without_suffix(path.name) for name, path in low_doses.items()}
    absent = [folders.low_dose / name for name in about or () if name and name not in present]
    unused += [LeftOut(str(path), f"a row of {folders.subjects}, but no such scan") for path in absent]
    if not by_split["test"]:
        raise InputError(f"{folders.low_dose}: holds no scan to compare, of the split test")
    tuned = {scan.subject for scan in by_split["validation"]}
    both = next((scan.subject for scan in by_split["test"] if scan.subject in tuned), None)
    if both is not None:
        raise InputError(
            f"{folders.subjects}: the subject '{printable(both)}' is in the splits test and validation, so that filters"
            " would be tuned on whom they are compared on; give all scans of a subject one split"
        )
    return by_split["test"], by_split["validation"], (*notices, *others, *left_out(unused, folders.low_dose))


def _named_scans(path: Path) -> tuple[dict[str, Path], tuple[str, ...]]:
    """The scans at a path by name, "" for a path that is one scan itself, and notices of what was left out."""
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    found = contents_of(path)
    names = [""] if found.scans == (path,) else names_of(found.scans, path)
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{path}: several files are called {name}; leave one of them")
    return dict(zip(names, found.scans, strict=True)), found.notices


def _partner(normal_doses: dict[str, Path], stated: str, names: tuple[str, str], folders: UserFolders) -> Path:
    """The normal dose with the name that the table states, and no other; without one that of a single scan, or the
    first with the scan's own name or the subject's. names: these two, of which the first may be empty.
    """
    only, scan = normal_doses.get(""), names[0] or names[1]
    if stated:
        named = normal_doses if only is None else {without_suffix(only.name): only}
        if stated not in named:
            raise InputError(
                f"{folders.normal_dose}: no normal dose '{printable(stated)}', which {folders.subjects} names for the"
                f" scan {scan!r}; correct its column normal_dose"
            )
        return named[stated]
    if only is not None:
        return only
    for name in names:
        if name in normal_doses:
            return normal_doses[name]
    raise InputError(
        f"{folders.normal_dose}: no normal dose for the scan {scan!r}; give it that name, name it in the column"
        " normal_dose of --subjects, or leave out --normal_dose"
    )


def _read_about(path: Path) -> dict[str, dict[str, str]]:
    """The rows of a user's table by scan."""
    with damage_as(f"{path}: is no table in UTF-8"), open_regular(path) as file:
        columns, rows = read_csv_rows(file)
    if "scan" not in columns:
        raise InputError(f"{path}: no column 'scan'; it names each scan as its file or folder is called")
    about: dict[str, dict[str, str]] = {}
    for row in rows:
        name = without_suffix(row["scan"])
        if about.setdefault(name, row) != row and name:
            raise InputError(f"{path}: two rows about the scan '{printable(name)}' differ; leave one of them")
    return about


def _dose_of(row: dict[str, str], table: Path | None) -> float | None:
    """The dose of a row as a fraction, None where it says none."""
    text = row.get("dose", "")
    if not text:
        return None
    dose = number_of_cell(text)
    if not 0 < dose <= 1:  # NaN included
        raise InputError(
            f"{table}: the dose '{printable(text)}' is no fraction of the normal dose; write 1/20 for a twentieth of it"
        )
    return dose


def dose_text(dose: float | None) -> str:
    """1/20 for 0.05, a dash where the dose is not known."""
    return "–" if dose is None else str(Fraction(dose).limit_denominator(1000))


def open_examination(scan: ComparedScan) -> Examination:
    """Load the images of a scan. Raises InputError where one cannot be read or lies on another grid."""
    low_dose = load_image(scan.low_dose, scan.arrays)
    normal = None
    if scan.normal_dose is not None:
        pair = Request(channel=1, channels=2 if scan.normal_dose == scan.low_dose else None)
        normal = image_on_grid_of(low_dose, scan.normal_dose, scan.arrays, pair)
    truth = None
    if scan.truth is not None and normal is not None:
        truth, _ = blurred_truth(image_on_grid_of(low_dose, scan.truth, scan.arrays), normal, low_dose.voxel_mm)
    labels = None if scan.labels is None else labels_on_grid_of(low_dose, scan.labels)
    return Examination(scan.subject, scan.tracer, scan.scanner, scan.dose, low_dose, normal, truth, labels)


def load_image(path: Path, arrays: Arrays, request: Request = Request()) -> Volume:  # noqa: B008 (frozen)
    """A PET image in SUV by body weight, in any format that can be read; `request` selects a channel of an array.

    Raises InputError if it cannot be read, has another unit, or contradicts `arrays`.
    """
    is_array = path.is_file() and volume_formats.names_array(path.name)
    with without_input_flags("this command has no such flag"):
        volume = _load_array(path, arrays, request) if is_array else load_volume(path)
    if volume.unit != "SUV":
        raise InputError(f"{path}: is in {volume.unit}; denoise with --suv_basis bw to compare")
    return volume


def _load_array(path: Path, arrays: Arrays, request: Request) -> Volume:
    stored = volume_formats.read(path, request)
    data = stored.data
    if arrays.units == "normalised" and not stored.source.get("unit_stated"):
        check_normalised(data, path, advice="pass --array_units suv if it is SUV")
        data = data * np.float32(DEFAULT_SUV_MAX)
    else:
        check_suv(data, path, stated=bool(stored.source.get("unit_stated")), advice="pass --array_units normalised")
    affine = stored.affine
    if affine is None:
        affine = centred_affine(data.shape, arrays.voxel_mm, DEFAULT_AXIS_CODES)
    return Volume(data, affine, stored.unit, {"format": stored.format, "is_placed": stored.affine is not None})


def image_on_grid_of(scan: Volume, path: Path, arrays: Arrays, request: Request = Request()) -> np.ndarray:  # noqa: B008
    """The image in a file, float32 [X, Y, Z] in SUV: on the scan's grid, or an array of its shape without a grid.

    Axes that the file stores in another order or direction are turned to the scan's.

    Raises InputError if it cannot be read or lies on another grid.
    """
    volume = load_image(path, arrays, request)
    if not volume.source.get("is_placed", True) and volume.data.shape == scan.data.shape:
        return volume.data
    volume = turned_like(volume, scan)
    if not on_one_grid(volume, scan):
        raise InputError(f"{path}: lies on another grid than the low dose; the result is of another scan")
    return volume.data


def labels_on_grid_of(scan: Volume, path: Path) -> np.ndarray:
    """The labels in a file, uint8 [X, Y, Z]: they are no SUV. Raises InputError as `image_on_grid_of`."""
    stored = volume_formats.read(path)
    labels = None if stored.affine is None else turned_like(Volume(stored.data, stored.affine), scan)
    if labels is None or not on_one_grid(labels, scan):
        raise InputError(f"{path}: lies on another grid than the low dose; these labels are of another scan")
    return labels.data.astype(np.uint8)
