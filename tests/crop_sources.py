"""A pair whose voxels all differ, and the source of its crops, for tests of both."""

import numpy as np

from guided_diffusion.config import PreprocessingConfig
from guided_diffusion.image_datasets import CropShares, CropSource, Pair

SUV_MAX = 16.0


def numbered(shape=(24, 20, 16)):
    """A pair whose voxels all differ: the normal dose counts up from 1 in steps of 1/1024, the low dose is half."""
    normal = 1 + np.arange(np.prod(shape), dtype=np.float32).reshape(shape) / 1024
    return np.stack([normal / 2, normal])


def write_pair(path, array, **options):
    np.savez(path, arr_0=array, **options)
    return path


def source_of(path, crop_size, seed=0, **shares):
    return CropSource(
        [Pair(path, "one")], crop_size, PreprocessingConfig(suv_max=SUV_MAX), seed, shares=CropShares(**shares)
    )
