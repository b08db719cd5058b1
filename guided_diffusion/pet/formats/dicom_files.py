"""The DICOM files of a folder or zip: each is read or reported with a reason; none is skipped silently.

No message contains a patient's name or birth date.
"""

import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import pydicom
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from guided_diffusion.errors import InputError
from guided_diffusion.gate import open_regular, open_zip
from guided_diffusion.pet.damage import damage_as
from guided_diffusion.pet.formats import dicom_tags as tags
from guided_diffusion.pet.formats.deflated import check_deflated
from guided_diffusion.pet.formats.folder_walk import Folder, LeftOut, walk
from guided_diffusion.pet.formats.opening import HEAD_BYTES, head_of, open_unpacked
from guided_diffusion.pet.formats.series_checks import CHECKED_TAGS, PET_CLASSES
from guided_diffusion.pet.suv import SUV_TAGS
from guided_diffusion.pet.text import printable

MAX_FILE_BYTES = 2**30
DICOM_SUFFIXES = (".dcm", ".ima", ".dicom")
# All that reading a series needs of its headers, each decoded on reading: damage shows there and then.
HEADER_TAGS = [
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "SeriesNumber",
    "InstanceNumber",
    "DerivationDescription",
    "ImageType",
    "NumberOfSlices",
    "NumberOfFrames",
    "DirectoryRecordSequence",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SliceThickness",
    "Columns",
    *CHECKED_TAGS,
    *SUV_TAGS,
]
_VR = re.compile(rb"AE|AS|AT|CS|DA|DS|DT|IS|LO|OB|OW|PN|SH|SQ|TM|UI|UL|UN|US")


@dataclass(frozen=True)
class DicomFile:
    """One file of a folder or zip: `name` for messages, `open` for its bytes."""

    name: str
    open: Callable[[], BinaryIO]

    def read(self, **options: object) -> Dataset:
        """The data set, with a transfer syntax also where the file has no Part 10 header; options as for pydicom.

        Files without that header (network dumps, old archives) are in little endian, implicit or explicit; what they
        lack of it is added. UIDs that the data set lacks are taken from it.
        """
        with self.open() as stream, quiet_pydicom():
            check_deflated(stream, self.name)
            dataset = pydicom.dcmread(stream, force=True, **options)
            _complete(dataset)
            return dataset


@dataclass(frozen=True)
class Slices:
    """Contents of a folder or zip: files with the headers that reading needs, and all that is left out."""

    headers: list[tuple[DicomFile, Dataset]] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)


@contextmanager
def open_files(path: Path) -> Iterator[Slices]:
    """All DICOM files under a folder, or in a `.zip`, which stays open inside the context; or the one file alone.

    Raises:
        InputError: a file is DICOM but damaged, or is called like the slices beside it but is no DICOM file.
    """
    if path.is_dir():
        yield _read_all(*_files_of_folder(walk(path)))
    elif is_dicom(head_of(path)):
        yield _read_all([file_at(path)], [])
    else:
        with open_zip(path) as archive:
            yield _read_all(*_members_of(archive, path))


def is_dicom(head: bytes) -> bool:
    """Whether a file that begins so claims to be DICOM: with a Part 10 header, or with a data set right away."""
    if head[128:132] == b"DICM":
        return True
    group, element = int.from_bytes(head[:2], "little"), int.from_bytes(head[2:4], "little")
    if group not in (0x0002, 0x0008) or element > 0x0100 or len(head) < 8:
        return False
    return bool(_VR.match(head[4:6])) or int.from_bytes(head[4:8], "little") <= 1024


def holds_series(path: Path) -> bool:
    """Whether a file is a series by itself: called or being a zip of DICOM files, or a whole series of many frames.

    Raises:
        InputError: it is damaged, or a DICOM file beside one of many frames is.
    """
    if not is_dicom(head_of(path)):
        return path.suffix.lower() == ".zip" or is_zip_of_dicom(path)
    header = header_of(file_at(path))
    return (tags.number(header, "NumberOfFrames") or 1) > 1 and not _has_other_parts(path, header)


def _has_other_parts(path: Path, header: Dataset) -> bool:
    """Whether another file of the folder belongs to the series of this one; copies of it do not count."""
    for other in path.parent.iterdir():
        if other.is_file() and is_dicom(head_of(other)):
            beside = header_of(file_at(other))
            one_series = beside.get("SeriesInstanceUID") == header.get("SeriesInstanceUID")
            if one_series and beside.get("SOPInstanceUID") != header.get("SOPInstanceUID"):
                return True
    return False


def is_zip_of_dicom(path: Path) -> bool:
    """Whether a file is a zip with a DICOM file in it."""
    with open_regular(path) as file:
        if file.read(4) != b"PK\3\4":
            return False
        with damage_as(f"{path}: is no complete .zip file; copy it again"), zipfile.ZipFile(file) as archive:
            for member in archive.infolist():
                with archive.open(member) as stream:
                    if is_dicom(stream.read(HEAD_BYTES)):
                        return True
    return False


def file_at(path: Path) -> DicomFile:
    """A file of a folder, unpacked on reading if it is gzipped."""
    return DicomFile(str(path), lambda: open_unpacked(path))


