"""Scores of realisations against closed forms for a normal distribution, and against slow direct computations."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from evaluation.measures.ensembles import (
    coverage,
    fair_crps,
    joined,
    rank_deviation,
    rank_histogram,
    spread_over_error,
    voxel_scores,
)

VOXELS = 40_000


def drawn(number, deviation=1.0, seed=0):
    """Realisations of a normal distribution with a mean of its own in every voxel, and a reference of deviation 1."""
    rng = np.random.default_rng(seed)
    mean = 5 * rng.random(VOXELS)
    return mean + deviation * rng.standard_normal((number, VOXELS)), mean + rng.standard_normal(VOXELS)


@given(st.integers(2, 9), st.integers(1, 6), st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_crps_is_its_definition_over_pairs(number, voxels, seed):
    rng = np.random.default_rng(seed)
    realisations, reference = rng.normal(size=(number, voxels)), rng.normal(size=voxels)
    pairs = [np.abs(realisations[i] - realisations[j]) for i in range(number) for j in range(number) if i != j]
    expected = np.abs(realisations - reference).mean(axis=0) - np.mean(pairs, axis=0) / 2
    np.testing.assert_allclose(fair_crps(realisations, reference), expected, atol=1e-12)


@pytest.mark.parametrize("number", [2, 5, 20])
def test_crps_of_a_normal_forecast_does_not_depend_on_the_number_of_realisations(number):
    """Gneiting and Raftery's closed form: s (z (2 Phi(z) - 1) + 2 phi(z) - 1 / sqrt(pi))."""
    realisations, _ = drawn(number, deviation=2.0)
    rng = np.random.default_rng(0)
    mean = 5 * rng.random(VOXELS)
    z = 0.7
    expected = 2 * (z * (2 * norm.cdf(z) - 1) + 2 * norm.pdf(z) - 1 / np.sqrt(np.pi))
    assert fair_crps(realisations, mean + 2 * z).mean() == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("number", [2, 4, 10])
def test_a_calibrated_ensemble(number):
    scores = voxel_scores(*drawn(number))
    assert spread_over_error(scores, number) == pytest.approx(1, abs=0.02)
    for level in (0.5, 0.68, 0.95):
        assert coverage(scores, number, level) == pytest.approx(100 * level, abs=0.8)
    np.testing.assert_allclose(rank_histogram(scores, number), 1 / (number + 1), atol=0.008)
    assert scores.crps.mean() == pytest.approx(1 / np.sqrt(np.pi), rel=0.02)
    assert scores.absolute_error.mean() == pytest.approx(np.sqrt(2 / np.pi * (1 + 1 / number)), rel=0.02)


def test_an_ensemble_of_half_the_spread():
    """Closed forms: error variance 1 + 1/4/K, spread 1/2, coverage from the normal distribution at large K."""
    number = 60
    scores = voxel_scores(*drawn(number, deviation=0.5))
    inflated = 0.25 * (number + 1) / number
    assert spread_over_error(scores, number) == pytest.approx(np.sqrt(inflated / (1 + 0.25 / number)), rel=0.02)
    assert coverage(scores, number, 0.95) == pytest.approx(100 * (2 * norm.cdf(1.96 / 2) - 1), abs=1.5)
    histogram = rank_histogram(scores, number)
    assert histogram[0] > 5 * histogram[number // 2]  # the reference is often outside
    assert rank_deviation(histogram) > 30


def test_ranks_by_hand():
    realisations = np.array([[1.0, 1, 0, 0], [2, 2, 0, 0], [3, 3, 5, 0]])
    scores = voxel_scores(realisations, np.array([2.5, 2, 0, 9]))
    # ranks: 2; 1 or 2; 0, 1 or 2; 3
    expected = np.array([1 / 3, 1 / 2 + 1 / 3, 1 + 1 / 2 + 1 / 3, 1]) / 4
    np.testing.assert_allclose(rank_histogram(scores, 3), expected)
    assert rank_deviation(rank_histogram(scores, 3)) == pytest.approx(100 * np.abs(expected - 0.25).sum())


def test_where_nothing_varies():
    scores = voxel_scores(np.full((3, 2), 4.0), np.array([4.0, 5.0]))
    assert coverage(scores, 3, 0.5) == 50
    assert spread_over_error(scores, 3) == 0
    assert np.isnan(spread_over_error(scores.inside(np.array([True, False])), 3))


def test_errors_are_those_of_the_mean():
    scores = voxel_scores(np.array([[0.0], [2.0]]), np.array([4.0]))
    assert scores.absolute_error.tolist() == [3]
    assert scores.squared_error.tolist() == [9]


def test_parts_are_joined_in_order():
    realisations, reference = drawn(3)
    parts = joined([voxel_scores(realisations[:, :7], reference[:7]), voxel_scores(realisations[:, 7:], reference[7:])])
    whole = voxel_scores(realisations, reference)
    np.testing.assert_array_equal(parts.crps, whole.crps)
    np.testing.assert_array_equal(parts.below, whole.below)
