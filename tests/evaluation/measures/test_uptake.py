import numpy as np
import pytest

from evaluation.measures.uptake import bias_percent, lesions_over, organ_core, total_uptake


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
    core = organ_core(labels == 21, (4.0, 4.0, 4.0))
    distance = np.linalg.norm((np.argwhere(core) - (12, 12, 14)) * 4.0, axis=1)
    assert distance.min() > 8
    assert np.argwhere(core).min() == 7  # 5 and 6 lie 4 and 8 mm from the nearest voxel outside
    assert core[7, 7, 7]
    assert organ_core(labels == 4, (4.0, 4.0, 4.0)).sum() == 0
    labels[0:4, 0:4, 0:4] = 4  # 4 mL
    assert organ_core(labels == 4, (4.0, 4.0, 4.0)).sum() == 0


def test_bias():
    assert bias_percent(1.9, 2.0) == pytest.approx(-5)


def test_total_uptake_by_hand():
    image = np.zeros((4, 4, 4))
    lesion = np.zeros(image.shape, bool)
    lesion[0, 0] = True
    image[0, 0] = 10, 5, 4.1, 4
    image[1, 1, 1] = 30  # not of the lesion
    assert total_uptake(image, lesion, (2.0, 5.0, 10.0)) == pytest.approx((10 + 5 + 4.1) * 0.1)
