"""Noise in uniform tissue: the most uniform spheres of a scan, found by a fixed rule."""

from collections.abc import Sequence

import numpy as np

from guided_diffusion.pet.spheres import ball, means_inside, steps_within

SPHERE_MM = 30.0
WARM_SUV = (0.5, 8.0)
SPHERES = 20


def sphere_statistics(volume: np.ndarray, voxel_mm: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation over the 30 mm sphere around every voxel, float64 [X, Y, Z].

    NaN where the sphere extends beyond the volume.
    """
    mean, square = (np.full(volume.shape, np.nan) for _ in range(2))
    reach = steps_within(SPHERE_MM / 2, voxel_mm)
    # Before the sphere is made: of fine voxels it takes gigabytes, however small the volume is.
    if any(2 * n + 1 > size for n, size in zip(reach, volume.shape, strict=True)):
        return mean, square
    sphere = ball(SPHERE_MM, voxel_mm)
    weights = sphere / sphere.sum()
    inside = tuple(slice(n, size - n) for n, size in zip(reach, volume.shape, strict=True))
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
    reach = steps_within(SPHERE_MM, voxel_mm)
    centres = []
    while len(free) and len(centres) < count:
        centres.append(np.unravel_index(free[0], mean.shape))
        _take(taken, centres[-1], reach, voxel_mm)
        free = free[~taken.ravel()[free]]
    return np.array(centres, int).reshape(-1, 3)


def _take(taken: np.ndarray, centre: Sequence[int], reach: Sequence[int], voxel_mm: Sequence[float]) -> None:
    """Marks the voxels nearer to the centre than a sphere's diameter. reach: in voxels along each axis."""
    box = tuple(slice(max(c - n, 0), c + n + 1) for c, n in zip(centre, reach, strict=True))
    near = taken[box]
    x, y, z = (
        ((np.arange(n) + side.start - c) * size) ** 2
        for n, side, c, size in zip(near.shape, box, centre, voxel_mm, strict=True)
    )
    near |= np.sqrt(x[:, None, None] + y[:, None] + z) < SPHERE_MM
