import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from evaluation.metrics import best_gaussian, clip_suv, psnr, seam_index, ssim
from guided_diffusion.errors import InputError
from guided_diffusion.pet.patches import plan_axial_patches


@pytest.fixture
def pair():
    """A reference and an image [12, 9, 10] in SUV with structure, noise and values over all of [0, 16]."""
    rng = np.random.default_rng(3)
    reference = 16 * gaussian_filter(rng.random((12, 9, 10)), 1)
    return reference, np.clip(reference + rng.normal(scale=0.7, size=reference.shape), 0, 16)


def ssim_by_definition(reference, image):
    """Wang et al. 2004, equation 13, window by window in float64."""
    c1, c2 = (0.01 * 16) ** 2, (0.03 * 16) ** 2
    values = []
    for corner in np.ndindex(*(n - 6 for n in reference.shape)):
        window = tuple(slice(start, start + 7) for start in corner)
        x, y = reference[window].ravel(), image[window].ravel()
        covariance = np.cov(x, y, ddof=1)
        values.append(
            (2 * x.mean() * y.mean() + c1)
            * (2 * covariance[0, 1] + c2)
            / ((x.mean() ** 2 + y.mean() ** 2 + c1) * (covariance[0, 0] + covariance[1, 1] + c2))
        )
    return np.mean(values)


def test_ssim_is_the_definition(pair):
    assert ssim(*pair) == pytest.approx(ssim_by_definition(*pair), abs=1e-6)


def test_ssim_of_equal_volumes_is_one(pair):
    assert ssim(pair[0], pair[0]) == pytest.approx(1, abs=1e-6)


def test_honest_psnr_by_hand():
    # Every voxel is off by half an SUV: 10 log10(16^2 / 0.5^2) = 20 log10(32).
    assert psnr(np.full((8, 8, 8), 3.0), np.full((8, 8, 8), 3.5)) == pytest.approx(30.10300, abs=1e-4)


def test_psnr_of_one_wrong_voxel_by_hand():
    reference = np.zeros((2, 4, 5))
    image = reference.copy()
    image[1, 2, 3] = 4  # MSE = 16 / 40
    assert psnr(reference, image) == pytest.approx(10 * np.log10(640), abs=1e-4)


def test_a_bladder_at_suv_100_adds_16_db_to_the_published_psnr(pair):
    gain = psnr(*pair, peak=100) - psnr(*pair)
    assert gain == pytest.approx(15.92, abs=0.005)


@pytest.mark.parametrize(("bladder", "published"), [(16, 44.08), (30, 49.54), (100, 60.00)])
def test_the_bladder_table_of_the_readme(bladder, published):
    scan = np.ones((8, 8, 8))
    scan[2, 3, 4] = bladder
    reference, image = clip_suv(scan), clip_suv(scan) - np.float32(0.1)
    assert psnr(reference, image) == pytest.approx(44.08, abs=0.005)
    assert psnr(reference, image, peak=scan.max()) == pytest.approx(published, abs=0.005)


def test_psnr_does_not_depend_on_memory_layout(pair):
    reference, image = pair
    assert psnr(np.asfortranarray(reference), image[::-1][::-1]) == pytest.approx(psnr(reference, image), rel=1e-12)


def test_psnr_of_equal_volumes_is_100(pair):
    assert psnr(pair[0], pair[0]) == 100
    assert psnr(pair[0], pair[0], peak=73.0) == 100


@pytest.mark.parametrize("metric", [psnr, ssim, lambda a, b: best_gaussian(a, b, (1, 1, 1))])
def test_volumes_that_cannot_be_compared(metric, pair):
    reference, image = pair
    with pytest.raises(InputError, match=r"shapes differ: .*\(12, 9, 10\).*\(12, 9, 9\)"):
        metric(reference, image[:, :, :9])
    for value in (np.nan, np.inf):
        image[5, 5, 5] = value
        with pytest.raises(InputError, match="NaN or infinite"):
            metric(reference, image)


def test_ssim_refuses_a_volume_thinner_than_its_window():
    with pytest.raises(InputError, match=r"7 voxels or more .*\(9, 6, 9\)"):
        ssim(np.zeros((9, 6, 9)), np.zeros((9, 6, 9)))


