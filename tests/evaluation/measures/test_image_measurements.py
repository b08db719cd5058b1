"""All numbers of one image: known offsets in known regions, and what is left where something is missing."""

import numpy as np
import pytest

from evaluation.measures import METRICS, Examination, measure
from guided_diffusion.errors import InputError
from guided_diffusion.pet.grid import Volume
from tests.evaluation_trial import AFFINE, LESION, LIVER, LUNG, SHAPE, activity, regions


def noisy(seed, scale=0.2):
    return activity() + np.float32(scale) * np.random.default_rng(seed).standard_normal(SHAPE, dtype=np.float32)


@pytest.fixture(scope="module")
def examination():
    return Examination("sub-0", "fdg", "mct", 0.05, Volume(noisy(0), AFFINE), noisy(1), activity(), regions())


def table(measurements):
    numbers = {(number.metric, number.region): number.value for number in measurements}
    assert len(numbers) == len(measurements)
    return numbers


def biased(image):
    """Liver 5 % too high, lung 3 % too low, lesion 10 % too low."""
    wrong = image.copy()
    wrong[LIVER] *= 1.05
    wrong[LUNG] *= 0.97
    wrong[LESION] *= 0.9
    return wrong


@pytest.mark.parametrize(("reference", "image"), [("normal", noisy(1)), ("truth", activity())])
def test_known_biases(examination, reference, image):
    numbers = table(measure(examination, biased(image)))
    for metric in ("suv_mean_bias", "suv_max_bias", "suv_peak_bias"):
        assert numbers[f"{metric}_{reference}", "lesion_01"] == pytest.approx(-10, abs=1e-3)
    assert numbers[f"total_uptake_bias_{reference}", "lesion_01"] == pytest.approx(-10, abs=1e-3)
    assert numbers[f"suv_mean_bias_{reference}", "liver"] == pytest.approx(5, abs=1e-3)
    assert numbers[f"suv_mean_bias_{reference}", "lung"] == pytest.approx(-3, abs=1e-3)
    assert {region for _, region in numbers if region.startswith("lesion_")} == {"lesion_01"}  # 02 is under 10 mm


def test_uptake_itself(examination):
    numbers = table(measure(examination, activity()))
    assert numbers["suv_mean", "liver"] == pytest.approx(2)
    assert numbers["suv_max", "lesion_01"] == pytest.approx(10)
    assert numbers["total_uptake", "lesion_01"] == pytest.approx(10 * 6**3 * 0.064)
    assert ("total_uptake", "liver") not in numbers


def test_closeness(examination):
    numbers = table(measure(examination, examination.normal_dose + np.float32(0.1)))
    shown = np.clip(examination.normal_dose, 0, 16)
    assert numbers["psnr_normal", "volume"] == pytest.approx(20 * np.log10(16 / 0.1), abs=0.1)
    higher = 20 * np.log10(examination.normal_dose.max() / 16)
    assert numbers["psnr_published", "volume"] == pytest.approx(numbers["psnr_normal", "volume"] + higher)
    assert numbers["nmae_normal", "volume"] == pytest.approx(100 * 0.1 / shown.mean(), rel=0.01)


def test_every_number_has_a_definition(examination):
    numbers = measure(examination, examination.low_dose.data)
    assert {number.metric for number in numbers} <= set(METRICS)


def test_the_normal_dose_is_not_compared_with_itself():
    scan = noisy(0)
    examination = Examination("sub-0", "fdg", "mct", 1.0, Volume(scan, AFFINE), scan, activity(), regions())
    numbers = table(measure(examination, activity()))
    assert ("psnr_normal", "volume") not in numbers
    assert ("psnr_published", "volume") not in numbers
    assert numbers["psnr_truth", "volume"] == 100
    assert numbers["suv_mean_bias_normal", "liver"] == pytest.approx(0, abs=0.5)


def test_without_labels_or_references_less_is_measured(examination):
    bare = Examination("sub-0", "", "", float("nan"), examination.low_dose)
    assert not [number for number in measure(bare, activity()) if number.metric.endswith(("_normal", "_truth"))]
    unlabelled = Examination("sub-0", "", "", 0.05, examination.low_dose, examination.normal_dose)
    metrics = {number.metric for number in measure(unlabelled, activity())}
    assert {"psnr_normal", "ssim_normal", "nrmse_normal", "nmae_normal", "psnr_published"} <= metrics
    assert not any(name.endswith("_truth") or name.startswith("suv_") for name in metrics)


def test_an_image_of_another_shape_is_refused(examination):
    with pytest.raises(InputError, match="shapes differ"):
        measure(examination, activity()[:-1])


def test_which_values_are_better():
    assert METRICS["psnr_truth"].loss(40) < METRICS["psnr_truth"].loss(39)
    assert METRICS["nrmse_truth"].loss(4) > METRICS["nrmse_truth"].loss(3)
    assert METRICS["suv_peak_bias_normal"].loss(-3) > METRICS["suv_peak_bias_normal"].loss(2)
    assert np.isnan(METRICS["suv_max"].loss(3))
    assert METRICS["psnr_truth"].heading == "PSNR, truth (dB)"
