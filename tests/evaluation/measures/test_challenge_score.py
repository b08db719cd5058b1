"""The score with the challenge's weights, of errors that are known."""

from typing import NamedTuple

import numpy as np
import pytest

from evaluation.measures.challenge_score import DOSE_WEIGHTS, PART_WEIGHTS, challenge_scores


class Row(NamedTuple):
    subject: str
    dose: float | None
    method: str
    metric: str
    region: str
    value: float


def measured(method, dose, image=1.0, organs=1.0, lesions=1.0, subject="a"):
    """Errors as a share of the low dose's, whose NRMSE is 20 %, SSIM 0.9 and biases 10 to 40 %."""
    about = (subject, dose, method)
    return [
        Row(*about, "nrmse_normal", "volume", 20 * image),
        Row(*about, "ssim_normal", "volume", 1 - 0.1 * image),
        Row(*about, "suv_mean_bias_normal", "liver", -10 * organs),
        Row(*about, "suv_max_bias_normal", "liver", 30 * organs),
        Row(*about, "suv_mean_bias_normal", "lesion_01", 10 * lesions),
        Row(*about, "suv_max_bias_normal", "lesion_01", -40 * lesions),
        Row(*about, "total_uptake_bias_normal", "lesion_02", 20 * lesions),
        Row(*about, "psnr_normal", "volume", 40.0),  # no part of the score
        Row(*about, "suv_mean_bias_normal", "uniform_spheres", 99.0),
    ]


def test_weights_are_whole():
    assert sum(PART_WEIGHTS.values()) == pytest.approx(1)
    assert sum(DOSE_WEIGHTS.values()) == pytest.approx(1)


def test_parts_and_doses_by_hand():
    rows = []
    for dose in DOSE_WEIGHTS:
        rows += measured("low_dose", dose)
        rows += measured("ours", dose, image=0.5, organs=0.2, lesions=2.0 if dose == 0.01 else 0.0)
    scores = challenge_scores(rows, "low_dose")
    assert scores["low_dose"].total == pytest.approx(0)
    ours = scores["ours"]
    assert ours.parts == pytest.approx({"image": 50, "organs": 80, "lesions": 0.65 * 100 - 0.35 * 100})
    assert ours.doses[0.05] == pytest.approx(0.3 * 50 + 0.35 * 80 + 0.35 * 100)
    assert ours.doses[0.01] == pytest.approx(0.3 * 50 + 0.35 * 80 - 0.35 * 100)
    assert ours.total == pytest.approx(0.3 * 50 + 0.35 * 80 + 0.35 * 30)


def test_doses_that_are_missing_leave_their_weight():
    rows = [*measured("low_dose", 0.05), *measured("ours", 0.05, image=0.5)]
    rows += [*measured("low_dose", 0.25), *measured("ours", 0.25)]
    rows += [*measured("low_dose", 0.5), *measured("ours", 0.5, image=9), *measured("ours", None, image=9)]
    score = challenge_scores(rows, "low_dose")["ours"]
    assert score.parts["image"] == pytest.approx(50 * 0.20 / 0.25)
    assert list(score.doses) == [0.25, 0.05]


def test_errors_are_averaged_over_subjects_before_they_are_compared():
    """Else a subject whose low dose has hardly an error would decide."""
    rows = []
    for subject, scale in (("a", 1.0), ("b", 0.01)):
        rows += measured("low_dose", 0.1, organs=scale, subject=subject)
        rows += measured("ours", 0.1, organs=0.1, subject=subject)
    assert challenge_scores(rows, "low_dose")["ours"].parts["organs"] == pytest.approx(100 * (1 - 0.2 / 1.01))


def test_without_lesions_there_is_no_total():
    rows = [row for name in ("low_dose", "ours") for row in measured(name, 0.1) if "lesion" not in row.region]
    score = challenge_scores(rows, "low_dose")["ours"]
    assert np.isnan(score.total)
    assert np.isnan(score.parts["lesions"])
    assert score.doses[0.1] == pytest.approx(0)


def test_other_doses_have_no_score():
    assert challenge_scores(measured("ours", 0.5), "low_dose") == {}
