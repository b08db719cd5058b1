"""Noise like a given one: its size and correlation from place to place, for any shape and voxel."""

import tracemalloc

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, uniform_filter

from guided_diffusion.pet.similar_noise import similar_noise


def correlated(shape, sigmas, seed=0):
    noise = gaussian_filter(np.random.default_rng(seed).standard_normal(shape), sigmas)
    return (noise / noise.std()).astype(np.float32)


def correlation(noise, axis, lag=1):
    along = np.moveaxis(noise, axis, 0)
    return np.mean(along[lag:] * along[:-lag]) / np.mean(noise**2)


@pytest.mark.parametrize("seed", range(6))
def test_size_and_correlation_are_those_of_the_given_noise(seed):
    rng = np.random.default_rng(seed)
    shape = rng.integers(45, 75, 3)
    voxel_mm = rng.uniform(1.8, 5.5, 3)
    noise = correlated(shape, rng.uniform(0.0, 6.0, 3) / voxel_mm, seed)
    images = [similar_noise(noise, np.ones_like(noise), voxel_mm, rng) for _ in range(4)]
    for image in images:
        assert image.dtype == np.float32
        assert image.shape == noise.shape
        assert abs(np.corrcoef(image.ravel(), noise.ravel())[0, 1]) < 0.1
    assert np.std(images) == pytest.approx(1, rel=0.05)
    for axis in range(3):
        found = np.mean([correlation(image, axis) for image in images])
        assert found == pytest.approx(correlation(noise, axis), abs=0.07)


def test_strong_noise_stays_where_it_is():
    strength = 1 + 9 * (np.arange(60) >= 30)[:, None, None]
    noise = strength * correlated((60, 50, 40), 1.0)
    image = similar_noise(noise, np.ones_like(noise), (4.0, 4.0, 4.0), np.random.default_rng(1))
    given, found = (np.sqrt(uniform_filter(one**2, 13)) for one in (noise, image))
    for x, part in ((10, "weak"), (50, "strong")):
        inside = (slice(x - 6, x + 6), slice(8, -8), slice(8, -8))
        assert found[inside].mean() == pytest.approx(given[inside].mean(), rel=0.1), part


def test_noise_follows_uptake_within_millimetres():
    """In a hot spot that is smaller than the window of the local size."""
    distance = np.linalg.norm(np.indices((48, 48, 48)) - 24, axis=0) * 4.0
    image = 1 + 9 * np.exp(-0.5 * (distance / 8.0) ** 2).astype(np.float32)
    spots = []
    for seed in range(20):
        noise = image * correlated(image.shape, 0.6, seed)
        spots.append(similar_noise(noise, image, (4.0, 4.0, 4.0), np.random.default_rng(seed)))
    found = np.sqrt(np.mean(np.square(spots), axis=0))
    # The given noise has 9.3 and 1.05 there; of a window alone it would have 4.6 in the spot.
    assert 6.5 < found[distance < 5].mean() < 9.3
    assert found[(distance > 24) & (distance < 40)].mean() == pytest.approx(1.05, rel=0.2)


def test_each_place_has_its_own_texture():
    """Coarse noise in one half and fine noise in the other."""
    noise = np.concatenate([correlated((60, 48, 48), 2.0), correlated((60, 48, 48), 0.4)])
    image = similar_noise(noise, np.ones_like(noise), (4.0, 4.0, 4.0), np.random.default_rng(1))
    for half in (slice(5, 45), slice(75, 115)):
        for axis in range(3):
            assert correlation(image[half], axis) == pytest.approx(correlation(noise[half], axis), abs=0.06)


@pytest.mark.parametrize("shape", [(9, 1, 2), (3, 50, 7), (31, 2, 40), (1, 1, 1)])
def test_small_volumes_have_noise_too(shape):
    rng = np.random.default_rng(0)
    noises = rng.standard_normal((100, *shape)).astype(np.float32)
    images = np.stack([similar_noise(noise, np.ones_like(noise), (2.0, 3.0, 4.0), rng) for noise in noises])
    assert images.shape == noises.shape
    assert np.mean(images**2) == pytest.approx(np.mean(noises**2), rel=0.3)


def test_a_small_volume_of_fine_voxels_takes_no_gigabytes():
    """As of a mouse: blocks of 96 mm would have 960 voxels a side."""
    noise = np.random.default_rng(0).standard_normal((24, 24, 24), dtype=np.float32)
    tracemalloc.start()
    image = similar_noise(noise, np.ones_like(noise), (0.1, 0.1, 0.1), np.random.default_rng(0))
    assert tracemalloc.get_traced_memory()[1] < 200e6
    tracemalloc.stop()
    assert image.std() == pytest.approx(noise.std(), rel=0.2)


def test_where_there_is_none_none_is_made():
    noise = correlated((60, 40, 40), 1.0)
    noise[:30] = 0
    image = similar_noise(noise, np.ones_like(noise), (4.0, 4.0, 4.0), np.random.default_rng(0))
    assert np.all(image[:26] == 0)
    assert np.isfinite(image).all()


def test_noise_of_a_thin_body_stays_in_it():
    noise = correlated((70, 40, 40), 0.7)
    noise[:30] = noise[40:] = 0
    images = [similar_noise(noise, np.ones_like(noise), (4.0,) * 3, np.random.default_rng(seed)) for seed in range(6)]
    assert np.std(np.stack(images)[:, 30:40]) == pytest.approx(np.std(noise[30:40]), rel=0.15)


def test_the_generator_names_the_noise():
    noise = correlated((30, 30, 30), 1.0)
    one, again, other = (
        similar_noise(noise, np.ones_like(noise), (4.0,) * 3, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, again)
    assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.1
