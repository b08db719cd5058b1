"""Voxelwise agreement of an image with its reference: PSNR, SSIM, NRMSE and NMAE.

Every volume is [X, Y, Z] in SUV and is compared in float32, as in the published evaluation.
"""

import numpy as np

from guided_diffusion.errors import InputError
from guided_diffusion.pet import image_quality
from guided_diffusion.pet.image_quality import LARGEST_PSNR, SSIM_WINDOW
from guided_diffusion.pet.normalisation import DEFAULT_SUV_MAX

SUV_MAX = DEFAULT_SUV_MAX  # the published data are clipped to this, so no image can be brighter: the true peak


def clip_suv(volume: np.ndarray) -> np.ndarray:
    """Clip SUV to [0, 16], the range that the network represents; float32, same shape."""
    return np.clip(np.asarray(volume, dtype=np.float32), 0, SUV_MAX)


def psnr(reference: np.ndarray, image: np.ndarray, peak: float | None = None) -> float:
    """Peak signal-to-noise ratio 10 log10(peak^2 / MSE) in dB.

    Without `peak` it is 16, for values that can be compared, and the ratio at most 100. The published number takes the
    largest value of the scan before clipping, which gives a higher PSNR to scans with a hot bladder: see README.md. It
    is 100 for equal volumes only, so that nearly equal ones may have more. Raises InputError where shapes differ or a
    voxel is not finite.
    """
    reference, image = comparable(reference, image)
    ratio = image_quality.psnr(reference, image, SUV_MAX if peak is None else peak)
    return min(LARGEST_PSNR, ratio) if peak is None or ratio == np.inf else ratio


def ssim(reference: np.ndarray, image: np.ndarray) -> float:
    """Mean structural similarity over the volume, with the published settings: `image_quality.ssim`, data range 16.

    Raises InputError where shapes differ, a voxel is not finite, or an axis is shorter than the window.
    """
    reference, image = comparable(reference, image)
    if min(reference.shape) < SSIM_WINDOW:
        raise InputError(f"SSIM needs {SSIM_WINDOW} voxels or more along every axis, the volumes are {reference.shape}")
    return image_quality.ssim(reference, image, data_range=SUV_MAX)


def nrmse(reference: np.ndarray, image: np.ndarray) -> float:
    """Root mean squared error in per cent of the reference's root mean square.

    Fienup, Appl Opt 36:8352, 1997, without its scale factor: scikit-image's "euclidean". NaN where the reference is 0
    everywhere. Raises InputError as `psnr`.
    """
    reference, image = comparable(reference, image)
    size = np.sum(np.square(reference), dtype=np.float64)
    return float(100 * np.sqrt(np.sum(np.square(image - reference), dtype=np.float64) / size)) if size else np.nan


def nmae(reference: np.ndarray, image: np.ndarray) -> float:
    """Mean absolute error in per cent of the reference's mean absolute value; otherwise as `nrmse`."""
    reference, image = comparable(reference, image)
    size = np.sum(np.abs(reference), dtype=np.float64)
    return float(100 * np.sum(np.abs(image - reference), dtype=np.float64) / size) if size else np.nan


def comparable(reference: np.ndarray, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both volumes in float32. Raises InputError where shapes differ or a voxel is not finite."""
    if reference.shape != image.shape:
        raise InputError(f"shapes differ: the reference is {reference.shape}, the image {image.shape}")
    for name, volume in (("reference", reference), ("image", image)):
        if not np.isfinite(volume).all():
            raise InputError(f"the {name} has NaN or infinite voxels")
    return np.asarray(reference, dtype=np.float32), np.asarray(image, dtype=np.float32)