def header_of(file: DicomFile, more_tags: Sequence[str] = ()) -> Dataset:
    """Returns the part of a DICOM file's header that reading needs, and `more_tags`.

    Raises:
        InputError: the file is damaged.
    """
    with damage_as(f"{file.name}: is a damaged or encrypted DICOM file; copy it again"):
        header = file.read(stop_before_pixels=True, specific_tags=[*HEADER_TAGS, *more_tags])
        with quiet_pydicom():
            header.decode()
    return header


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """pydicom quotes values that break the standard in its warnings, a patient's name among them: silence it."""
    with warnings.catch_warnings(), pydicom.config.disable_value_validation():
        warnings.simplefilter("ignore")
        yield


def _files_of_folder(folder: Folder) -> tuple[list[DicomFile], list[LeftOut]]:
    files = [file_at(path) for below in folder.walk() for path in below.files]
    return files, [one for below in folder.walk() for one in below.left_out]


def _members_of(archive: zipfile.ZipFile, path: Path) -> tuple[list[DicomFile], list[LeftOut]]:
    """The files of a zip. Their folders, which exports call by the patient, have numbers in place of names."""
    members = [m for m in archive.infolist() if not m.is_dir()]
    places = {member.filename: PurePosixPath(member.filename.replace("\\", "/")) for member in members}
    for member in members:
        place = places[member.filename]
        if place.is_absolute() or ".." in place.parts or member.file_size > MAX_FILE_BYTES:
            raise InputError(f"{path}: holds a member that points outside or is far too large; not opened")
    hidden = {name for name, place in places.items() if place.name.startswith(".")}
    shown = sorted((member for member in members if member.filename not in hidden), key=lambda m: m.filename)
    parents = sorted({places[member.filename].parent for member in shown})
    folders = {parent: f"folder {k}/" if len(parents) > 1 else "" for k, parent in enumerate(parents, start=1)}
    files = []
    for member in shown:
        place = places[member.filename]
        name = f"{path}:{folders[place.parent]}{printable(place.name)}"
        files.append(DicomFile(name, lambda m=member: archive.open(m)))
    left_out = [LeftOut(f"{path}:{printable(places[name].name)}", "hidden") for name in sorted(hidden)]
    return files, left_out


def _read_all(files: list[DicomFile], left_out: list[LeftOut]) -> Slices:
    slices = Slices(left_out=left_out)
    foreign: list[tuple[DicomFile, bytes]] = []
    for file in files:
        with damage_as(f"{file.name}: is damaged; copy it again"), file.open() as stream:
            head = stream.read(HEAD_BYTES)
        if not is_dicom(head):
            foreign.append((file, head))
            continue
        header = header_of(file)
        if "DirectoryRecordSequence" in header:
            slices.left_out.append(LeftOut(file.name, "a DICOMDIR, the table of contents of a disc"))
        elif not tags.text(header, "SeriesInstanceUID"):
            raise InputError(
                f"{file.name}: is truncated, or has no {tags.name_tag('SeriesInstanceUID')}; copy it again"
            )
        elif tags.text(header, "SOPClassUID") in PET_CLASSES and "Rows" not in header:
            raise InputError(
                f"{file.name}: is a PET image without {tags.name_tag('Rows')}: it was cut off; copy it again"
            )
        else:
            slices.headers.append((file, header))
    patterns = {_pattern(file.name) for file, _ in slices.headers}
    _check_all_here(left_out, patterns)
    for file, head in foreign:
        state = "is empty" if not head else "is no DICOM file"
        if head and not head.strip(b"\0"):
            raise InputError(
                f"{file.name}: begins with zeros only, as a slice that was cut off; remove or copy it again"
            )
        if file.name.lower().endswith(DICOM_SUFFIXES):
            raise InputError(f"{file.name}: {state} although it is called one; remove or copy it again")
        if _pattern(file.name) in patterns:
            raise InputError(
                f"{file.name}: {state} although it is called like the slices beside it; remove or copy it again"
            )
        slices.left_out.append(LeftOut(file.name, "empty" if not head else "no DICOM file"))
    return slices


def _check_all_here(left_out: list[LeftOut], patterns: set[str]) -> None:
    """Refuses a series some of whose slices are elsewhere, or all: without a word it would just be shorter.

    patterns: of the slices that were read.
    """
    for one in left_out:
        if not one.is_elsewhere:
            continue
        if _pattern(one.path) in patterns or (not patterns and one.path.lower().endswith(DICOM_SUFFIXES)):
            beside = " although it is called like the slices beside it" if patterns else ""
            raise InputError(f"{one.path}: is {one.reason}{beside}; fetch its content, or remove it")


def _pattern(name: str) -> str:
    """A file's path with its numbers blurred: alike for the slices of a series, and for a copy with '(1)' or so.

    A name of hexadecimal digits alone, as anonymisers and archives give, is one number.
    """
    folder, _, base = name.rpartition("/")
    if re.fullmatch(r"[0-9A-Fa-f-]{8,}", base):
        return f"{folder}/#"
    return f"{folder}/{re.sub('[0-9]+', '#', base.lower())}"


def _complete(dataset: Dataset) -> None:
    """Adds to the file meta information what it lacks, and to the data set the UIDs that only it has."""
    meta = dataset.file_meta = getattr(dataset, "file_meta", None) or FileMetaDataset()
    if "TransferSyntaxUID" not in meta:
        implicit, little = dataset.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    for keyword in ("SOPClassUID", "SOPInstanceUID"):
        if not tags.text(dataset, keyword) and meta.get(f"MediaStorage{keyword}"):
            setattr(dataset, keyword, meta.get(f"MediaStorage{keyword}"))
