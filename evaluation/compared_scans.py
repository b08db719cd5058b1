"""One scan under comparison: its files, and its images on one grid with what there is to compare them with."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from evaluation.filters import Scan, blurred_truth, noise_level
from guided_diffusion.errors import InputError
from guided_diffusion.pet.formats import volume_formats
from guided_diffusion.pet.formats.declaration import Request
from guided_diffusion.pet.grid import (
    DEFAULT_AXIS_CODES,
    DEFAULT_VOXEL_MM,
    Volume,
    centred_affine,
    on_one_grid,
    same_grid,
)
from guided_diffusion.pet.normalisation import DEFAULT_SUV_MAX
from guided_diffusion.pet.plausibility import check_normalised, check_suv
from guided_diffusion.pet.trial_manifest import Case
from guided_diffusion.pet.volume import load_volume

BARE_FORMATS = ("npz", "mat")  # arrays, which need not say their unit or place
UNITS = ("suv", "normalised")


@dataclass(frozen=True)
class Arrays:
    """How arrays (.npz, .mat) are meant: in SUV or normalised (SUV/16), and their voxel size in mm along X, Y, Z."""

    units: str = "suv"
    voxel_mm: tuple[float, float, float] = DEFAULT_VOXEL_MM


@dataclass(frozen=True)
class ComparedScan:
    """A low-dose scan and the files beside it, None for those that there are not.

    name: where its results lie in a method's folder, such as sub-0000/low_dose_1-20. subject: the patient, who may have
    scans at several doses. tracer, scanner: "" where nobody says. dose: a fraction, 1 is normal, None where nobody
    says.
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

    @property
    def is_normal_dose(self) -> bool:
        """Whether the scan is the normal-dose image itself: nothing can be measured against that then."""
        return self.dose is not None and self.dose >= 1

    def files(self) -> list[Path]:
        """Everything that is read of it."""
        return [path for path in (self.low_dose, self.normal_dose, self.truth, self.labels) if path is not None]


@dataclass(frozen=True, eq=False)
class Examination:
    """The images of a scan, float32 [X, Y, Z] in SUV on the low dose's grid, None for those that there are not.

    truth: the true activity of a virtual patient, blurred to the scan's resolution. labels: uint8, of its tissues and
    lesions.
    """

    scan: ComparedScan
    low_dose: Volume
    normal_dose: np.ndarray | None
    truth: np.ndarray | None
    labels: np.ndarray | None

    @property
    def voxel_mm(self) -> tuple[float, float, float]:
        return self.low_dose.voxel_mm

    @cached_property
    def filter_input(self) -> Scan:
        """The low dose as filters take it."""
        data = self.low_dose.data
        return Scan(data, self.low_dose.voxel_mm, noise_level(data))


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
    return Examination(scan, low_dose, normal, truth, labels)


def load_image(path: Path, arrays: Arrays, request: Request = Request()) -> Volume:  # noqa: B008 (frozen)
    """A PET image in SUV by body weight, from any format that is read; `request` chooses a channel of an array.

    Raises InputError where it cannot be read, is in another unit, or contradicts what `arrays` says.
    """
    known = volume_formats.format_by_name(path.name) if path.is_file() else None
    is_array = known is not None and known.name in BARE_FORMATS
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
    """The image in a file, float32 [X, Y, Z] in SUV: on the scan's grid, or an array of its shape that says no grid.

    Raises InputError where it cannot be read or lies on another grid.
    """
    volume = load_image(path, arrays, request)
    unplaced = not volume.source.get("is_placed", True) and volume.data.shape == scan.data.shape
    if not (unplaced or on_one_grid(volume, scan)):
        raise InputError(f"{path}: lies on another grid than the low dose; the result is of another scan")
    return volume.data


def labels_on_grid_of(scan: Volume, path: Path) -> np.ndarray:
    """The labels in a file, uint8 [X, Y, Z]: they are no SUV. Raises InputError as `image_on_grid_of`."""
    stored = volume_formats.read(path)
    if stored.affine is None or not same_grid(stored.data.shape, stored.affine, scan.data.shape, scan.affine):
        raise InputError(f"{path}: lies on another grid than the low dose; these labels are of another scan")
    return stored.data.astype(np.uint8)
