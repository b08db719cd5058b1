"""A DICOM PET series: finding it in a folder or zip, ordering its slices in space, reading it as SUV.

Headers are read first, pixels slice by slice. Nothing here puts a patient's name or birth date into a message.
"""

import io
import os
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
import pydicom
from pydicom import Dataset
from pydicom.errors import InvalidDicomError

from guided_diffusion.errors import InputError
from guided_diffusion.pet.damage import damage_as
from guided_diffusion.pet.formats import dicom_tags as tags
from guided_diffusion.pet.formats.arrays import check_size
from guided_diffusion.pet.formats.series_checks import (
    CHECKED_TAGS,
    check_one_patient,
    images_only,
    is_pet_image,
    why_no_image,
)
from guided_diffusion.pet.formats.slices import SliceStack, stack_slices
from guided_diffusion.pet.formats.stored_values import rescaled
from guided_diffusion.pet.suv import SUV_TAGS, SUVConversion, SUVError, SUVOverrides, suv_conversion
from guided_diffusion.pet.suv_bases import ratios_to_suvbw
from guided_diffusion.pet.text import printable

MAX_FILE_BYTES = 2**30
# All that reading a series needs of its headers, each decoded on reading: damage shows there and then.
HEADER_TAGS = [
    "SeriesInstanceUID",
    "Modality",
    "SeriesNumber",
    "NumberOfFrames",
    "DirectoryRecordSequence",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SliceThickness",
    "Rows",
    "Columns",
    *CHECKED_TAGS,
    *SUV_TAGS,
]


@dataclass(frozen=True)
class DicomFile:
    """One file of a folder or zip: `name` for messages, `open` for its bytes."""

    name: str
    open: Callable[[], io.BufferedIOBase]

    def read(self, **options: object) -> Dataset:
        """The data set; options as for `pydicom.dcmread`."""
        with self.open() as stream, quiet_pydicom():
            return pydicom.dcmread(stream, **options)


@dataclass(frozen=True)
class Series:
    """The slices of one series, sorted along the normal.

    headers: data sets without pixels, in the order of `files`. notices: what the user should know of how it was found.
    """

    files: tuple[DicomFile, ...]
    headers: tuple[Dataset, ...]
    stack: SliceStack
    name: str
    notices: tuple[str, ...] = ()

    def pixels(self, k: int) -> np.ndarray:
        """Slice k as float32 [column, row] in the header's Units: stored x RescaleSlope + RescaleIntercept.

        Raises:
            InputError: the pixel data are truncated, compressed in a way that no installed decoder reads, or absent.
        """
        name, header = self.files[k].name, self.headers[k]
        damaged = f"{name}: its pixel data are missing or truncated; copy the series again"
        with damage_as(damaged, RuntimeError, NotImplementedError):
            dataset = self.files[k].read()
        try:
            with damage_as(damaged, RuntimeError, NotImplementedError), quiet_pydicom():
                stored = dataset.pixel_array
        except (RuntimeError, NotImplementedError):  # how pydicom says that no handler reads this compression
            raise InputError(
                f"{name}: no decoder for its compression ({printable(dataset.file_meta.TransferSyntaxUID.name)});"
                " pip install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg, or export the series uncompressed"
            ) from None
        if stored.shape != (header.Rows, header.Columns):
            raise InputError(f"{name}: is no single greyscale slice; give a classic PET series, one slice per file")
        with damage_as(damaged), quiet_pydicom():
            return rescaled(stored, dataset, name).T


def is_archive(path: Path) -> bool:
    """Whether `path` is taken as a zip of DICOM files."""
    return path.suffix.lower() == ".zip"


def load_suv(
    path: Path, *, series: str | None = None, overrides: SUVOverrides | None = None
) -> tuple[np.ndarray, np.ndarray, str, dict[str, object]]:
    """Reads the PET series under `path` -> data float32 [column, row, slice] in SUV, affine (mm, RAS+), unit, source.

    Slices at unequal distances are resampled to equal ones by position.

    Raises:
        InputError: no PET series, several without `series`, or damaged, missing, doubled or inconsistent slices.
        SUVError: no SUV factor follows from the header.
    """
    with open_series(path, series=series) as found:
        return read_suv(found, overrides)


