"""The Gaussian filter that leaves as much noise as a denoiser, as a baseline for it.

PSNR against a noisy reference alone favours methods that keep noise; at equal noise the better one keeps more signal.
"""

from collections.abc import Callable, Sequence

import numpy as np
from scipy.optimize import brentq

from guided_diffusion.pet.blur import gaussian_blur

TRIED_MM = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0)


def gaussian_of_equal_noise(
    volume: np.ndarray, voxel_mm: Sequence[float], noise_of: Callable[[np.ndarray], float], wanted: float
) -> tuple[np.ndarray, float]:
    """(filtered volume, sigma in mm) for the Gaussian filter that brings `noise_of` to `wanted`.

    If the volume has no more noise than that, it is returned with sigma 0. If no sigma up to 30 mm reaches it, the one
    with the least noise is used: wide filters spread hot neighbours into uniform tissue.
    """
    if noise_of(volume) <= wanted:
        return volume, 0.0

    def excess(sigma_mm: float) -> float:
        return noise_of(gaussian_blur(volume, sigma_mm, voxel_mm)) - wanted

    tried = {sigma_mm: excess(sigma_mm) for sigma_mm in TRIED_MM}
    enough = [sigma_mm for sigma_mm, more in tried.items() if more <= 0]
    sigma_mm = float(brentq(excess, 0.0, enough[0], xtol=1e-3)) if enough else min(tried, key=tried.get)
    return gaussian_blur(volume, sigma_mm, voxel_mm), sigma_mm
