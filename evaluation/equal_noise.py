"""A baseline for a denoiser: the Gaussian filter that leaves as much noise as it does.

PSNR against a noisy reference alone favours methods that keep noise; at equal noise the better one keeps more signal.
"""

from collections.abc import Callable, Sequence

import numpy as np
from scipy.optimize import brentq

from guided_diffusion.pet.blur import gaussian_blur

LARGEST_SIGMA_MM = 30.0


def gaussian_of_equal_noise(
    volume: np.ndarray, voxel_mm: Sequence[float], noise_of: Callable[[np.ndarray], float], wanted: float
) -> tuple[np.ndarray, float]:
    """(filtered volume, sigma in mm): the Gaussian behind which `noise_of` gives `wanted`.

    The volume itself with sigma 0 where it has no more noise than that; sigma is at most 30 mm.
    """
    if noise_of(volume) <= wanted:
        return volume, 0.0

    def excess(sigma_mm: float) -> float:
        return noise_of(gaussian_blur(volume, sigma_mm, voxel_mm)) - wanted

    upper = 1.0
    while excess(upper) > 0:
        upper *= 1.5
        if upper > LARGEST_SIGMA_MM:
            return gaussian_blur(volume, LARGEST_SIGMA_MM, voxel_mm), LARGEST_SIGMA_MM
    sigma_mm = float(brentq(excess, 0.0, upper, xtol=1e-3))
    return gaussian_blur(volume, sigma_mm, voxel_mm), sigma_mm
