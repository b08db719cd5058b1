"""Converts a slice's stored values to the numbers that its header defines."""

import numpy as np
from pydicom import Dataset
from pydicom.uid import UID, UID_dictionary

from guided_diffusion.errors import InputError
from guided_diffusion.pet.damage import damage_as
from guided_diffusion.pet.formats import dicom_tags as tags
from guided_diffusion.pet.formats.dicom_files import quiet_pydicom
from guided_diffusion.pet.text import printable

FLOAT_PIXELS = ("FloatPixelData", "DoubleFloatPixelData")
# Groups that the standard gives to overlays; old ones lie in unused bits of the pixels.
OVERLAY_GROUPS = range(0x6000, 0x6020, 2)
OVERLAY_BIT_POSITION = 0x0102


def slice_values(dataset: Dataset, name: str) -> np.ndarray:
    """The pixels of a slice as float32 [row, column] in the header's Units. name: the file's, for messages.

    Raises:
        InputError: the pixel data are truncated, compressed in a way that no installed decoder reads, absent, or no
            single slice; or as `_rescaled`.
    """
    _check_described(dataset, name)
    damaged = f"{name}: its pixel data are missing or truncated; copy the series again"
    try:
        with damage_as(damaged, RuntimeError, NotImplementedError), quiet_pydicom():
            stored = dataset.pixel_array
    except (RuntimeError, NotImplementedError):  # pydicom has no handler for this compression
        raise InputError(f"{name}: {_why_not_decoded(dataset.file_meta.TransferSyntaxUID)}") from None
    if stored.shape != (dataset.Rows, dataset.Columns):
        raise InputError(f"{name}: is no single greyscale slice; give a classic PET series, one slice per file")
    with damage_as(damaged), quiet_pydicom():
        return _rescaled(stored, dataset, name)


def _why_not_decoded(syntax: UID) -> str:
    if syntax in UID_dictionary and syntax.is_transfer_syntax and syntax.is_compressed:
        return (
            f"no decoder for its compression ({syntax.name}); pip install pylibjpeg pylibjpeg-libjpeg"
            " pylibjpeg-openjpeg, or export the series uncompressed"
        )
    return f"its transfer syntax ({printable(syntax)}) is none of the standard's; export the series uncompressed"


def _check_described(dataset: Dataset, name: str) -> None:
    """Refuses pixels without the tags that say how they are stored.

    Raises:
        InputError: names the first tag that is missing.
    """
    needed = ("SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated")
    if "PixelData" in dataset:
        needed += ("BitsStored", "PixelRepresentation")
    for keyword in needed:
        if not tags.texts(dataset, keyword):
            state = tags.state(dataset, keyword)
            raise InputError(f"{name}: {state}, without which its pixels cannot be read; export the series again")


def _rescaled(stored: np.ndarray, dataset: Dataset, name: str) -> np.ndarray:
    """Stored values [row, column] -> float32 in the header's Units: x RescaleSlope + RescaleIntercept, padding as 0.

    name: the file's, for messages.

    Raises:
        InputError: slope or intercept are missing or no numbers; or values have bits where none should be, or are
            unsigned but said to be signed.
    """
    slope, intercept = _line(dataset, name, is_empty=not stored.any())
    _check_bits(dataset, name)
    _check_length(stored, dataset, name)
    padding = _padding(stored, dataset)
    _check_sign(np.where(padding, stored.dtype.type(0), stored), dataset, name)
    values = stored * slope + intercept
    values[padding] = 0.0
    return values.astype(np.float32)


def _line(dataset: Dataset, name: str, *, is_empty: bool) -> tuple[float, float]:
    """RescaleSlope and RescaleIntercept; values that are stored as floating-point numbers need none.

    is_empty: whether all stored values are 0. Writers that scale each slice by its largest value give it a slope of 0.
    """
    exact = any(keyword in dataset for keyword in FLOAT_PIXELS)
    slope, intercept = tags.number(dataset, "RescaleSlope"), tags.number(dataset, "RescaleIntercept")
    if slope is None and exact and not tags.texts(dataset, "RescaleSlope"):
        slope = 1.0
    if slope is None or slope < 0 or (slope == 0 and not is_empty):
        raise InputError(f"{name}: {tags.state(dataset, 'RescaleSlope')}; export the series again")
    if intercept is None and tags.texts(dataset, "RescaleIntercept"):
        raise InputError(f"{name}: {tags.state(dataset, 'RescaleIntercept')}; export the series again")
    return slope, intercept or 0.0


