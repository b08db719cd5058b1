"""From a slice's stored values to the numbers that its header says they are."""

import numpy as np
from pydicom import Dataset

from guided_diffusion.errors import InputError
from guided_diffusion.pet.formats import dicom_tags as tags

FLOAT_PIXELS = ("FloatPixelData", "DoubleFloatPixelData")


def rescaled(stored: np.ndarray, dataset: Dataset, name: str) -> np.ndarray:
    """Stored values [row, column] -> float32 in the header's Units: x RescaleSlope + RescaleIntercept, padding as 0.

    Bits beyond BitsStored, where old files keep overlays, are left out. name: the file's, for messages.

    Raises:
        InputError: slope or intercept are missing or no numbers.
    """
    slope, intercept = _line(dataset, name)
    padding = _padding(stored, dataset)
    values = _stored_bits(stored, dataset) * slope + intercept
    values[padding] = 0.0
    return values.astype(np.float32)


def _line(dataset: Dataset, name: str) -> tuple[float, float]:
    """RescaleSlope and RescaleIntercept; values that are stored as floating-point numbers need none."""
    exact = any(keyword in dataset for keyword in FLOAT_PIXELS)
    slope, intercept = tags.number(dataset, "RescaleSlope"), tags.number(dataset, "RescaleIntercept")
    if slope is None and exact and not tags.texts(dataset, "RescaleSlope"):
        slope = 1.0
    if slope is None or slope <= 0:
        raise InputError(f"{name}: {tags.state(dataset, 'RescaleSlope')}; export the series again")
    if intercept is None and tags.texts(dataset, "RescaleIntercept"):
        raise InputError(f"{name}: {tags.state(dataset, 'RescaleIntercept')}; export the series again")
    return slope, intercept or 0.0


def _stored_bits(stored: np.ndarray, dataset: Dataset) -> np.ndarray:
    """float64 of the BitsStored bits below HighBit, signed where PixelRepresentation says so."""
    allocated, used = tags.number(dataset, "BitsAllocated"), tags.number(dataset, "BitsStored")
    high = tags.number(dataset, "HighBit")
    compressed = dataset.file_meta.TransferSyntaxUID.is_compressed
    if stored.dtype.kind not in "iu" or compressed or None in (allocated, used, high) or used >= allocated:
        return stored.astype(np.float64)
    used, high = int(used), int(high)
    if not 0 < used <= high + 1 <= allocated:
        return stored.astype(np.float64)
    bits = (stored.astype(np.int64) >> (high + 1 - used)) & ((1 << used) - 1)
    if stored.dtype.kind == "i":
        bits -= (bits >> (used - 1)) << used
    return bits.astype(np.float64)


def _padding(stored: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Where a slice holds PixelPaddingValue (to PixelPaddingRangeLimit), which stands for voxels without a value."""
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
