"""PSNR and SSIM of an image against its reference, for validation during training and for the evaluation."""

import numpy as np
from skimage.metrics import structural_similarity

SSIM_WINDOW = 7
"""Voxels along every axis: scikit-image's default, which the published evaluation uses."""
LARGEST_PSNR = 100.0
"""dB, the published stand-in for equal images: with more, images that differ would seem nearer than the same one."""


def mean_squared_error(reference: np.ndarray, image: np.ndarray) -> float:
    """Mean squared difference, in the arrays' dtype but summed in float64, so that memory layout plays no part."""
    return float(np.mean(np.square(reference - image), dtype=np.float64))


def psnr(reference: np.ndarray, image: np.ndarray, peak: float) -> float:
    """Peak signal-to-noise ratio 10 log10(peak^2 / MSE) in dB; infinite where the images are equal."""
    error = mean_squared_error(reference, image)
    return float("inf") if error == 0 else float(10 * np.log10(peak**2 / error))


def ssim(reference: np.ndarray, image: np.ndarray, data_range: float, window: int = SSIM_WINDOW) -> float:
    """Mean structural similarity over a volume [X, Y, Z] in any order of axes (Wang et al. 2004).

    scikit-image's defaults, which are the published settings: a uniform window of `window` (odd) voxels along every
    axis, K1 = 0.01, K2 = 0.03, sample covariance, and the mean over windows inside the volume.
    """
    return float(structural_similarity(reference, image, win_size=window, data_range=data_range))
