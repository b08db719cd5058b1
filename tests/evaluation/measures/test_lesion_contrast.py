import numpy as np
import pytest

from evaluation.measures.lesion_contrast import contrast_recovery, contrast_to_noise, surroundings_of


def test_contrast_to_noise_by_hand():
    image = np.zeros((4, 4, 4))
    lesion, background = np.zeros((2, 4, 4, 4), bool)
    lesion[0, 0, :2], background[3, 3] = True, True
    image[0, 0, :2] = 7, 9
    image[3, 3] = 1, 3, 1, 3  # mean 2, deviation 1
    assert contrast_to_noise(image, lesion, background) == pytest.approx(6)
    image[3, 3] = 2
    assert np.isnan(contrast_to_noise(image, lesion, background))


def test_surroundings_lie_8_to_16_mm_off():
    voxel_mm = (2.0, 2.0, 4.0)
    lesion, tissue = np.zeros((30, 30, 20), bool), np.ones((30, 30, 20), bool)
    lesion[12:15, 13:16, 9:11] = True
    tissue[20:] = False
    around = surroundings_of(lesion, tissue, voxel_mm)
    places = np.argwhere(lesion) * voxel_mm
    distance = np.array([np.linalg.norm(places - place * voxel_mm, axis=1).min() for place in np.argwhere(tissue)])
    expected = np.zeros_like(lesion)
    expected[tissue] = (distance >= 8) & (distance <= 16)
    np.testing.assert_array_equal(around, expected)


def test_surroundings_of_less_than_a_millilitre_are_none():
    lesion, tissue = np.zeros((2, 12, 12, 12), bool)
    lesion[5, 5, 5] = True
    tissue[9, 5, :5] = True
    assert not surroundings_of(lesion, tissue, (3.0, 3.0, 3.0)).any()


def test_contrast_recovery_by_hand():
    lesion, around = np.zeros((2, 4, 4, 4), bool)
    lesion[0], around[3] = True, True
    reference, image = np.zeros((2, 4, 4, 4))
    reference[0], reference[3] = 8, 2  # contrast 3
    image[0], image[3] = 5, 2  # 1.5
    assert contrast_recovery(image, reference, lesion, around) == pytest.approx(50)
    assert contrast_recovery(3 * image, reference, lesion, around) == pytest.approx(50)  # scale does not matter
    reference[0] = 2.9
    assert np.isnan(contrast_recovery(image, reference, lesion, around))
    reference[3] = 0
    assert np.isnan(contrast_recovery(image, reference, lesion, around))
