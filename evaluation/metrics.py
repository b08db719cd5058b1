"""Closeness of a volume to its normal-dose reference: PSNR, SSIM, seams, and the best Gaussian filter.

Every volume is [X, Y, Z] in SUV and is compared in float32, as the published evaluation does.
"""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize_scalar

from guided_diffusion.errors import InputError
from guided_diffusion.pet import image_quality
from guided_diffusion.pet.blur import gaussian_blur
from guided_diffusion.pet.image_quality import SSIM_WINDOW, mean_squared_error
from guided_diffusion.pet.normalisation import DEFAULT_SUV_MAX
from guided_diffusion.pet.patches import PatchPlan

SUV_MAX = DEFAULT_SUV_MAX  # the published data are clipped to this, so no image can be brighter: the true peak
IDENTICAL_PSNR = 100.0  # dB, the published stand-in for the infinite PSNR of two equal volumes

LARGEST_SIGMA_MM = 10  # a FWHM of 24 mm, beyond any filter used on PET
SIGMA_STEP_MM = 1
SIGMA_TOLERANCE_MM = 0.02


def clip_suv(volume: np.ndarray) -> np.ndarray:
    """Clip SUV to [0, 16], the range that the network represents; float32, same shape."""
    return np.clip(np.asarray(volume, dtype=np.float32), 0, SUV_MAX)


def psnr(reference: np.ndarray, image: np.ndarray, peak: float = SUV_MAX) -> float:
    """Peak signal-to-noise ratio 10 log10(peak^2 / MSE) in dB; 100 where the volumes are equal.

    `peak` is 16 for values that can be compared. The published number takes the largest value of the scan before
    clipping, which gives a higher PSNR to scans with a hot bladder: see README.md. Raises InputError where shapes
    differ or a voxel is not finite.
    """
    reference, image = _comparable(reference, image)
    ratio = image_quality.psnr(reference, image, peak)
    return IDENTICAL_PSNR if ratio == np.inf else ratio


def ssim(reference: np.ndarray, image: np.ndarray) -> float:
    """Mean structural similarity over the volume, with the published settings: `image_quality.ssim`, data range 16.

    Raises InputError where shapes differ, a voxel is not finite, or an axis is shorter than the window.
    """
    reference, image = _comparable(reference, image)
    if min(reference.shape) < SSIM_WINDOW:
        raise InputError(f"SSIM needs {SSIM_WINDOW} voxels or more along every axis, the volumes are {reference.shape}")
    return image_quality.ssim(reference, image, data_range=SUV_MAX)


def best_gaussian(
    low_dose: np.ndarray, normal_dose: np.ndarray, voxel_size: Sequence[float]
) -> tuple[np.ndarray, float]:
    """The Gaussian filter of `low_dose` with the best PSNR against `normal_dose`: (filtered volume, sigma in mm).

    An optimistic baseline: sigma is tuned on the subject that it is tested on. The filter is isotropic in mm,
    whatever the `voxel_size` (mm along X, Y, Z). Sigma is searched from 0 (no filter) to 10 mm, first in steps of 1 mm,
    because the error need not have a single minimum, then to 0.02 mm between the neighbours of the best step. Raises
    InputError where shapes differ or a voxel is not finite.
    """
    low_dose, normal_dose = _comparable(low_dose, normal_dose)

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


def seam_index(truth: np.ndarray, image: np.ndarray, plan: PatchPlan) -> float:
    """Axial change of an image's error where patches meet, as a ratio to that elsewhere; 1: no seams.

    The mean absolute difference between axial neighbours of (image - truth), over the pairs of slices between which
    the plan hands over from one patch to the next, divided by that over all other pairs. Raises InputError where
    shapes differ, a voxel is not finite, or there is nothing to compare: a single patch, or handing over everywhere.
    """
    truth, image = _comparable(truth, image)
    weights = np.zeros((len(plan.starts), plan.length))
    for patch in range(len(plan.starts)):
        weights[patch, plan.slab(patch)] = plan.weights(patch)
    at_borders = (np.diff(weights, axis=1) != 0).any(axis=0)
    if at_borders.all() or not at_borders.any():
        raise InputError(f"seams show between patches and within them; {len(plan.starts)} patches have not both")
    changes = np.abs(np.diff(image - truth, axis=2)).mean(axis=(0, 1), dtype=np.float64)
    return float(changes[at_borders].mean() / changes[~at_borders].mean())


def _comparable(reference: np.ndarray, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both volumes in float32, once they are known to have one shape and finite voxels."""
    if reference.shape != image.shape:
        raise InputError(f"shapes differ: the reference is {reference.shape}, the image {image.shape}")
    for name, volume in (("reference", reference), ("image", image)):
        if not np.isfinite(volume).all():
            raise InputError(f"the {name} has NaN or infinite voxels")
    return np.asarray(reference, dtype=np.float32), np.asarray(image, dtype=np.float32)
