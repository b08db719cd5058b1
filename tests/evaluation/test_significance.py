"""Tests between methods against their definitions: all signs of the ranks, and the step-up rule."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.significance import benjamini_hochberg, paired_wilcoxon


def p_by_all_signs(differences):
    """Share of the sign patterns whose rank sum is as far from its mean as the observed one."""
    ranks = np.argsort(np.argsort(np.abs(differences))) + 1
    sums = np.array([np.dot(ranks, signs) for signs in product((0, 1), repeat=len(ranks))])
    observed = np.dot(ranks, np.array(differences) > 0)
    middle = ranks.sum() / 2
    return np.mean(np.abs(sums - middle) >= abs(observed - middle) - 1e-9)


@given(st.lists(st.integers(1, 1000), min_size=2, max_size=9, unique=True), st.integers(0, 2**9 - 1))
@settings(max_examples=30, deadline=None)
def test_p_is_the_share_of_sign_patterns_that_are_as_extreme(sizes, signs):
    differences = [size if signs >> number & 1 else -size for number, size in enumerate(sizes)]
    assert paired_wilcoxon(differences) == pytest.approx(p_by_all_signs(differences))


def test_the_least_p_of_six_subjects():
    assert paired_wilcoxon([1, 2, 3, 4, 5, 6]) == pytest.approx(2 / 2**6)


def test_subjects_without_a_difference_are_left_out():
    """As of lesions' numbers, in which most subjects agree."""
    assert paired_wilcoxon([0.0] * 12 + [1.0, 2.0, 3.0, 4.0]) == pytest.approx(2 / 2**4)


def test_methods_that_are_equal_do_not_differ():
    assert paired_wilcoxon([0.0, 0.0, 0.0]) == 1


def step_up(p_values):
    """Benjamini and Hochberg 1995: the least limit at which a test is among those that their rule rejects."""
    number = len(p_values)
    order = np.argsort(p_values)
    corrected = np.empty(number)
    for place, test in enumerate(order):
        corrected[test] = min(p_values[order[later]] * number / (later + 1) for later in range(place, number))
    return np.minimum(corrected, 1)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
@settings(max_examples=50, deadline=None)
def test_correction_is_the_step_up_rule(p_values):
    assert benjamini_hochberg(p_values) == pytest.approx(step_up(p_values))


def test_no_tests_need_no_correction():
    assert benjamini_hochberg([]) == []
