"""All numbers of one image: known offsets in known regions, and what is left where something is missing."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from evaluation.measures import METRICS, Examination, measure
from guided_diffusion.errors import InputError
from guided_diffusion.pet.grid import Volume
from guided_diffusion.pet.patches import plan_axial_patches
from tests.evaluation_trial import AFFINE, LABEL, LESION, LIVER, LUNG, SHAPE, activity, regions


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
    bare = Examination("sub-0", "", "", None, examination.low_dose)
    assert not [number for number in measure(bare, activity()) if number.metric.endswith(("_normal", "_truth"))]
    unlabelled = Examination("sub-0", "", "", 0.05, examination.low_dose, examination.normal_dose)
    metrics = {number.metric for number in measure(unlabelled, activity())}
    assert {"psnr_normal", "ssim_normal", "nrmse_normal", "nmae_normal", "psnr_published"} <= metrics
    assert not any(name.endswith("_truth") or name.startswith(("suv_p", "suv_max", "lesion")) for name in metrics)


def test_an_image_of_another_shape_is_refused(examination):
    with pytest.raises(InputError, match="shapes differ"):
        measure(examination, activity()[:-1])


def test_which_values_are_better():
    assert METRICS["psnr_truth"].loss(40) < METRICS["psnr_truth"].loss(39)
    assert METRICS["nrmse_truth"].loss(4) > METRICS["nrmse_truth"].loss(3)
    assert METRICS["suv_peak_bias_normal"].loss(-3) > METRICS["suv_peak_bias_normal"].loss(2)
    assert np.isnan(METRICS["suv_max"].loss(3))
    assert METRICS["psnr_truth"].heading == "PSNR, truth (dB)"


@pytest.fixture(scope="module")
def patient():
    """A liver that holds a sphere of 6 cm, a lesion of 16 mm in it, another of 20 mm in fat; SUV 2, 8, 6 and 1."""
    shape, voxel_mm = (40, 30, 36), 4.0
    labels = np.full(shape, 2, np.uint8)
    labels[2:24, 4:26, 4:30] = LABEL["liver"]
    labels[4:8, 6:10, 6:10] = LABEL["lesion"]
    labels[30:35, 12:17, 15:20] = LABEL["lesion"] + 1
    truth = np.ones(shape, np.float32)
    for label, suv in ((LABEL["liver"], 2), (LABEL["lesion"], 8), (LABEL["lesion"] + 1, 6)):
        truth[labels == label] = suv
    noise = np.random.default_rng(0).standard_normal((2, *shape), dtype=np.float32)
    normal, low = truth + 0.1 * noise[0], truth + 0.4 * noise[1]
    affine = np.diag([voxel_mm, voxel_mm, voxel_mm, 1])
    return Examination("sub-1", "fdg", "mct", 0.05, Volume(low, affine), normal, truth, labels)


def test_contrast_and_noise_of_a_liver(patient):
    numbers = table(measure(patient, patient.low_dose.data))
    assert numbers["cov", "liver"] == pytest.approx(20, rel=0.15)
    assert numbers["cov_change_normal", "liver"] == pytest.approx(300, rel=0.2)
    assert numbers["lesion_cnr", "lesion_01"] == pytest.approx((8 - 2) / 0.4, rel=0.15)
    assert numbers["lesion_cnr", "lesion_02"] == pytest.approx((6 - 2) / 0.4, rel=0.15)
    assert numbers["contrast_recovery_truth", "lesion_02"] == pytest.approx(100, abs=5)


def test_correlation_of_a_smoothed_liver(patient):
    numbers = table(measure(patient, 2 + gaussian_filter(patient.low_dose.data - patient.truth, 1.5)))
    expected = np.sqrt(2) * 1.5 * 4 * 2.3548
    assert numbers["correlation", "liver"] == pytest.approx(expected, rel=0.15)
    assert numbers["correlation_change_normal", "liver"] > 100


def test_a_dimmed_lesion_loses_contrast(patient):
    image = patient.truth.copy()
    image[patient.lesions["lesion_02"]] = 3.5
    numbers = table(measure(patient, image))
    assert numbers["contrast_recovery_truth", "lesion_02"] == pytest.approx(50)
    assert numbers["contrast_recovery_truth", "lesion_01"] == pytest.approx(100)
    assert ("cov", "liver") in numbers
    assert ("lesion_cnr", "lesion_01") not in numbers  # over a liver without noise


def test_foci_that_are_lost_and_invented(patient):
    image = patient.truth.copy()
    image[patient.lesions["lesion_02"]] = 1
    numbers = table(measure(patient, image))
    assert (numbers["foci_lost_truth", "volume"], numbers["foci_invented_truth", "volume"]) == (1, 0)
    image = patient.truth.copy()
    image[30:34, 22:26, 4:8] = 5
    numbers = table(measure(patient, image))
    assert (numbers["foci_lost_truth", "volume"], numbers["foci_invented_truth", "volume"]) == (0, 1)


def test_what_a_scan_without_references_says(patient):
    bare = Examination("sub-1", "", "", None, patient.low_dose)
    image = 0.9 * gaussian_filter(patient.low_dose.data, 1)
    numbers = table(measure(bare, image, plan_axial_patches(36, 16, 4)))
    assert numbers["suv_mean_bias_low_dose", "uniform_spheres"] == pytest.approx(-10, abs=2)
    before = table(measure(bare, patient.low_dose.data))["cov", "uniform_spheres"]
    assert numbers["cov", "uniform_spheres"] < 0.5 * before
    assert {"foci_lost_low_dose", "foci_invented_low_dose", "seam_index_low_dose"} <= {name for name, _ in numbers}
    assert {name for name, _ in numbers} <= set(METRICS)


def test_patches_that_disagree_show_as_seams(patient):
    plan = plan_axial_patches(36, 16, 4)
    steps = plan.stitch(np.stack([np.full((40, 30, 16), offset) for offset in (0.0, 0.5, 0.0)]))
    numbers = table(measure(patient, patient.normal_dose + steps, plan))
    assert numbers["seam_index_normal", "volume"] > 10
    assert numbers["seam_index_truth", "volume"] > 1.2
    assert ("seam_index_normal", "volume") not in table(measure(patient, patient.low_dose.data))
    one = plan_axial_patches(36, 64, 4)
    assert ("seam_index_normal", "volume") not in table(measure(patient, patient.low_dose.data, one))
