"""Realisations of one image as a forecast of its reference: are they as far apart as the reference is from them?

Arrays are [K, n]: K realisations of n voxels, and [n] for the reference. The theory is that of ensemble forecasts: a
calibrated ensemble is one from which the reference could have been drawn as a further realisation.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from scipy.stats import t as student


@dataclass(frozen=True, eq=False)
class VoxelScores:
    """What the scores of a region are made of, voxel by voxel, float64 [n].

    crps: `fair_crps`. squared_error, absolute_error: of the realisations' mean. variance: between realisations (K - 1
    in the denominator). distance: `standard_distance`. below, equal: how many realisations are lower than the
    reference, and how many equal it.
    """

    crps: np.ndarray
    squared_error: np.ndarray
    absolute_error: np.ndarray
    variance: np.ndarray
    distance: np.ndarray
    below: np.ndarray
    equal: np.ndarray

    def inside(self, region: np.ndarray) -> "VoxelScores":
        """Those of some voxels, by a boolean array [n]."""
        return VoxelScores(*(getattr(self, field.name)[region] for field in fields(self)))


def voxel_scores(realisations: np.ndarray, reference: np.ndarray) -> VoxelScores:
    """Scores of every voxel. Needs K of 2 or more."""
    mean, variance = realisations.mean(axis=0, dtype=float), realisations.var(axis=0, ddof=1, dtype=float)
    return VoxelScores(
        crps=fair_crps(realisations, reference),
        squared_error=(mean - reference) ** 2,
        absolute_error=np.abs(mean - reference),
        variance=variance,
        distance=standard_distance(mean, variance, reference, len(realisations)),
        below=(realisations < reference).sum(axis=0),
        equal=(realisations == reference).sum(axis=0),
    )


def joined(parts: Sequence[VoxelScores]) -> VoxelScores:
    """Scores of the voxels of several parts, one after another."""
    return VoxelScores(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(parts[0])))


def fair_crps(realisations: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Continuous ranked probability score of every voxel, float64 [n], in the values' unit; lower is better.

    The mean of |x_i - y| less half the mean of |x_i - x_j| over pairs of different realisations (Gneiting and Raftery,
    J Am Stat Assoc 102:359, 2007, with the correction for K of Ferro et al., Meteorol Appl 15:19, 2008): the expected
    value does not depend on K. For a normal distribution of deviation s and a reference drawn from it, s / sqrt(pi).
    """
    number = len(realisations)
    ordered = np.sort(realisations.astype(float), axis=0)
    weights = 2.0 * np.arange(number) - (number - 1)  # sum over pairs of x_(j) - x_(i)
    pairs = np.tensordot(weights, ordered, axes=1)
    return np.abs(ordered - reference).mean(axis=0) - pairs / (number * (number - 1))


def standard_distance(mean: np.ndarray, variance: np.ndarray, reference: np.ndarray, number: int) -> np.ndarray:
    """Distance of the reference from the mean in deviations of their difference, variance (1 + 1/K): float64 [n].

    For a reference and K realisations from one normal distribution its absolute value has Student's distribution with
    K - 1 degrees of freedom. 0 where all are equal, infinite where only the reference differs.
    """
    error, deviation = np.abs(mean - reference), np.sqrt(variance * (1 + 1 / number))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(error == 0, 0.0, error / deviation)


def spread_over_error(scores: VoxelScores, number: int) -> float:
    """Root of (K + 1) / K times the mean variance, over the root mean squared error of the mean; 1 if calibrated.

    Fortin et al., J Hydrometeorol 15:1708, 2014. NaN where the mean has no error.
    """
    error = scores.squared_error.mean()
    return float(np.sqrt((number + 1) / number * scores.variance.mean() / error)) if error else np.nan


def coverage(scores: VoxelScores, number: int, level: float) -> float:
    """Share of voxels, in per cent, whose reference lies within the prediction interval of a level (0 to 1).

    The interval is mean +- t s sqrt(1 + 1/K) with Student's t for K - 1 degrees of freedom, which holds for a normal
    distribution at any K, unlike the range of K realisations, which never covers more than (K - 1) / (K + 1).
    """
    limit = student.ppf((1 + level) / 2, number - 1)
    return float(100 * (scores.distance <= limit).mean())


def rank_histogram(scores: VoxelScores, number: int) -> np.ndarray:
    """Share of voxels by how many of the K realisations are below the reference, float64 [K + 1]; flat if calibrated.

    A reference that equals realisations counts in equal parts for every rank that it may have. Hamill, Mon Weather Rev
    129:550, 2001.
    """
    steps = np.zeros(number + 2)
    parts = 1 / (scores.equal + 1)
    np.add.at(steps, scores.below, parts)
    np.add.at(steps, scores.below + scores.equal + 1, -parts)
    return np.cumsum(steps)[:-1] / len(scores.below)


def rank_deviation(histogram: np.ndarray) -> float:
    """Sum over ranks of the distance from a flat histogram, in per cent; 0 if calibrated, below 200.

    The reliability index of Delle Monache et al., J Geophys Res 111:D24307, 2006.
    """
    return float(100 * np.abs(histogram - 1 / len(histogram)).sum())
