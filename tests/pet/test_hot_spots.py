"""Small hot places of an image."""

import numpy as np
import pytest

from guided_diffusion.pet.hot_spots import BLOCK, hot_spots


def background(shape=(48, 40, 32), suv=1.0):
    return np.full(shape, suv, np.float32)


@pytest.mark.parametrize("suv", [0.3, 1.0, 6.0])
def test_a_spot_is_found_at_its_place_whatever_the_uptake(suv):
    image = background(suv=suv)
    image[20:24, 12:16, 16:20] = 2 * suv
    np.testing.assert_array_equal(hot_spots(image), [[22, 14, 18]])


def test_of_neighbouring_blocks_the_hotter_counts_and_far_ones_count_each():
    image = background()
    image[8:12, 8:12, 8:12], image[12:16, 8:12, 8:12], image[36:40, 28:32, 20:24] = 4.0, 5.0, 3.0
    np.testing.assert_array_equal(hot_spots(image), [[14, 10, 10], [38, 30, 22]])


def test_faint_spots_slopes_and_air_are_none():
    image = background()
    image[20:24, 12:16, 16:20] = 1.4
    assert len(hot_spots(image)) == 0
    assert len(hot_spots(np.linspace(1, 8, 48, dtype=np.float32)[:, None, None] * background())) == 0
    faint_air = background(suv=0.0)
    faint_air[20:24, 12:16, 16:20] = 0.12
    assert len(hot_spots(faint_air)) == 0


def test_less_than_a_block_has_none():
    assert hot_spots(np.ones((BLOCK - 1, 8, 8), np.float32)).shape == (0, 3)
