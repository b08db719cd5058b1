import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.metrics import normalized_root_mse

from evaluation.measures.image_fidelity import clip_suv, nmae, nrmse, psnr, ssim
from guided_diffusion.errors import InputError


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


def test_psnr_of_nearly_equal_volumes_is_not_above_that_of_equal_ones_except_as_published():
    reference = np.zeros((8, 8, 8))
    image = reference.copy()
    image[0, 0, 0] = 2**-10  # MSE = 2^-20 / 2^9
    assert psnr(reference, image) == 100
    assert psnr(reference, image, peak=16.0) == pytest.approx(10 * np.log10(2.0**37))


@pytest.mark.parametrize("metric", [psnr, ssim, nrmse, nmae])
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


def test_relative_errors_by_hand():
    reference, image = np.array([[[3.0, -4.0, 0.0]]]), np.array([[[3.0, -3.0, 2.0]]])
    assert nrmse(reference, image) == pytest.approx(100 * np.sqrt(5) / 5)
    assert nmae(reference, image) == pytest.approx(100 * 3 / 7)


def test_nrmse_is_scikit_images(pair):
    assert nrmse(*pair) == pytest.approx(100 * normalized_root_mse(*pair), rel=1e-5)


def test_relative_errors_of_an_empty_reference_are_nothing():
    assert np.isnan(nrmse(np.zeros((2, 2, 2)), np.ones((2, 2, 2))))
    assert np.isnan(nmae(np.zeros((2, 2, 2)), np.ones((2, 2, 2))))


def test_clip_suv():
    clipped = clip_suv(np.array([-2.0, 0.5, 16.0, 100.0]))
    assert clipped.dtype == np.float32
    assert clipped.tolist() == [0, 0.5, 16, 16]
