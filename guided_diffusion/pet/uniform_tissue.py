"""Noise in uniform tissue: the most uniform spheres of a scan, found by a fixed rule."""

from collections.abc import Sequence

import numpy as np

from guided_diffusion.pet.spheres import ball, means_inside

SPHERE_MM = 30.0
WARM_SUV = (0.5, 8.0)
SPHERES = 20


def sphere_statistics(volume: np.ndarray, voxel_mm: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation over the 30 mm sphere around every voxel, float64 [X, Y, Z].

    NaN where the sphere extends beyond the volume.
    """
    sphere = ball(SPHERE_MM, voxel_mm)
    weights = sphere / sphere.sum()
    inside = tuple(slice(n // 2, size - n // 2) for n, size in zip(sphere.shape, volume.shape, strict=True))
    mean, square = (np.full(volume.shape, np.nan) for _ in range(2))
    if any(n > size for n, size in zip(sphere.shape, volume.shape, strict=True)):
        return mean, square
    mean[inside] = means_inside(volume, weights)
    square[inside] = means_inside(volume.astype(float) ** 2, weights)
    return mean, np.sqrt(np.maximum(square - mean**2, 0))


def is_warm(mean: np.ndarray) -> np.ndarray:
    """Spheres with a mean of SUV 0.5 to 8."""
    return (mean >= WARM_SUV[0]) & (mean <= WARM_SUV[1])


def most_uniform_spheres(
    mean: np.ndarray, deviation: np.ndarray, voxel_mm: Sequence[float], count: int = SPHERES
) -> np.ndarray:
    """Centres (voxel indices, int [n, 3]) of up to `count` warm spheres with the lowest COV, none touching another."""
    candidates = np.flatnonzero(is_warm(mean))
    order = np.argsort((deviation.ravel()[candidates] / mean.ravel()[candidates]), kind="stable")
    free = candidates[order]
    taken = np.zeros(mean.shape, bool)
    reach = ball(2 * SPHERE_MM, voxel_mm)
    offsets = np.argwhere(reach) - np.array(reach.shape) // 2
    offsets = offsets[np.linalg.norm(offsets * np.asarray(voxel_mm), axis=1) < SPHERE_MM]
    centres = []
    while len(free) and len(centres) < count:
        centres.append(np.unravel_index(free[0], mean.shape))
        near = centres[-1] + offsets
        taken[tuple(near[((near >= 0) & (near < mean.shape)).all(axis=1)].T)] = True
        free = free[~taken.ravel()[free]]
    return np.array(centres, int).reshape(-1, 3)
