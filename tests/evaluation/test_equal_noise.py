"""The Gaussian of equal noise: it leaves the noise that is asked for, and a fair comparison follows from it."""

import numpy as np
import pytest

from evaluation.equal_noise import gaussian_of_equal_noise
from evaluation.real_series import compare_thinned
from guided_diffusion.pet.blur import gaussian_blur
from guided_diffusion.pet.grid import Volume

VOXEL_MM = (3.0, 4.0, 2.5)


@pytest.fixture
def noisy():
    rng = np.random.default_rng(0)
    return (2 + 0.4 * rng.standard_normal((48, 40, 50))).astype(np.float32)


@pytest.mark.parametrize("sigma_mm", [1.5, 4.0])
def test_the_width_is_found_again(noisy, sigma_mm):
    wanted = float(gaussian_blur(noisy, sigma_mm, VOXEL_MM).std())
    filtered, found = gaussian_of_equal_noise(noisy, VOXEL_MM, lambda volume: float(volume.std()), wanted)
    assert found == pytest.approx(sigma_mm, abs=0.02)
    assert filtered.std() == pytest.approx(wanted, rel=0.01)


def test_where_no_filter_leaves_so_little_the_quietest_one_stands(noisy):
    """Noise that grows again with the width, as structure bleeds in."""

    def noise_of(volume: np.ndarray) -> float:
        return abs(float(volume.std()) - float(gaussian_blur(noisy, 5.0, VOXEL_MM).std())) + 0.1

    assert gaussian_of_equal_noise(noisy, VOXEL_MM, noise_of, 0.05)[1] == 5


def test_less_noise_than_wanted_needs_no_filter_and_none_at_all_the_widest(noisy):
    filtered, sigma_mm = gaussian_of_equal_noise(noisy, VOXEL_MM, lambda volume: float(volume.std()), 1.0)
    assert sigma_mm == 0
    assert filtered is noisy
    assert gaussian_of_equal_noise(noisy, VOXEL_MM, lambda volume: float(volume.std()), 0.0)[1] == 30


def test_whoever_keeps_edges_at_equal_noise_is_better(noisy):
    """The truth with a little of the noise is better than a filter, a filter is no better than itself."""
    truth = np.full(noisy.shape, 2, np.float32)
    truth[:, :, 25:] = 4
    affine = np.diag([-3.0, -4.0, 2.5, 1.0])
    rng = np.random.default_rng(1)
    scan = Volume((truth * (1 + 0.01 * rng.standard_normal(truth.shape))).astype(np.float32), affine)
    thinned = Volume((truth * (1 + 0.2 * rng.standard_normal(truth.shape))).astype(np.float32), affine)
    sharp = Volume(truth + np.float32(0.25) * (thinned.data - truth), affine)
    blurred = Volume(gaussian_blur(thinned.data, 3.0, VOXEL_MM), affine)
    numbers = compare_thinned(scan, thinned, sharp)
    assert numbers["after"] == pytest.approx(numbers["before"] + 20 * np.log10(4), abs=0.3)
    assert numbers["after"] > numbers["gaussian"] + 1
    numbers = compare_thinned(scan, thinned, blurred)
    assert numbers["gaussian_mm"] == pytest.approx(3, abs=0.02)
    assert numbers["after"] == pytest.approx(numbers["gaussian"], abs=0.02)
