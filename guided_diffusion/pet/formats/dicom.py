"""A DICOM PET series: finding it in a folder or zip, ordering its slices in space, reading it as SUV.

Headers are read first, pixels slice by slice. Nothing here puts a patient's name or birth date into a message.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset

from guided_diffusion.errors import InputError
from guided_diffusion.gate import check_memory
from guided_diffusion.pet.damage import damage_as
from guided_diffusion.pet.formats import dicom_tags as tags
from guided_diffusion.pet.formats.dicom_choice import Group, choose_series
from guided_diffusion.pet.formats.dicom_files import DicomFile, open_files, quiet_pydicom
from guided_diffusion.pet.formats.lost_pixels import doubts_of_lost_pixels, image_of_rows
from guided_diffusion.pet.formats.multi_frame import check_frames, frames_as_slices
from guided_diffusion.pet.formats.series_checks import is_pet_image, why_no_image
from guided_diffusion.pet.formats.slices import SliceStack, doubt_of_lost_end, doubt_of_skipped, stack_slices
from guided_diffusion.pet.formats.stored_values import slice_values
from guided_diffusion.pet.grid import Volume, check_size
from guided_diffusion.pet.plausibility import doubts_of_dose
from guided_diffusion.pet.suv import SUVConversion, SUVError, SUVOverrides, suv_conversion
from guided_diffusion.pet.suv_bases import ratios_to_suvbw
from guided_diffusion.pet.text import printable

LARGEST_SLICE = 4096

PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")


@dataclass(frozen=True)
class Series:
    """The slices of one series, sorted along the normal.

    headers: data sets without pixels, in the order of `files`: what reading needs of them, or all. notices: what the
    user should know of how it was found.
    """

    files: tuple[DicomFile, ...]
    headers: tuple[Dataset, ...]
    stack: SliceStack
    name: str
    notices: tuple[str, ...] = ()

    def read(self, k: int) -> tuple[np.ndarray, Dataset]:
        """Slice k as float32 [column, row] in the header's Units, and its whole header without the pixels.

        The values are stored x RescaleSlope + RescaleIntercept.

        Raises:
            InputError: the pixel data are truncated, compressed in a way that no installed decoder reads, or absent; or
                the file is not the one whose header was read before.
        """
        name, header = self.files[k].name, self.headers[k]
        damaged = f"{name}: its pixel data are missing or truncated; copy the series again"
        with damage_as(damaged), quiet_pydicom():  # elements are decoded when they are compared
            dataset = self.files[k].read()
            unchanged = all(tags.same_element(dataset, header, element.tag) for element in header)
        if not unchanged:
            raise InputError(f"{name}: was replaced by another file while the series was read; start again")
        values = slice_values(dataset, name).T
        for keyword in PIXELS:
            if keyword in dataset:
                delattr(dataset, keyword)
        return values, dataset


def load_suv(path: Path, *, series: str | None = None, overrides: SUVOverrides | None = None) -> Volume:
    """Reads the PET series under `path`: float32 [column, row, slice] in SUV, with its headers, for a derived series.

    Slices at unequal distances are resampled to equal ones by position. Every file is read whole once.

    Raises:
        InputError: no PET series, several without `series`, or damaged, missing, doubled or inconsistent slices.
        SUVError: no SUV factor follows from the header.
    """
    with open_series(path, series=series) as found:
        conversion = conversion_of(found, overrides)
        whole: dict[int, Dataset] = {}
        images: dict[int, np.ndarray] = {}

        def read(k: int) -> np.ndarray:
            values, whole[k] = found.read(k)
            images[k] = image_of_rows(values)
            return values * np.float32(conversion.factors[k])

        data = found.stack.resample(read)
        kept = replace(found, headers=tuple(whole[k] for k in range(len(found.files))))
        source = _source(found, conversion, overrides)
        voxel_ml = abs(np.linalg.det(found.stack.affine[:3, :3])) / 1000
        in_order = np.array([images[k] for k in range(len(found.files))])
        source["notices"] += doubts_of_lost_pixels(in_order, [file.name for file in found.files])
        source["notices"] += [
            f"{found.name}: {doubt}" for doubt in doubts_of_dose(data, voxel_ml, _weight_kg(found, overrides))
        ]
        return Volume(data, found.stack.affine, "SUV", source, kept)


def conversion_of(found: Series, overrides: SUVOverrides | None = None) -> SUVConversion:
    """The SUV factors of a series; errors name the folder.

    Raises:
        SUVError: no SUV factor follows from the header.
    """
    try:
        return suv_conversion(found.headers, overrides, [file.name for file in found.files])
    except SUVError as error:
        raise SUVError(f"{found.name}: {error}") from None


@contextmanager
def open_series(path: Path, *, series: str | None = None) -> Iterator[Series]:
    """Finds the one PET series under a folder (nested ones too), or in a `.zip` or a file of many frames.

    A zip stays open inside the context.

    Raises:
        InputError: as `load_suv`.
    """
    with open_files(path) as files, frames_as_slices(files) as slices:
        chosen, notices = choose_series(slices, str(path), series)
        yield _sorted_series(chosen, str(path), tuple(notices))


def _sorted_series(members: Group, name: str, notices: tuple[str, ...]) -> Series:
    first = members[0][1]
    if (tags.number(first, "NumberOfFrames") or 1) > 1:
        raise InputError(f"{members[0][0].name}: is a multi-frame file; export it as classic PET, one slice per file")
    geometry = [_slice_geometry(file, header) for file, header in members]
    stack, order = stack_slices(geometry, [file.name for file, _ in members])
    check_size(stack.shape, name)
    if max(stack.shape[:2]) > LARGEST_SLICE:
        raise InputError(f"{name}: has slices of {stack.shape[0]} x {stack.shape[1]} voxels, as no scanner makes")
    check_memory(4 * math.prod(stack.shape), name)
    check_frames([file for file, _ in members])
    numbers = [tags.number(header, "InstanceNumber") for _, header in members]
    stated = [tags.number(header, "NumberOfSlices") for _, header in members]
    skipped = doubt_of_skipped(stack.distances, geometry[0][-1], numbers)
    doubts = (stack.doubt, skipped, doubt_of_lost_end(numbers, stated))
    notices += tuple(f"{name}: {doubt}" for doubt in doubts if doubt)
    files, headers = tuple(members[k][0] for k in order), tuple(members[k][1] for k in order)
    return Series(files, headers, stack, name, notices)


def _slice_geometry(file: DicomFile, header: Dataset) -> tuple[float, ...]:
    """(3 position, 6 orientation, 2 spacing, rows, columns, thickness) of one slice, as the header has them."""
    values: list[float] = []
    for keyword, count in (("ImagePositionPatient", 3), ("ImageOrientationPatient", 6), ("PixelSpacing", 2)):
        try:
            part = [float(v) for v in tags.texts(header, keyword)]
        except ValueError:
            part = []
        if len(part) != count or not np.isfinite(part).all():
            raise InputError(f"{file.name}: {tags.state(header, keyword)}{_lacking(header)}; export the series again")
        values += part
    for keyword in ("Rows", "Columns"):
        size = tags.number(header, keyword)
        if not size or size < 1:
            raise InputError(f"{file.name}: {tags.state(header, keyword)}{_lacking(header)}; export the series again")
        values.append(size)
    return (*values, tags.number(header, "SliceThickness") or 0.0)


def _lacking(header: Dataset) -> str:
    """', and it is no PET image ...' for an object of another class, whose lack of a tag is no damage then."""
    return "" if is_pet_image(header) else f", and it is {why_no_image(header)}"


def _weight_kg(found: Series, overrides: SUVOverrides | None) -> float | None:
    """The weight that a user gave, or the header's."""
    given = overrides.weight_kg if overrides else None
    return given or tags.number(found.headers[0], "PatientWeight")


def _source(found: Series, conversion: SUVConversion, overrides: SUVOverrides | None) -> dict[str, Any]:
    header = found.headers[0]
    low, high = min(conversion.factors), max(conversion.factors)
    return {
        "format": "DICOM",
        "slices": len(found.files),
        "stored_units": printable(tags.text(header, "Units")),
        "suv_factor": low if low == high else [low, high],
        "suv": conversion.method,
        "suv_overrides": overrides.given() if overrides else {},
        "suv_basis_ratios": ratios_to_suvbw(
            _weight_kg(found, overrides),
            tags.number(header, "PatientSize"),
            tags.code(header, "PatientSex"),
        ),
        "spacing": found.stack.description,
        "notices": [*found.notices, *(f"{found.name}: {notice}" for notice in conversion.notices)],
    }
