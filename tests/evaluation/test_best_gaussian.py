import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from evaluation.best_gaussian import best_gaussian
from evaluation.measures.image_fidelity import psnr
from guided_diffusion.errors import InputError


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


def test_best_gaussian_leaves_a_perfect_volume_alone():
    volume = np.random.default_rng(3).random((12, 9, 10))
    filtered, sigma_mm = best_gaussian(volume, volume, (2, 2, 2))
    assert sigma_mm == 0
    assert np.array_equal(filtered, volume.astype(np.float32))


def test_volumes_of_two_shapes():
    with pytest.raises(InputError, match="shapes differ"):
        best_gaussian(np.zeros((4, 4, 4)), np.zeros((4, 4, 3)), (1, 1, 1))
