"""The Gaussian filter that brings a low dose closest to its normal dose: a baseline that needs the answer."""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize_scalar

from evaluation.measures.image_fidelity import comparable
from guided_diffusion.pet.blur import gaussian_blur
from guided_diffusion.pet.image_quality import mean_squared_error

LARGEST_SIGMA_MM = 10  # a FWHM of 24 mm, beyond any filter used on PET
SIGMA_STEP_MM = 1
SIGMA_TOLERANCE_MM = 0.02


def best_gaussian(
    low_dose: np.ndarray, normal_dose: np.ndarray, voxel_size: Sequence[float]
) -> tuple[np.ndarray, float]:
    """The Gaussian filter of `low_dose` with the best PSNR against `normal_dose`: (filtered volume, sigma in mm).

    This is an optimistic baseline, since sigma is tuned on the subject itself. The filter is isotropic in mm for any
    `voxel_size` (mm along X, Y, Z). Sigma is searched from 0 (no filter) to 10 mm, first in steps of 1 mm, since the
    error may have several minima, then to 0.02 mm around the best step. Raises InputError if shapes differ or a voxel
    is not finite.
    """
    low_dose, normal_dose = comparable(low_dose, normal_dose)

    def filtered(sigma_mm: float) -> np.ndarray:
        return gaussian_blur(low_dose, sigma_mm, voxel_size)

    def error(sigma_mm: float) -> float:
        return mean_squared_error(normal_dose, filtered(sigma_mm))

    steps = np.arange(0, LARGEST_SIGMA_MM + SIGMA_STEP_MM, SIGMA_STEP_MM, dtype=float)
    errors = [error(sigma) for sigma in steps]
    best = int(np.argmin(errors))
    bounds = (steps[max(best - 1, 0)], steps[min(best + 1, len(steps) - 1)])
    refined = minimize_scalar(error, bounds=bounds, method="bounded", options={"xatol": SIGMA_TOLERANCE_MM})
    sigma_mm = float(refined.x if refined.fun < errors[best] else steps[best])
    return filtered(sigma_mm), sigma_mm
