import numpy as np
import pytest

from guided_diffusion.pet.foci import contrast_map
from guided_diffusion.pet.spheres import sphere
from guided_diffusion.pet.suv_peak import suv_peak


def test_suvpeak_of_a_single_hot_voxel_and_of_a_large_lesion():
    voxel_mm = (3.3, 3.3, 3.3)
    lesion = np.zeros((20, 20, 20), bool)
    lesion[4:14, 4:14, 4:14] = True
    hot = np.ones(lesion.shape)
    hot[8, 9, 10] = 101
    assert suv_peak(hot, lesion, voxel_mm) == pytest.approx(1 + 100 * 3.3**3 / 1000, rel=0.02)
    assert suv_peak(np.where(lesion, 7.0, 1.0), lesion, voxel_mm) == pytest.approx(7)


def test_suvpeak_ignores_what_is_hot_elsewhere_and_works_at_the_border():
    voxel_mm = (4.0, 4.0, 4.0)
    lesion = np.zeros((20, 20, 20), bool)
    lesion[0:5, 0:5, 0:5] = True
    image = np.where(lesion, 3.0, 0.0)
    image[15:, 15:, 15:] = 50
    assert suv_peak(image, lesion, voxel_mm) == pytest.approx(3)


@pytest.mark.parametrize("centre", [(10, 9, 14), (0, 17, 3)])
def test_suvpeak_is_the_highest_of_the_means_everywhere(centre):
    voxel_mm = (4.0, 5.0, 3.0)
    volume = np.random.default_rng(0).gamma(2.0, 1.0, (22, 18, 30))
    lesion = sphere(volume.shape, voxel_mm, centre, 25)
    peak = contrast_map(volume, voxel_mm).peak
    assert suv_peak(volume, lesion, voxel_mm) == pytest.approx(peak[lesion].max(), rel=1e-9)
