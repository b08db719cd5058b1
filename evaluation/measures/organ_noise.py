"""Noise in tissue with nearly uniform uptake, such as the liver: its amplitude and its correlation length.

Images are [X, Y, Z]; regions are boolean arrays of their shape; voxel sizes in mm.
"""

from collections.abc import Sequence

import numpy as np

from evaluation.measures.organ_depth import depth_mm

LIVER_SPHERE_MM = 30.0
"""Diameter of the usual volume of interest in the liver, 14 ml (doi:10.1186/s40658-019-0264-9)."""
CORRELATION_SPHERE_MM = 60.0
"""Diameter within which correlation is measured: many times its width."""


def deepest_point(organ: np.ndarray, voxel_mm: Sequence[float]) -> tuple[tuple[int, int, int], float]:
    """The voxel of `organ` deepest below its surface, and its depth in mm; depth 0 if there is no organ.

    The organ ends at the border of the volume.
    """
    box, depth = depth_mm(organ, voxel_mm)
    if not depth.size:
        return (0, 0, 0), 0.0
    place = np.unravel_index(depth.argmax(), depth.shape)
    return tuple(int(n) + side.start for n, side in zip(place, box, strict=True)), float(depth.max())


def coefficient_of_variation(image: np.ndarray, region: np.ndarray) -> float:
    """Standard deviation over mean of the region's voxels."""
    values = image[region].astype(np.float64)
    return float(values.std() / values.mean())


def correlation_fwhm(image: np.ndarray, region: np.ndarray, voxel_mm: Sequence[float]) -> tuple[float, float, float]:
    """Full width at half maximum (mm) of the autocorrelation within the region, along each axis.

    White noise behind a Gaussian filter of FWHM w has sqrt(2) w. Linear between lags; infinite where the correlation is
    still above one half at the longest lag that the region holds, NaN in a constant region.
    """
    noise = np.where(region, image - image[region].mean(dtype=np.float64), 0.0)
    return tuple(_half_width(noise, region, axis) * 2 * size for axis, size in enumerate(voxel_mm))


def _half_width(noise: np.ndarray, region: np.ndarray, axis: int) -> float:
    """Lag in voxels at which the autocorrelation along `axis` falls to one half."""
    noise, region = np.moveaxis(noise, axis, 0), np.moveaxis(region, axis, 0)
    variance = np.mean(noise[region] ** 2)
    if variance == 0:
        return np.nan
    previous = 1.0
    for lag in range(1, len(region)):
        both = region[lag:] & region[:-lag]
        if not both.any():
            break
        correlation = np.mean((noise[lag:] * noise[:-lag])[both]) / variance
        if correlation < 0.5:
            return float(lag - (0.5 - correlation) / (previous - correlation))
        previous = correlation
    return float("inf")
