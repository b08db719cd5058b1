"""Mean and deviation of what is seen once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guided_diffusion.inference.running_statistics import RunningStatistics


def statistics_of(arrays):
    statistics = RunningStatistics()
    for array in arrays:
        statistics.add(array)
    return statistics


@given(st.integers(2, 30), st.integers(0, 1000))
def test_agrees_with_two_passes_even_far_from_zero(count, seed):
    rng = np.random.default_rng(seed)
    arrays = rng.normal(100.0, 0.5, (count, 4, 5)).astype(np.float32)
    statistics = statistics_of(arrays)
    np.testing.assert_allclose(statistics.mean, arrays.astype(np.float64).mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(
        statistics.standard_deviation, arrays.astype(np.float64).std(axis=0, ddof=1), rtol=2e-3, atol=2e-5
    )


def test_one_array_is_its_own_mean_and_has_no_deviation():
    array = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    statistics = statistics_of([array])
    np.testing.assert_array_equal(statistics.mean, array)
    assert statistics.standard_deviation is None


def test_equal_arrays_deviate_by_exactly_nothing():
    array = np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32)
    statistics = statistics_of([array] * 7)
    np.testing.assert_array_equal(statistics.mean, array)
    assert statistics.standard_deviation.max() == 0


def test_what_is_added_is_not_changed():
    first = np.ones(3, dtype=np.float32)
    statistics = statistics_of([first, np.full(3, 2.0, dtype=np.float32)])
    assert statistics.mean == pytest.approx([1.5] * 3)
    np.testing.assert_array_equal(first, 1)
