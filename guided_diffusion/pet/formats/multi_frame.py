"""Enhanced and legacy-converted PET objects, which hold many frames in one file: each frame is read as a classic slice.

An object is read once and stays in memory while its series is open; a frame is decoded when it is read.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache

from pydicom import DataElement, Dataset
from pydicom.encaps import encapsulate, get_frame, parse_fragments
from pydicom.uid import EnhancedPETImageStorage, LegacyConvertedEnhancedPETImageStorage

from guided_diffusion.errors import InputError
from guided_diffusion.gate import check_unfolded
from guided_diffusion.pet.damage import damage_as
from guided_diffusion.pet.formats import dicom_tags as tags
from guided_diffusion.pet.formats.dicom_files import DicomFile, Slices, header_of, quiet_pydicom
from guided_diffusion.pet.formats.frame_header import FRAME_TAGS, PER_FRAME, classic_header
from guided_diffusion.pet.formats.stored_values import FLOAT_PIXELS

MULTI_FRAME_CLASSES = (EnhancedPETImageStorage, LegacyConvertedEnhancedPETImageStorage)
# A volume may be split in two where bodies overlap, and an object be compared with its copy.
KEPT_OBJECTS = 2


@dataclass(frozen=True)
class Frame(DicomFile):
    """A frame of the object in `source`, numbered from 1. fault: why no slice follows from it, None if one does."""

    source: DicomFile
    number: int
    fault: str | None

    def read(self, **options: object) -> Dataset:
        """The frame as the data set of a classic slice, in the object's transfer syntax; without pixels on request."""
        with quiet_pydicom():
            whole = _whole(self.source)
            dataset, _ = classic_header(whole, self.number)
            if not options.get("stop_before_pixels"):
                _add_pixels(dataset, whole, self.number)
        return dataset


@contextmanager
def frames_as_slices(found: Slices) -> Iterator[Slices]:
    """The same files, with each frame of an enhanced PET object as a slice of its own, readable inside the context."""
    try:
        yield replace(found, headers=[member for file, header in found.headers for member in _frames(file, header)])
    finally:
        _whole.cache_clear()


def check_frames(files: Sequence[DicomFile]) -> None:
    """Refuses frames from which no slice follows, and objects that hold less, or more, than their frames.

    Raises:
        InputError: names the frame, or the object.
    """
    frames = [file for file in files if isinstance(file, Frame)]
    for frame in frames:
        if frame.fault is not None:
            raise InputError(f"{frame.name}: {frame.fault}")
    for source in dict.fromkeys(frame.source for frame in frames):
        _check_pixels(source)


def _frames(file: DicomFile, header: Dataset) -> list[tuple[DicomFile, Dataset]]:
    """(frame, header) of an object's frames, in their order; any other file and header as they are."""
    if tags.text(header, "SOPClassUID") not in MULTI_FRAME_CLASSES:
        return [(file, header)]
    whole = header_of(file, FRAME_TAGS)
    count, members = len(whole.get(PER_FRAME) or ()), []
    if count == 0:
        return [(file, header)]
    lie = None
    if tags.number(whole, "NumberOfFrames") != count:
        lie = f"{tags.state(whole, 'NumberOfFrames')}, but it describes {count}; export the series again"
    for number in range(1, count + 1):
        name = f"{file.name} frame {number}"
        with damage_as(f"{name}: is damaged; copy the file again"), quiet_pydicom():
            slice_header, fault = classic_header(whole, number)
        members.append((Frame(name, file.open, file, number, lie or fault), slice_header))
    return members


@lru_cache(maxsize=KEPT_OBJECTS)
def _whole(source: DicomFile) -> Dataset:
    return source.read()


def _check_pixels(source: DicomFile) -> None:
    """Compares the pixels that an object holds with its frames, before memory is taken for them."""
    damaged = f"{source.name}: its pixel data are missing or truncated; copy the series again"
    with damage_as(damaged), quiet_pydicom():
        whole = _whole(source)
        held, count = _pixels(whole).value, len(whole[PER_FRAME].value)
        expected, row = count * _bytes_of_frame(whole), _bytes_of_frame(whole) // whole.Rows
        compressed = whole.file_meta.TransferSyntaxUID.is_encapsulated
        # The first item of compressed pixels is a table of offsets.
        is_short = parse_fragments(held)[0] - 1 < count if compressed else len(held) < expected
    if is_short:
        raise InputError(damaged)
    if compressed:
        check_unfolded(expected, len(held), source.name)
    elif len(held) >= expected + row:
        raise InputError(
            f"{source.name}: {tags.state(whole, 'NumberOfFrames')}, {tags.state(whole, 'Rows')} and"
            f" {tags.state(whole, 'Columns')}, but its pixels are more; export the series again"
        )


def _pixels(whole: Dataset) -> DataElement:
    return next(whole[keyword] for keyword in ("PixelData", *FLOAT_PIXELS) if keyword in whole)


def _bytes_of_frame(whole: Dataset) -> int:
    return whole.Rows * whole.Columns * whole.BitsAllocated // 8


def _add_pixels(dataset: Dataset, whole: Dataset, number: int) -> None:
    """Gives a frame's header the frame's own pixels."""
    element, size = _pixels(whole), _bytes_of_frame(whole)
    compressed = whole.file_meta.TransferSyntaxUID.is_encapsulated
    if compressed:
        offsets = [whole.get(keyword) for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")]
        own = get_frame(
            element.value,
            number - 1,
            extended_offsets=tuple(offsets) if None not in offsets else None,
            number_of_frames=len(whole[PER_FRAME].value),
        )
        value = encapsulate([own])
    else:
        value = element.value[(number - 1) * size : number * size]
    dataset.add_new(element.tag, element.VR, value)
    dataset[element.tag].is_undefined_length = compressed
