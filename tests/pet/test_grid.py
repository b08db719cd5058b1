"""When two grids are one."""

import numpy as np
import pytest

from guided_diffusion.pet.blur import FWHM_PER_SIGMA, gaussian_blur
from guided_diffusion.pet.grid import Volume, centred_affine, on_one_grid, same_grid

SHAPE = (200, 150, 400)
VOXEL_MM = (2.0, 3.0, 2.0)
AFFINE = centred_affine(SHAPE, VOXEL_MM, "PLS")


def changed(entry, by):
    affine = AFFINE.copy()
    affine[entry] += by
    return affine


@pytest.mark.parametrize(
    ("affine", "same"),
    [
        (AFFINE.astype(np.float32), True),
        (changed((0, 3), 0.09), True),  # a twentieth of the smallest voxel is 0.1 mm
        (changed((0, 3), 0.11), False),
        (changed((2, 3), -0.11), False),
        (changed((2, 2), 0.0002), True),  # 399 voxels on: 0.08 mm
        (changed((2, 2), 0.0003), False),  # 0.12 mm
        (centred_affine(SHAPE, VOXEL_MM, "ALS"), False),
        (np.full((4, 4), np.nan), False),
    ],
)
def test_grids_are_one_where_no_voxel_is_apart(affine, same):
    assert same_grid(SHAPE, AFFINE, SHAPE, affine) == same
    assert same_grid(SHAPE, affine, SHAPE, AFFINE) == same


def test_grids_of_other_shapes_are_two():
    ours, theirs = (Volume(np.zeros(shape, np.float32), np.eye(4)) for shape in ((3, 4, 5), (3, 4, 6)))
    assert on_one_grid(ours, ours)
    assert not on_one_grid(ours, theirs)


def test_a_blur_is_isotropic_in_mm():
    image = np.zeros((41, 41, 41))
    image[20, 20, 20] = 1.0
    voxel_mm = (1.0, 2.0, 0.5)
    blurred = gaussian_blur(image, 6.0 / FWHM_PER_SIGMA, voxel_mm)
    half = blurred[20, 20, 20] / 2
    for axis, size in enumerate(voxel_mm):
        profile = np.moveaxis(blurred, axis, 0)[:, 20, 20]
        width = np.interp(-half, -profile[20:], np.arange(21)) * 2 * size
        assert width == pytest.approx(6.0, rel=0.03)