def read_suv(
    found: Series, overrides: SUVOverrides | None = None
) -> tuple[np.ndarray, np.ndarray, str, dict[str, object]]:
    """As `load_suv`, for a series that is open."""
    conversion = conversion_of(found, overrides)
    data = found.stack.resample(lambda k: found.pixels(k) * np.float32(conversion.factors[k]))
    return data, found.stack.affine, "SUV", _source(found, conversion, overrides)


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
    """Finds the one PET series under a folder (nested ones too) or in a `.zip`, which stays open inside the context.

    Raises:
        InputError: as `load_suv`.
    """
    with _files(path) as files:
        groups: dict[str, list[tuple[DicomFile, Dataset]]] = {}
        for file in files:
            header = _header(file)
            if header is not None:
                groups.setdefault(str(header.SeriesInstanceUID), []).append((file, header))
        notices: dict[str, list[str]] = {}
        for uid, members in groups.items():
            kept, notices[uid] = images_only([header for _, header in members], [file.name for file, _ in members])
            groups[uid] = [members[k] for k in kept]
        chosen = _choose(groups, path, series)
        check_one_patient([header for _, header in chosen], [file.name for file, _ in chosen])
        found = _sorted_series(chosen, str(path))
        yield replace(found, notices=tuple(notices[str(found.headers[0].SeriesInstanceUID)]))


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """pydicom quotes values that break the standard in its warnings, a patient's name among them: silence it."""
    with warnings.catch_warnings(), pydicom.config.disable_value_validation():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _files(path: Path) -> Iterator[list[DicomFile]]:
    if not is_archive(path):
        found = [Path(folder) / name for folder, _, names in sorted(os.walk(path)) for name in sorted(names)]
        yield [DicomFile(str(p), lambda p=p: p.open("rb")) for p in found if not p.name.startswith(".")]
        return
    with damage_as(f"{path}: is no complete .zip file; copy it again"):
        archive = zipfile.ZipFile(path)
    with archive:
        members = [m for m in archive.infolist() if not m.is_dir()]
        for member in members:
            parts = PurePosixPath(member.filename.replace("\\", "/"))
            if parts.is_absolute() or ".." in parts.parts or member.file_size > MAX_FILE_BYTES:
                raise InputError(f"{path}: holds a member that points outside or is far too large; not opened")
        yield [
            DicomFile(f"{path}:{printable(m.filename)}", lambda m=m: archive.open(m))
            for m in sorted(members, key=lambda m: m.filename)
            if not PurePosixPath(m.filename).name.startswith(".")
        ]


def _header(file: DicomFile) -> Dataset | None:
    """What reading needs of the header; None for a file that does not claim to be DICOM."""
    try:
        with damage_as(f"{file.name}: is a damaged or encrypted DICOM file; copy it again", InvalidDicomError):
            header = file.read(stop_before_pixels=True, specific_tags=HEADER_TAGS)
            with quiet_pydicom():
                header.decode()
    except InvalidDicomError:
        if file.name.lower().endswith(".dcm"):
            raise InputError(
                f"{file.name}: is no DICOM file although it is called one; remove or copy it again"
            ) from None
        return None
    if "DirectoryRecordSequence" in header:  # a DICOMDIR: the table of contents of a disc
        return None
    if not tags.text(header, "SeriesInstanceUID"):
        raise InputError(f"{file.name}: is truncated, or has no {tags.name_tag('SeriesInstanceUID')}; copy it again")
    return header


def _choose(
    groups: dict[str, list[tuple[DicomFile, Dataset]]], path: Path, series: str | None
) -> list[tuple[DicomFile, Dataset]]:
    if not groups:
        raise InputError(f"{path}: no DICOM files in it; give the folder or .zip of a PET series")
    if series is not None:
        chosen = [g for uid, g in groups.items() if series in (uid, tags.text(g[0][1], "SeriesNumber"))]
        if len(chosen) != 1:
            raise InputError(f"{path}: --series {printable(series)} fits {len(chosen)} series; {_listing(groups)}")
    else:
        chosen = [g for g in groups.values() if tags.text(g[0][1], "Modality") == "PT"]
        if len(chosen) > 1:
            corrected = [g for g in chosen if "ATTN" in tags.texts(g[0][1], "CorrectedImage")]
            chosen = corrected if len(corrected) == 1 else chosen
        if len(chosen) > 1:
            raise InputError(f"{path}: holds {len(chosen)} PET series; choose one with --series; {_listing(groups)}")
    modality = tags.text((chosen or list(groups.values()))[0][0][1], "Modality") or ""
    if not chosen or modality != "PT":
        raise InputError(f"{path}: {tags.name_tag('Modality')} is '{printable(modality)}', not PT; give a PET series")
    return chosen[0]


def _listing(groups: dict[str, list[tuple[DicomFile, Dataset]]]) -> str:
    """One line that tells the series apart. Descriptions are left out: people write names into them."""
    lines = []
    for uid, members in sorted(groups.items()):
        header = members[0][1]
        shown = {key: printable(tags.text(header, key) or "?", 16) for key in ("SeriesNumber", "Modality")}
        lines.append(
            f"number {shown['SeriesNumber']} ({shown['Modality']}, {len(members)} slices, UID {printable(uid)})"
        )
    return "series here: " + "; ".join(lines)


def _sorted_series(members: list[tuple[DicomFile, Dataset]], name: str) -> Series:
    first = members[0][1]
    if (tags.number(first, "NumberOfFrames") or 1) > 1:
        raise InputError(f"{members[0][0].name}: is a multi-frame file; export it as classic PET, one slice per file")
    geometry = [_slice_geometry(file, header) for file, header in members]
    stack, order = stack_slices(geometry, [file.name for file, _ in members])
    check_size(stack.shape, name)
    return Series(tuple(members[k][0] for k in order), tuple(members[k][1] for k in order), stack, name)


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


def _source(found: Series, conversion: SUVConversion, overrides: SUVOverrides | None) -> dict[str, object]:
    header = found.headers[0]
    weight = overrides.weight_kg if overrides else None
    low, high = min(conversion.factors), max(conversion.factors)
    return {
        "format": "DICOM",
        "slices": len(found.files),
        "stored_units": printable(tags.text(header, "Units")),
        "suv_factor": low if low == high else [low, high],
        "suv": conversion.method,
        "suv_overrides": overrides.given() if overrides else {},
        "suv_basis_ratios": ratios_to_suvbw(
            weight or tags.number(header, "PatientWeight"),
            tags.number(header, "PatientSize"),
            tags.text(header, "PatientSex"),
        ),
        "spacing": found.stack.description,
        "notices": list(found.notices),
    }
