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
