"""Numbers of realisations by region, for an ensemble that is calibrated in one organ and too narrow in another."""

from dataclasses import replace

import numpy as np
import pytest

from evaluation.measures import METRICS, Examination, ensemble_measurements, measure_ensemble
from guided_diffusion.errors import InputError
from guided_diffusion.pet.grid import Volume
from tests.evaluation_trial import AFFINE, LUNG, SHAPE, activity, regions

NUMBER = 8


def noise(rng):
    return 0.2 * rng.standard_normal(SHAPE, dtype=np.float32)


@pytest.fixture(scope="module")
def ensemble():
    """References and realisations drawn alike, but for the lung, whose realisations have half the spread."""
    rng = np.random.default_rng(0)
    centre = activity() + noise(rng)
    images = []
    for _ in range(NUMBER):
        own = noise(rng)
        own[LUNG] *= 0.5
        images.append(centre + own)
    labels = regions()
    labels[labels == 0] = 2  # fat
    normal = centre + noise(rng)
    return Examination("sub-0", "fdg", "mct", 0.05, Volume(centre, AFFINE), normal, centre, labels), images


def table(measurements):
    numbers = {(number.metric, number.region): number.value for number in measurements}
    assert len(numbers) == len(measurements)
    return numbers


def test_regions_are_scored_by_themselves(ensemble):
    numbers = table(measure_ensemble(*ensemble))
    assert numbers["spread_over_error_normal", "liver"] == pytest.approx(1, abs=0.1)
    assert numbers["coverage_95_normal", "liver"] == pytest.approx(95, abs=3)
    assert numbers["crps_normal", "liver"] == pytest.approx(0.2 / np.sqrt(np.pi), rel=0.1)
    assert numbers["spread_over_error_normal", "lung"] == pytest.approx(0.52, abs=0.06)
    assert numbers["coverage_68_normal", "lung"] < 55
    assert numbers["uncertainty_mean", "lung"] == pytest.approx(0.1, rel=0.1)
    assert numbers["realisation_variance", "liver"] == pytest.approx(0.04, rel=0.1)
    assert numbers["rank_deviation_normal", "lung"] > numbers["rank_deviation_normal", "liver"]


def test_the_truth_lies_in_the_middle_of_these_realisations(ensemble):
    numbers = table(measure_ensemble(*ensemble))
    assert numbers["spread_over_error_truth", "liver"] == pytest.approx(np.sqrt(NUMBER + 1), rel=0.1)
    assert numbers["coverage_95_truth", "liver"] == 100


def test_regions_and_names(ensemble):
    numbers = table(measure_ensemble(*ensemble))
    assert {metric for metric, _ in numbers} <= set(METRICS)
    found = {region for _, region in numbers}
    assert {"body", "liver", "lung", "all_lesions", "lesion_01", "uptake_0.5_1", "uptake_1_2.5", "uptake_5"} <= found
    assert numbers["suv_peak_coverage_95_truth", "lesion_01"] in (0, 100)
    # one lesion is over 10 mm, so all lesions are that one
    assert numbers["crps_truth", "all_lesions"] == numbers["crps_truth", "lesion_01"]


def test_uncertainty_variance_is_over_voxels(ensemble):
    examination, images = ensemble
    numbers = table(measure_ensemble(examination, images))
    deviation = np.std(images, axis=0, ddof=1)
    assert numbers["uncertainty_variance", "body"] == pytest.approx(deviation.var(), rel=1e-4)


def test_the_gain_over_the_mean(ensemble):
    examination, images = ensemble
    numbers = table(measure_ensemble(examination, images))
    error = np.abs(np.mean(images, axis=0) - examination.normal_dose)[examination.organs["liver"]].mean()
    crps = numbers["crps_normal", "liver"]
    assert numbers["crps_gain_normal", "liver"] == pytest.approx(100 * (1 - crps / error), rel=1e-3)


def test_parts_of_the_volume_change_nothing(ensemble, monkeypatch):
    whole = measure_ensemble(*ensemble)
    monkeypatch.setattr(ensemble_measurements, "VOXELS_AT_ONCE", 3 * 32 * 32)
    assert measure_ensemble(*ensemble) == whole


def test_what_is_missing_is_not_measured(ensemble):
    examination, images = ensemble
    assert measure_ensemble(examination, images[:1]) == []
    bare = replace(examination, normal_dose=None, truth=None, labels=None)
    assert {number.metric for number in measure_ensemble(bare, images)} == {
        "uncertainty_mean", "uncertainty_variance", "realisation_variance",
    }  # fmt: skip
    at_normal_dose = replace(examination, dose=1.0)
    assert not [n for n in measure_ensemble(at_normal_dose, images) if n.metric.endswith("_normal")]


def test_realisations_of_another_shape_are_refused(ensemble):
    examination, images = ensemble
    with pytest.raises(InputError, match="shapes differ"):
        measure_ensemble(examination, [images[0], images[1][:-1]])


def test_the_body_without_labels(ensemble):
    examination, _ = ensemble
    air = np.zeros(SHAPE, np.float32)
    air[8:24, 8:24] = 1
    bare = Examination("", "", "", None, replace(examination.low_dose, data=air))
    assert bare.body[10:22, 10:22].all()
    assert not bare.body[:3].any()
    assert examination.body.all()
