"""Every number of the realisations of one image that can be taken with what is known of an examination."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np
from scipy.stats import t as student

from evaluation.measures.ensembles import (
    VoxelScores,
    coverage,
    joined,
    rank_deviation,
    rank_histogram,
    spread_over_error,
    standard_distance,
    voxel_scores,
)
from evaluation.measures.examination import Examination
from evaluation.measures.image_fidelity import comparable
from evaluation.measures.measurement import Measurement
from guided_diffusion.inference.running_statistics import RunningStatistics
from guided_diffusion.pet.suv_peak import suv_peak

LEVELS = (50, 68, 95)
UPTAKE_EDGES = (0.0, 0.5, 1.0, 2.5, 5.0, np.inf)  # SUV
VOXELS_AT_ONCE = 2**19


def measure_ensemble(examination: Examination, realisations: Sequence[np.ndarray]) -> list[Measurement]:
    """The numbers of realisations, float32 [X, Y, Z] each in SUV on the examination's grid; none for fewer than two.

    Regions are the body, the organs, every lesion over 10 mm and all together, and ranges of uptake by the
    realisations' mean: by the reference, noise would sort voxels into ranges that no forecast could know. Raises
    InputError for a shape that differs from the low dose's and for a voxel that is not finite.
    """
    if len(realisations) < 2:
        return []
    images = [comparable(examination.low_dose.data, image)[1] for image in realisations]
    statistics = RunningStatistics()
    for image in images:
        statistics.add(image[examination.body])
    regions = _regions(examination, statistics.mean)
    numbers = [*_of_the_spread(statistics.standard_deviation.astype(float), regions)]
    for name, reference in examination.references.items():
        if name == "normal" and examination.is_normal_dose:
            continue
        scores = scores_in_the_body(examination.body, images, reference.data)
        for region, voxels in regions.items():
            numbers += _of_a_region(name, region, scores.inside(voxels), len(images))
        numbers += _of_peaks(examination, images, name)
    return [number for number in numbers if np.isfinite(number.value)]


def scores_in_the_body(body: np.ndarray, realisations: Sequence[np.ndarray], reference: np.ndarray) -> VoxelScores:
    """Scores of the voxels of `body`, bool [X, Y, Z], in the order of `image[body]`; a part of the volume at a time."""
    step = max(1, VOXELS_AT_ONCE // (body.shape[1] * body.shape[2]))
    parts = []
    for first in range(0, body.shape[0], step):
        part = slice(first, first + step)
        inside = body[part]
        stack = np.stack([image[part][inside] for image in realisations])
        parts.append(voxel_scores(stack, reference[part][inside]))
    return joined(parts)


def _regions(examination: Examination, mean: np.ndarray) -> Mapping[str, np.ndarray]:
    """Every region that has a voxel, as a boolean array over the voxels of the body; `mean` is of these, in SUV."""
    body = examination.body
    regions = {"body": np.ones(np.count_nonzero(body), bool)}
    regions |= {name: voxels[body] for name, voxels in {**examination.organs, **examination.lesions}.items()}
    if examination.lesions:
        regions["all_lesions"] = np.any([regions[name] for name in examination.lesions], axis=0)
    for low, high in pairwise(UPTAKE_EDGES):
        name = f"uptake_{low:g}_{high:g}" if np.isfinite(high) else f"uptake_{low:g}"
        regions[name] = (mean >= low) & (mean < high)
    return {name: voxels for name, voxels in regions.items() if voxels.any()}


def _of_the_spread(deviation: np.ndarray, regions: Mapping[str, np.ndarray]) -> Iterator[Measurement]:
    """The map of uncertainty itself: the standard deviation between realisations in the voxels of the body."""
    for region, voxels in regions.items():
        yield Measurement("uncertainty_mean", region, float(deviation[voxels].mean()))
        yield Measurement("uncertainty_variance", region, float(deviation[voxels].var()))
        yield Measurement("realisation_variance", region, float((deviation[voxels] ** 2).mean()))


def _of_a_region(reference: str, region: str, scores: VoxelScores, number: int) -> Iterator[Measurement]:
    crps, error = scores.crps.mean(), scores.absolute_error.mean()
    values = {
        "crps": crps,
        "crps_gain": 100 * (1 - crps / error) if error else np.nan,
        "spread_over_error": spread_over_error(scores, number),
        "rank_deviation": rank_deviation(rank_histogram(scores, number)),
    }
    values |= {f"coverage_{level}": coverage(scores, number, level / 100) for level in LEVELS}
    for name, value in values.items():
        yield Measurement(f"{name}_{reference}", region, float(value))


def _of_peaks(examination: Examination, images: Sequence[np.ndarray], reference: str) -> Iterator[Measurement]:
    """Whether the 95 % interval from the realisations' SUVpeak holds the reference's, 100 or 0 for every lesion."""
    data = examination.references[reference].data
    limit = student.ppf(0.975, len(images) - 1)
    for region, voxels in examination.lesions.items():
        peaks = np.array([suv_peak(image, voxels, examination.voxel_mm) for image in images])
        expected = np.array(suv_peak(data, voxels, examination.voxel_mm))
        inside = standard_distance(peaks.mean(), peaks.var(ddof=1), expected, len(images)) <= limit
        yield Measurement(f"suv_peak_coverage_95_{reference}", region, 100.0 * inside)
