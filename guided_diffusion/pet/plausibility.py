"""Whether values can be SUV by body weight: one rule for scans, training pairs and evaluated volumes."""

import numpy as np

from guided_diffusion.errors import InputError

# Bladders reach a few hundred; a body in Bq/mL peaks in the thousands.
LARGEST_SUV = 1000.0
# SUV averages 1 over a body, since activity per weight of the whole body is its unit: a hundredth of it at 100 would
# hold all that was injected.
LARGEST_TYPICAL_SUV = 100.0
# Every tracer exceeds the body's average somewhere. Images that nowhere do are normalised, or not in SUV.
SMALLEST_PEAK_SUV = 1.0
# Below this not even air and tissue can be distinguished, whatever a header says.
SMALLEST_STATED_PEAK_SUV = 0.1
TYPICAL_PERCENTILE = 99.0
# Noise alone is half below zero; a body adds to what is above.
LARGEST_NEGATIVE_SHARE = 0.95
LARGEST_NORMALISED = 1.001  # 1, and the rounding of half precision
SAMPLED_VOXELS = 2**20
# TotalSegmentator has 117 structures; a PET image in whole numbers has more values. Two values are a single region,
# whose mask is refused as an image that nowhere exceeds 1.
FEWEST_LABELS, MOST_LABELS = 3, 128
# A body holds no more than what was injected; calibration, and noise that is cut off at zero in the air, add to it.
LARGEST_SHARE_OF_DOSE = 1.5
# The sum of SUV over a body is its weight, or less where activity was excreted or lies outside the image. Scanners'
# tables carry people of up to 230 kg.
LARGEST_BODY_KG = 250.0


def check_suv(data: np.ndarray, name: object, *, stated: bool = False, advice: str = "") -> list[str]:
    """Refuses values [any axes] that are no SUV, and returns notices on those that are doubtful.

    stated: whether the file says that it is SUV, or how it becomes SUV. Then only the impossible is refused and the
    doubtful reported. advice: what helps where values are too low, besides converting them.

    Raises:
        InputError: NaN, infinity, nothing above zero, or values that cannot be SUV; names the file and what to do.
    """
    low, high = float(data.min()), float(data.max())
    if not np.isfinite([low, high]).all():  # the extremes of an array with a NaN are NaN
        raise InputError(
            f"{name}: has NaN or infinite voxels; repair the image first (where they stand for air, set them to 0)"
        )
    if high <= 0:
        raise InputError(f"{name}: no voxel is above zero; this is no PET image")
    typical = typical_of(data)
    if _is_half_negative(data):
        raise InputError(f"{name}: is as much below zero as above, like standardised values; give SUV itself")
    if typical >= LARGEST_SUV or (not stated and (high >= LARGEST_SUV or typical >= LARGEST_TYPICAL_SUV)):
        raise InputError(
            f"{name}: values up to {high:.4g} can't be SUV, they are probably Bq/mL; convert them to SUV"
            + (", or check weight and dose" if stated else ", or give the DICOM series")
        )
    if high < SMALLEST_STATED_PEAK_SUV or (not stated and high <= SMALLEST_PEAK_SUV):
        usual = "check weight, dose and unit" if stated else "multiply SUV/16 by 16, or convert them"
        raise InputError(f"{name}: values up to {high:.4g} are too low for SUV; {advice or usual}")
    if high >= LARGEST_SUV or typical >= LARGEST_TYPICAL_SUV:
        return [f"{name}: SUV up to {high:.4g} is seldom true; check weight, dose and injection time"]
    if high <= SMALLEST_PEAK_SUV or typical < SMALLEST_STATED_PEAK_SUV:
        return [f"{name}: SUV up to {high:.4g} and mostly below {typical:.2g} is low; check weight, dose and unit"]
    return []


def doubts_of_labels(data: np.ndarray, name: object) -> list[str]:
    """A notice on an image [any axes] of a few whole numbers, as label maps are in whatever type they are stored.

    A phantom that somebody drew may be one too.
    """
    if not _are_whole(_sample(data)):
        return []
    values = np.unique(data)
    if not (FEWEST_LABELS <= len(values) <= MOST_LABELS and _are_whole(values)):
        return []
    return [f"{name}: holds {len(values)} whole numbers only, as label maps do; taken as SUV"]


def doubts_of_dose(suv: np.ndarray, voxel_ml: float, weight_kg: float | None) -> list[str]:
    """A notice where an image [any axes] holds more activity than was injected, by its own SUV."""
    if weight_kg is None or weight_kg <= 0:
        return []
    share = float(suv.sum(dtype=np.float64)) * voxel_ml / (weight_kg * 1000)
    if share <= LARGEST_SHARE_OF_DOSE:
        return []
    return [f"holds {share:.1f} times the injected activity; check dose, injection time and half-life"]


def doubts_of_body(suv: np.ndarray, voxel_ml: float) -> list[str]:
    """A notice where an image [any axes], if it was SUV, would be of a body that is too heavy."""
    weight_kg = float(suv.sum(dtype=np.float64)) * voxel_ml / 1000
    if weight_kg <= LARGEST_BODY_KG:
        return []
    return [f"taken as SUV, it would be of a body of {weight_kg:.0f} kg or more; is it in kBq/mL?"]


def check_normalised(data: np.ndarray, name: object, *, advice: str) -> None:
    """Refuses values that are no SUV/16.

    Raises:
        InputError: a value exceeds 1, or values lie below zero as much as above, as those from -1 to 1 do.
    """
    if _is_half_negative(data):
        raise InputError(
            f"{name}: is as much below zero as above, but SUV/16 is from 0 to 1;"
            " convert values from -1 to 1 by (x + 1) / 2"
        )
    largest = float(data.max())
    if largest > LARGEST_NORMALISED:
        raise InputError(f"{name}: values up to {largest:.4g} are not SUV/16; {advice}")


def typical_of(data: np.ndarray) -> float:
    """The 99th percentile of the voxels above zero, of a regular sample of a large volume; 0 where none is."""
    sample = _sample(data)
    sample = sample[sample > 0]
    return float(np.percentile(sample, TYPICAL_PERCENTILE)) if sample.size else 0.0


def _are_whole(values: np.ndarray) -> bool:
    return bool((values == np.rint(values)).all())


def _is_half_negative(data: np.ndarray) -> bool:
    """Whether values below zero outweigh those above, but for LARGEST_NEGATIVE_SHARE."""
    sample = _sample(data)
    return bool(-sample.clip(max=0).sum() > LARGEST_NEGATIVE_SHARE * sample.clip(min=0).sum())


def _sample(data: np.ndarray) -> np.ndarray:
    """float64 voxels at equal distances, at most about SAMPLED_VOXELS."""
    step = max(1, int(np.ceil((data.size / SAMPLED_VOXELS) ** (1 / data.ndim))))
    return np.asarray(data[(slice(None, None, step),) * data.ndim], dtype=np.float64)
