"""Spheres of voxels: as regions of a volume, as small arrays, and as the weights of a mean.

Regions are boolean arrays [X, Y, Z], voxel sizes in mm along these axes.
"""

from collections.abc import Sequence

import numpy as np
from scipy.signal import fftconvolve

SUBDIVISIONS = 5
# Of voxel sizes, which files store with 24 bits: the last must not decide whether a voxel on the surface belongs to it.
_ROUNDING = 1e-5


def sphere(shape: Sequence[int], voxel_mm: Sequence[float], centre: Sequence[int], diameter_mm: float) -> np.ndarray:
    """Voxels of a volume of this shape whose centres lie within a sphere about the voxel `centre`."""
    x, y, z = ((np.arange(n) - c) * size for n, c, size in zip(shape, centre, voxel_mm, strict=True))
    return np.hypot(np.hypot(x[:, None, None], y[:, None]), z) <= diameter_mm / 2 * (1 + _ROUNDING)


def steps_within(length_mm: float, voxel_mm: Sequence[float]) -> list[int]:
    """How many voxels of each axis a length reaches from a voxel's centre."""
    return [int(length_mm / size + _ROUNDING) for size in voxel_mm]


def ball(diameter_mm: float, voxel_mm: Sequence[float]) -> np.ndarray:
    """A sphere about the middle voxel of the smallest array that holds it, which has odd sizes."""
    reach = steps_within(diameter_mm / 2, voxel_mm)
    return sphere([2 * n + 1 for n in reach], voxel_mm, reach, diameter_mm)


def sphere_kernel(volume_ml: float, voxel_mm: Sequence[float]) -> np.ndarray:
    """Weights of the voxels in a sphere centred on a voxel, by the share that lies inside; float64, sum 1.

    Each voxel is sampled at 5x5x5 points.
    """
    radius = (3 * volume_ml * 1000 / (4 * np.pi)) ** (1 / 3)
    shape = [2 * int(np.ceil(radius / size - 0.5)) + 1 for size in voxel_mm]
    points = [n * SUBDIVISIONS for n in shape]
    inside = sphere(points, [size / SUBDIVISIONS for size in voxel_mm], [n // 2 for n in points], 2 * radius)
    parts = [size for n in shape for size in (n, SUBDIVISIONS)]
    weights = inside.reshape(parts).sum(axis=(1, 3, 5)).astype(float)
    return weights / weights.sum()


def means_inside(volume: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted mean around every voxel far enough from the border for the weights (odd sizes, sum 1) to fit.

    float64, smaller than the volume by the sizes of the weights less one.
    """
    return fftconvolve(volume.astype(float), weights, mode="valid")


def means_everywhere(volume: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted mean about every voxel, float64, same shape; beyond the volume its edge goes on."""
    return means_inside(np.pad(volume, [(n // 2, n // 2) for n in weights.shape], mode="edge"), weights)
