import tracemalloc

import numpy as np
import pytest

from guided_diffusion.pet.spheres import ball
from guided_diffusion.pet.uniform_tissue import most_uniform_spheres, sphere_statistics

VOXEL_MM = (4.0, 5.0, 3.0)


@pytest.fixture
def noise():
    return np.random.default_rng(0).standard_normal((44, 40, 60))


def test_sphere_statistics(noise):
    image = 2 + 0.3 * noise
    mean, deviation = sphere_statistics(image, VOXEL_MM)
    sphere = ball(30.0, VOXEL_MM)
    assert sphere.shape == (7, 7, 11)
    assert sphere.sum() * 60 == pytest.approx(np.pi / 6 * 30**3, rel=0.05)
    block = image[20 - 3 : 20 + 4, 18 - 3 : 18 + 4, 25 - 5 : 25 + 6][sphere]
    assert mean[20, 18, 25] == pytest.approx(block.mean())
    assert deviation[20, 18, 25] == pytest.approx(block.std())
    assert np.isnan(mean[2, 18, 25])
    assert np.isnan(sphere_statistics(image[:, :, :5], VOXEL_MM)[0]).all()  # shorter than a sphere


def test_the_most_uniform_spheres_lie_where_there_is_less_noise(noise):
    image = 2 + 0.3 * noise
    image[:, :, 30:] = 4 + 0.1 * noise[:, :, 30:]
    image[:, :, 50:] = 12  # uniform but too hot
    centres = most_uniform_spheres(*sphere_statistics(image, VOXEL_MM), VOXEL_MM, count=3)
    assert ((centres[:, 2] >= 35) & (centres[:, 2] < 45)).all()
    apart = np.linalg.norm((centres[:, None] - centres) * VOXEL_MM, axis=-1)[np.triu_indices(3, 1)]
    assert (apart >= 30).all()


def test_spheres_are_taken_in_order_of_their_noise_unless_one_of_those_before_is_near():
    random = np.random.default_rng(1)
    mean, deviation = random.uniform(0, 9, (12, 9, 14)), random.uniform(0, 1, (12, 9, 14))
    warm = [tuple(place) for place in np.argwhere((mean >= 0.5) & (mean <= 8))]
    taken = []
    for place in sorted(warm, key=lambda place: deviation[place] / mean[place]):
        if all(np.linalg.norm(np.subtract(place, other) * VOXEL_MM) >= 30 for other in taken):
            taken.append(place)
    assert len(taken) > 3
    np.testing.assert_array_equal(most_uniform_spheres(mean, deviation, VOXEL_MM), taken)


def test_fine_voxels_take_no_more_memory_than_the_volume():
    """A ball of 60 mm has 14 million voxels of 0.2 mm, a gigabyte of indices."""
    fine, deviation = (0.2, 0.2, 0.2), np.random.default_rng(0).uniform(0.1, 1, (24, 24, 24))
    tracemalloc.start()
    mean, _ = sphere_statistics(np.full(deviation.shape, 2.0), fine)
    centres = most_uniform_spheres(np.full(deviation.shape, 2.0), deviation, fine)
    none = most_uniform_spheres(mean, deviation, fine)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.isnan(mean).all()
    assert centres.tolist() == [list(np.unravel_index(deviation.argmin(), deviation.shape))]
    assert none.shape == (0, 3)
    assert peak < 2**22
