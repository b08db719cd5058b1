"""Noise where a scan shows uniform tissue: spheres of one uptake, found by rule."""

from collections.abc import Sequence

import numpy as np

from guided_diffusion.pet.spheres import ball, means_inside

SPHERE_MM = 30.0
WARM_SUV = (0.5, 8.0)
SPHERES = 20


def sphere_statistics(volume: np.ndarray, voxel_mm: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation over the 30 mm sphere about every voxel, float64 [X, Y, Z].

    NaN where the sphere does not lie wholly inside the volume.
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
    candidates = np.argwhere(is_warm(mean))
    places = tuple(candidates.T)
    order = np.argsort(deviation[places] / mean[places], kind="stable")
    free = candidates[order]
    centres = []
    while len(free) and len(centres) < count:
        centres.append(free[0])
        free = free[np.linalg.norm((free - free[0]) * np.asarray(voxel_mm), axis=1) >= SPHERE_MM]
    return np.array(centres).reshape(-1, 3)
