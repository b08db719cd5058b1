"""Confidence intervals of a mean over subjects: percentile bootstrap that resamples whole subjects."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000
LEVEL = 0.95
SEED = 0


@dataclass(frozen=True)
class Interval:
    """A mean and its 95 % confidence interval; the limits are NaN where fewer than two subjects have a value."""

    mean: float
    low: float
    high: float
    subjects: int


def bootstrap_mean(values: Sequence[Sequence[float]], seed: int = SEED) -> Interval:
    """The mean of all values, given as one sequence per subject, with a percentile bootstrap interval.

    Subjects are drawn with their values together (Efron and Tibshirani, An Introduction to the Bootstrap, 1993,
    chapter 13), because the lesions of one patient are not independent. Subjects without a value do not count. The same
    `seed` gives the same interval.
    """
    sums = np.array([sum(own) for own in values if len(own)], dtype=float)
    counts = np.array([len(own) for own in values if len(own)], dtype=float)
    if not len(sums):
        return Interval(np.nan, np.nan, np.nan, 0)
    mean = float(sums.sum() / counts.sum())
    if len(sums) == 1:
        return Interval(mean, np.nan, np.nan, 1)
    drawn = np.random.default_rng(seed).integers(len(sums), size=(RESAMPLES, len(sums)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(mean, float(low), float(high), len(sums))
