"""How large noise is around every voxel."""

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import uniform_filter

from guided_diffusion.pet.blur import gaussian_blur

# Sigma of the mean that noise is taken to follow within a window, and what it is at least: air is noisy too.
ACTIVITY_MM, LEAST_SUV = 5.0, 0.05


def noise_size(noise: np.ndarray, image: np.ndarray, voxel_mm: Sequence[float], window_mm: float) -> np.ndarray:
    """The standard deviation of noise of mean 0 within a cube about every voxel, in SUV, [X, Y, Z].

    image: what is noisy, of the same shape, in SUV: where uptake changes within millimetres, noise changes with it.
    voxel_mm: along X, Y, Z.
    """
    activity = gaussian_blur(np.maximum(image, 0, dtype=np.float32), ACTIVITY_MM, voxel_mm) + np.float32(LEAST_SUV)
    window = [max(1, round(window_mm / size)) for size in voxel_mm]
    variance = uniform_filter(np.square(noise / activity), window, mode="nearest")
    return activity * np.sqrt(
        np.maximum(variance, 0)
    )  # sums of squares, as the filter makes them, can round to below 0