def _check_bits(dataset: Dataset, name: str) -> None:
    """pydicom cuts off bits above BitsStored, where old files keep overlays; it starts at the lowest bit."""
    high, used = tags.number(dataset, "HighBit"), tags.number(dataset, "BitsStored")
    if None not in (high, used) and high != used - 1:
        bits = f"{tags.state(dataset, 'HighBit')}, but {tags.state(dataset, 'BitsStored')}"
        raise InputError(f"{name}: {bits}; export the series again")
    if "PixelData" in dataset and not dataset.file_meta.TransferSyntaxUID.is_compressed and _has_more_bits(dataset):
        bits = f"{tags.state(dataset, 'BitsStored')}, but its pixels use more bits"
        raise InputError(f"{name}: {bits}; export the series again")


def _has_more_bits(dataset: Dataset) -> bool:
    """Whether values of uncompressed pixels go on in the bits above BitsStored.

    They do not where those bits are the same in every pixel, extend the sign, or are those of overlays.
    """
    used, allocated = int(dataset.BitsStored), int(dataset.BitsAllocated)
    if used >= allocated or allocated not in (8, 16, 32):
        return False
    order = "<" if dataset.file_meta.TransferSyntaxUID.is_little_endian else ">"
    words = np.frombuffer(dataset.PixelData, f"{order}u{allocated // 8}", int(dataset.Rows) * int(dataset.Columns))
    above = ((1 << allocated) - (1 << used)) & ~_overlay_bits(dataset)
    upper = words & words.dtype.type(above)
    if not np.ptp(upper):
        return False
    negative = (words >> (used - 1)) & 1 == 1
    return not (dataset.PixelRepresentation == 1 and np.array_equal(upper, np.where(negative, above, 0)))


def _check_sign(stored: np.ndarray, dataset: Dataset, name: str) -> None:
    """Refuses values [row, column] that wrapped round, since they are unsigned and said to be signed.

    From the largest value to the smallest it is one step then: without the sign neighbours differ less. Those of noise
    about zero differ by almost the whole range without it. A hot spot is larger than a voxel: a single one is no sign.
    """
    negative = stored < 0
    touching = (negative[1:] & negative[:-1]).any() or (negative[:, 1:] & negative[:, :-1]).any()
    if stored.dtype.kind != "i" or not touching:
        return
    signed = stored.astype(np.int64)
    unsigned = np.where(signed < 0, signed + (1 << int(dataset.BitsStored)), signed)
    if _total_variation(unsigned) < _total_variation(signed):
        sign = f"{tags.state(dataset, 'PixelRepresentation')}, signed, but its pixels are unsigned"
        raise InputError(f"{name}: {sign}: the hottest would be below zero; export the series again")


def _total_variation(values: np.ndarray) -> int:
    return sum(int(np.abs(np.diff(values, axis=axis)).sum()) for axis in range(values.ndim))


def _overlay_bits(dataset: Dataset) -> int:
    """The bits of a pixel in which overlays lie, as a number; 0 for none."""
    positions = (tags.number(dataset, (group, OVERLAY_BIT_POSITION)) for group in OVERLAY_GROUPS)
    return sum({1 << int(position) for position in positions if position is not None and 0 < position < 32})


def _check_length(stored: np.ndarray, dataset: Dataset, name: str) -> None:
    """More pixels than Rows and Columns say are of a larger image; less than a row is what writers pad with."""
    held = len(next((dataset[k].value for k in ("PixelData", *FLOAT_PIXELS) if k in dataset), b""))
    if not dataset.file_meta.TransferSyntaxUID.is_compressed and held >= stored.nbytes + stored[0].nbytes:
        sizes = f"{tags.state(dataset, 'Rows')} and {tags.state(dataset, 'Columns')}"
        raise InputError(f"{name}: {sizes}, but its pixels are more; export the series again")


def _padding(stored: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Mask of PixelPaddingValue (to PixelPaddingRangeLimit) in a slice, which stands for voxels without a value."""
    prefix = {"f": "Float", "d": "DoubleFloat"}.get(stored.dtype.char, "")
    first = tags.number(dataset, f"{prefix}PixelPaddingValue")
    if first is None:
        return np.zeros(stored.shape, bool)
    last = tags.number(dataset, f"{prefix}PixelPaddingRangeLimit")
    low, high = sorted((_as_stored(first, stored.dtype), _as_stored(first if last is None else last, stored.dtype)))
    return (stored >= low) & (stored <= high)


def _as_stored(value: float, dtype: np.dtype) -> float:
    """A padding value as the pixels' type has it: 63536 in an unsigned tag stands for -2000 in signed pixels."""
    return float(np.int64(value).astype(dtype)) if dtype.kind in "iu" else float(dtype.type(value))
