import numpy as np
import pytest

from evaluation.filters import (
    FilterInput,
    best_candidate,
    gaussian,
    middle_slices,
    noise_level,
    non_local_means,
    total_variation,
    tuning_scores,
)

VOXEL_MM = (2.0, 3.0, 4.0)


@pytest.fixture
def scan():
    rng = np.random.default_rng(0)
    data = np.full((20, 24, 28), 1.0, np.float32)
    data[6:14, 6:18, 8:20] = 4
    data += 0.5 * rng.standard_normal(data.shape).astype(np.float32)
    return FilterInput(np.maximum(data, 0), VOXEL_MM, 0.5)


def tuned(name, scan, *references):
    """The best candidate of a filter over references of a scan, and its PSNR in dB."""
    return best_candidate(name, [tuning_scores(name, scan, reference) for reference in references])


@pytest.mark.parametrize("sigma_mm", [0.0, 3.0, 7.5])
def test_tuning_finds_the_sigma_that_made_the_reference(scan, sigma_mm):
    assert tuned("gaussian", scan, gaussian(scan, sigma_mm)) == (sigma_mm, 100)


@pytest.mark.parametrize("strength", [1.0, 4.0])
def test_tuning_finds_the_strength_that_made_the_reference(scan, strength):
    assert tuned("nl_means", scan, non_local_means(scan, strength))[0] == strength


@pytest.mark.parametrize("strength", [0.5, 3.0])
def test_tuning_finds_the_weight_that_made_the_reference(scan, strength):
    assert tuned("total_variation", scan, total_variation(scan, strength)) == (strength, 100)


def test_total_variation_moves_both_sides_of_a_step_by_the_weight_over_their_length():
    """The closed form in one dimension (Strong and Chan 2003), to what the iteration leaves: the step stays sharp."""
    step = np.zeros((4, 4, 9), np.float32)
    step[..., 3:] = 2.0
    filtered = total_variation(FilterInput(step, VOXEL_MM, 0.3), 2.0)
    np.testing.assert_allclose(filtered[..., :3], 0.6 / 3, atol=0.03)
    np.testing.assert_allclose(filtered[..., 3:], 2 - 0.6 / 6, atol=0.03)
    assert np.array_equal(total_variation(FilterInput(step, VOXEL_MM, 0.0), 2.0), step)


def test_tuning_takes_the_mean_over_subjects(scan):
    references = [gaussian(scan, sigma) for sigma in (2.0, 6.0)]
    best, _ = tuned("gaussian", scan, *references)
    assert best in (2.0, 6.0)  # one exact match of 100 dB outweighs a compromise


def test_the_gaussian_is_as_wide_in_mm_along_every_axis():
    point = np.zeros((41, 41, 41), np.float32)
    point[20, 20, 20] = 1
    spread = gaussian(FilterInput(point, VOXEL_MM, 0.0), 6.0)
    for axis, size in enumerate(VOXEL_MM):
        profile = spread.sum(axis=tuple({0, 1, 2} - {axis}))
        assert np.sqrt((profile * ((np.arange(41) - 20) * size) ** 2).sum()) == pytest.approx(6, rel=0.02)


def test_non_local_means_keeps_edges_that_a_gaussian_of_equal_smoothing_blurs(scan):
    clean = np.full(scan.data.shape, 1.0, np.float32)
    clean[6:14, 6:18, 8:20] = 4
    ours = non_local_means(scan, 2.0)
    assert np.abs(ours - clean).mean() < 0.5 * np.abs(scan.data - clean).mean()
    assert ours[7, 12, 14] - ours[4, 12, 14] > 2.7


def test_noise_level():
    """A Gaussian of one voxel removes 1 - 2 g(0)^3 + (g*g)(0)^3 = 0.895 of white noise's variance."""
    noise = np.random.default_rng(1).standard_normal((40, 40, 40))
    assert noise_level(5 + 0.3 * noise) == pytest.approx(0.3 * np.sqrt(0.895), rel=0.03)
    outside = np.concatenate([5 + 0.3 * noise, np.zeros_like(noise)])
    assert noise_level(outside) == pytest.approx(0.3 * np.sqrt(0.895), rel=0.05)
    assert noise_level(np.zeros((9, 9, 9))) == 0


def test_tuning_is_bounded_on_fine_grids():
    """The published grid: 2^20 voxels are 18 whole planes of 192 x 288, in the middle of the volume."""
    volume = np.broadcast_to(np.arange(520), (192, 288, 520))
    assert middle_slices(volume)[0, 0].tolist() == list(range(251, 269))
    coarse = np.broadcast_to(np.arange(180), (96, 144, 180))
    assert middle_slices(coarse)[0, 0].tolist() == list(range(74, 106))
    assert middle_slices(coarse[:, :, :20]).shape[2] == 20
