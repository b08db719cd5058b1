"""The true activity as the scanner shows it, blurred but without noise: a reference of images."""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize_scalar

from evaluation.measures.image_fidelity import clip_suv
from guided_diffusion.pet.blur import gaussian_blur
from guided_diffusion.pet.image_quality import mean_squared_error

LARGEST_BLUR_MM = 10.0


def blurred_truth(truth: np.ndarray, normal_dose: np.ndarray, voxel_mm: Sequence[float]) -> tuple[np.ndarray, float]:
    """The true activity at the resolution of the scan's images: (float32 [X, Y, Z] in SUV, sigma in mm).

    The Gaussian is the one that brings the truth nearest to the normal-dose image. The noise of that image does not
    affect the choice: being independent of the truth, it adds the same to every error.
    """
    seen = clip_suv(normal_dose)

    def blurred(sigma_mm: float) -> np.ndarray:
        return gaussian_blur(truth, sigma_mm, voxel_mm)

    best = minimize_scalar(
        lambda sigma_mm: mean_squared_error(seen, clip_suv(blurred(sigma_mm))),
        bounds=(0.0, LARGEST_BLUR_MM),
        method="bounded",
        options={"xatol": 0.05},
    )
    return blurred(best.x), float(best.x)
