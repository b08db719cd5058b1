"""Small hot spots of an image, which random crops would rarely contain because they fill little of a body."""

import numpy as np
from scipy.ndimage import maximum_filter, uniform_filter

from guided_diffusion.pet.normalisation import BODY_SUV

BLOCK = 4
"""Voxels a side of the blocks whose means are compared."""
SURROUNDINGS = 5
"""Blocks a side of what a block is compared with."""
LEAST_CONTRAST = 1.5


def hot_spots(image: np.ndarray) -> np.ndarray:
    """The centres in voxels, int [n, 3], of blocks of an image [X, Y, Z] in SUV that stand out.

    Such a block is hotter than its neighbours, and its mean is at least 1.5 times that of the 5 x 5 x 5 blocks around
    it, with air counted as BODY_SUV. Noise and hot organs can qualify too. Voxels beyond the last whole block are
    ignored; an image smaller than a block has none.
    """
    counts = [length // BLOCK for length in image.shape]
    if not all(counts):
        return np.zeros((0, 3), int)
    whole = image[tuple(slice(count * BLOCK) for count in counts)]
    blocks = whole.reshape([side for count in counts for side in (count, BLOCK)]).mean(axis=(1, 3, 5), dtype=np.float32)
    around = uniform_filter(np.maximum(blocks, BODY_SUV), SURROUNDINGS, mode="nearest")
    stands_out = (blocks == maximum_filter(blocks, 3, mode="nearest")) & (blocks > LEAST_CONTRAST * around)
    return np.argwhere(stands_out) * BLOCK + BLOCK // 2
