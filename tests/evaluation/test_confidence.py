import numpy as np
import pytest

from evaluation.confidence import bootstrap_mean


def test_two_subjects():
    """Resampled means are 0, 1/2 and 1 with probabilities 1/4, 1/2, 1/4: the interval is all of it."""
    interval = bootstrap_mean([[0.0], [1.0]])
    assert (interval.mean, interval.low, interval.high, interval.subjects) == (0.5, 0, 1, 2)


def test_many_subjects_give_the_interval_of_the_normal_distribution():
    values = np.random.default_rng(3).normal(5, 2, 400)
    interval = bootstrap_mean([[value] for value in values])
    error = 1.96 * values.std() / np.sqrt(400)
    assert interval.mean == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - error, abs=0.1 * error)
    assert interval.high == pytest.approx(values.mean() + error, abs=0.1 * error)


def test_lesions_of_a_patient_stay_together():
    """Ten equal lesions a patient say no more than one: resampling lesions would give a third of the width."""
    values = np.random.default_rng(4).normal(0, 1, 30)
    alone, together = bootstrap_mean([[v] for v in values]), bootstrap_mean([[v] * 10 for v in values])
    assert together.mean == pytest.approx(alone.mean)
    assert (together.low, together.high) == pytest.approx((alone.low, alone.high))


def test_the_mean_is_over_lesions_and_empty_subjects_do_not_count():
    interval = bootstrap_mean([[1.0, 1.0, 1.0], [], [5.0]])
    assert (interval.mean, interval.subjects) == (2, 2)


def test_one_subject_has_no_interval():
    interval = bootstrap_mean([[3.0, 4.0]])
    assert interval.mean == 3.5
    assert np.isnan(interval.low)
    assert np.isnan(interval.high)
    assert np.isnan(bootstrap_mean([]).mean)


def test_the_seed_decides():
    values = [[float(v)] for v in np.random.default_rng(5).normal(size=12)]
    assert bootstrap_mean(values) == bootstrap_mean(values)
    assert bootstrap_mean(values) != bootstrap_mean(values, seed=1)
