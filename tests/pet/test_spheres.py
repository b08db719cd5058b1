import numpy as np
import pytest

from guided_diffusion.pet.spheres import ball, sphere, sphere_kernel, steps_within


def test_a_sphere_has_its_volume_and_place():
    voxel_mm = (1.0, 2.0, 0.5)
    region = sphere((40, 30, 90), voxel_mm, (20, 12, 40), 30.0)
    assert region.sum() * np.prod(voxel_mm) == pytest.approx(np.pi / 6 * 30**3, rel=0.01)
    np.testing.assert_allclose(np.argwhere(region).mean(axis=0), (20, 12, 40), atol=1e-9)


def test_the_last_bit_of_a_voxel_size_decides_nothing():
    """As where an oblique affine is stored with 24 bits."""
    for size in (2.5, np.nextafter(2.5, 3), np.nextafter(2.5, 0), float(np.float32(2.5) * (1 + 2**-22))):
        assert ball(30.0, (size,) * 3).shape == (13, 13, 13)
        assert ball(30.0, (size,) * 3).sum() == ball(30.0, (2.5,) * 3).sum()
        assert steps_within(10.0, (size, 3.0, 10.0)) == [4, 3, 1]


@pytest.mark.parametrize("voxel_mm", [(3.3, 3.3, 3.3), (1.65, 1.65, 1.65), (4.7, 4.7, 3.27)])
def test_the_sphere_of_suvpeak_holds_one_millilitre(voxel_mm):
    """A voxel that lies inside weighs its share of 1 mL; the second moment is that of a sphere of 6.2 mm."""
    kernel = sphere_kernel(1.0, voxel_mm)
    assert kernel.sum() == pytest.approx(1)
    assert kernel.max() == pytest.approx(np.prod(voxel_mm) / 1000, rel=0.02)
    for axis, size in enumerate(voxel_mm):
        profile = kernel.sum(axis=tuple({0, 1, 2} - {axis}))
        places = (np.arange(len(profile)) - len(profile) // 2) * size
        radius_squared = (750 / np.pi) ** (2 / 3)
        assert (profile * places**2).sum() == pytest.approx(radius_squared / 5 + size**2 / 12, rel=0.07)