def test_clip_suv():
    clipped = clip_suv(np.array([-2.0, 0.5, 16.0, 100.0]))
    assert clipped.dtype == np.float32
    assert clipped.tolist() == [0, 0.5, 16, 16]


def gaussian_blob(shape, voxel_size, sigma_mm):
    """A Gaussian of integral 1000 SUV mm^3 in the middle of the volume."""
    axes = [(np.arange(n) - (n - 1) / 2) * size for n, size in zip(shape, voxel_size, strict=True)]
    squared = sum(axis**2 for axis in np.meshgrid(*axes, indexing="ij"))
    return 1000 * np.exp(-squared / (2 * sigma_mm**2)) / (2 * np.pi * sigma_mm**2) ** 1.5


@pytest.mark.parametrize("wanted", [2.4, 6.75])
def test_best_gaussian_finds_the_filter_that_was_applied(wanted):
    # Gaussians convolve to Gaussians, variances add up: filtering 5 mm by `wanted` gives exactly the normal dose.
    shape, voxel_size = (34, 30, 25), (2.0, 2.5, 3.0)
    low_dose = gaussian_blob(shape, voxel_size, 5)
    normal_dose = gaussian_blob(shape, voxel_size, np.hypot(5, wanted))
    filtered, sigma_mm = best_gaussian(low_dose, normal_dose, voxel_size)
    assert sigma_mm == pytest.approx(wanted, abs=0.1)
    assert filtered == pytest.approx(normal_dose, abs=0.01 * normal_dose.max())


def test_no_other_gaussian_has_a_better_psnr():
    rng = np.random.default_rng(5)
    normal_dose = gaussian_filter(20 * rng.random((24, 24, 24)) ** 4, 2)
    low_dose = np.maximum(normal_dose + rng.normal(scale=0.5, size=normal_dose.shape), 0)
    filtered, _ = best_gaussian(low_dose, normal_dose, (2, 2, 2))
    others = [gaussian_filter(low_dose, sigma / 2, mode="nearest") for sigma in np.arange(0.05, 10, 0.05)]
    best_of_others = max(psnr(normal_dose, other) for other in others)
    assert psnr(normal_dose, filtered) >= best_of_others - 1e-3
    assert best_of_others > psnr(normal_dose, low_dose) + 3


def test_best_gaussian_leaves_a_perfect_volume_alone(pair):
    filtered, sigma_mm = best_gaussian(pair[0], pair[0], (2, 2, 2))
    assert sigma_mm == 0
    assert np.array_equal(filtered, pair[0].astype(np.float32))


PLAN = plan_axial_patches(40, 16, 4)  # starts 0, 12 and 24: hands over in slices 12 to 15 and 24 to 27


def test_seam_index_by_hand():
    """The error climbs by 1 from slice to slice, and by 3 within the slices where patches are blended."""
    steps = np.ones(39)
    steps[[12, 13, 14, 24, 25, 26]] = -3
    error = np.concatenate([[0], np.cumsum(steps)])
    truth = np.random.default_rng(0).random((5, 6, 40))
    assert seam_index(truth, truth + error, PLAN) == pytest.approx(3, rel=1e-5)
    assert seam_index(truth, truth + np.arange(40), PLAN) == pytest.approx(1, rel=1e-5)


def test_seam_index_sees_patches_that_disagree():
    rng = np.random.default_rng(1)
    truth = gaussian_filter(rng.random((20, 20, 40)), 2)
    noise = 0.01 * rng.normal(size=truth.shape)
    offsets = [np.full((20, 20, 16), offset) for offset in (0.0, 0.1, -0.1)]
    assert seam_index(truth, truth + noise, PLAN) == pytest.approx(1, abs=0.1)
    assert seam_index(truth, truth + noise + PLAN.stitch(np.stack(offsets)), PLAN) > 2


def test_seam_index_of_one_patch_is_refused():
    with pytest.raises(InputError, match="1 patches"):
        seam_index(np.ones((3, 3, 10)), np.ones((3, 3, 10)), plan_axial_patches(10, 16, 4))
