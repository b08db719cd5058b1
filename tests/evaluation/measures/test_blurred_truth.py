import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from evaluation.measures.blurred_truth import blurred_truth

VOXEL_MM = (2.0, 3.0, 4.0)


def test_the_truth_is_blurred_to_the_resolution_of_the_images_whatever_their_noise():
    rng = np.random.default_rng(2)
    truth = np.full((40, 40, 40), 2, np.float32)  # noise stays above zero, where it would be clipped
    truth[10:25, 12:30, 8:30] = 6
    truth[15:20, 15:20, 15:20] = 30  # clipped for the comparison, not before the blur
    image = gaussian_filter(truth, [5 / size for size in VOXEL_MM], mode="nearest")
    noisy = image + 0.5 * rng.standard_normal(truth.shape)
    blurred, sigma_mm = blurred_truth(truth, noisy, VOXEL_MM)
    assert sigma_mm == pytest.approx(5, abs=0.15)
    np.testing.assert_allclose(blurred, image, atol=0.35)
