"""Gaussian blurs in mm, shared by resampling, simulated scanners and reference filters."""

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import gaussian_filter

FWHM_PER_SIGMA = 2.0 * np.sqrt(2.0 * np.log(2.0))


def gaussian_blur(data: np.ndarray, sigma_mm: float, voxel_mm: Sequence[float], mode: str = "nearest") -> np.ndarray:
    """An image [i, j, k] filtered with a Gaussian that is isotropic in mm; same dtype.

    voxel_mm: along i, j, k. mode: extension of the image beyond its borders, as in `scipy.ndimage.gaussian_filter`.
    """
    return gaussian_filter(data, [sigma_mm / size for size in voxel_mm], mode=mode)
