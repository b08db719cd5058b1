import numpy as np
import pytest

from evaluation.uptake import bias_percent, lesions_over, organ_core, suv_peak


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


def test_lesions_are_chosen_by_the_diameter_of_a_sphere_of_their_volume():
    labels = np.zeros((20, 20, 20), np.uint8)
    labels[0:3, 0:3, 0:3] = 100
    labels[5:7, 5:7, 5:7] = 107
    labels[10:20] = 21  # an organ
    found = lesions_over(labels, (4.0, 4.0, 4.0), 10)
    assert found == {100: pytest.approx((6 / np.pi * 27 * 64) ** (1 / 3))}  # 14.9 mm; the other has 9.9 mm


def test_the_core_of_an_organ_is_deeper_than_8_mm():
    labels = np.zeros((30, 30, 30), np.uint8)
    labels[5:20, 5:20, 5:25] = 21
    labels[12, 12, 14] = 100
    core = organ_core(labels, 21, (4.0, 4.0, 4.0))
    distance = np.linalg.norm((np.argwhere(core) - (12, 12, 14)) * 4.0, axis=1)
    assert distance.min() > 8
    assert np.argwhere(core).min() == 7  # 5 and 6 lie 4 and 8 mm from the nearest voxel outside
    assert core[7, 7, 7]
    assert organ_core(labels, 4, (4.0, 4.0, 4.0)).sum() == 0
    labels[0:4, 0:4, 0:4] = 4  # 4 mL
    assert organ_core(labels, 4, (4.0, 4.0, 4.0)).sum() == 0


def test_bias():
    assert bias_percent(1.9, 2.0) == pytest.approx(-5)
