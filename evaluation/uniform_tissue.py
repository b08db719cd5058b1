"""Noise where a real scan shows uniform tissue: found by rule, measured, and added to stand for a lower dose."""

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import gaussian_filter

from evaluation.spheres import ball, means_inside

SPHERE_MM = 30.0
WARM_SUV = (0.5, 8.0)
SPHERES = 20
LOCAL_MEAN_MM = 10.0  # sigma of the activity that the added noise follows


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


def noise_sigmas(volume: np.ndarray, centres: np.ndarray, voxel_mm: Sequence[float]) -> tuple[float, ...]:
    """Sigma in voxels, per axis, of the Gaussian that makes white noise as correlated as that of the spheres.

    From squared differences d voxels apart along the axis. Noise filtered with sigma has the correlation q^(d^2) with
    q = exp(-1 / (4 sigma^2)), so those of d = 2 and 1 are as 1 - q^4 to 1 - q, or 1 + q + q^2 + q^3. Unlike the
    correlation itself, this needs no mean, which a sphere of few correlated voxels does not tell well. In spheres
    chosen for their uniformity among many of the same noise, sigma comes out a fifth too low.
    """
    sphere = ball(SPHERE_MM, voxel_mm)
    half = np.array(sphere.shape) // 2
    blocks = [volume[tuple(slice(c - h, c + h + 1) for c, h in zip(centre, half, strict=True))] for centre in centres]
    correlations = np.linspace(0.001, 0.999, 999)
    ratios = 1 + correlations + correlations**2 + correlations**3
    sigmas = []
    for axis in range(3):
        near, far = (_squared_difference(blocks, sphere, axis, distance) for distance in (1, 2))
        q = np.interp(far / near, ratios, correlations)
        sigmas.append(float(0.5 / np.sqrt(-np.log(q))))
    return tuple(sigmas)


def _squared_difference(blocks: Sequence[np.ndarray], sphere: np.ndarray, axis: int, distance: int) -> float:
    """Mean squared difference of voxels that lie `distance` apart along an axis, both in the sphere."""
    inside = np.moveaxis(sphere, axis, 0)
    both = inside[:-distance] & inside[distance:]
    lines = [np.moveaxis(block.astype(float), axis, 0) for block in blocks]
    return float(np.mean([((line[distance:] - line[:-distance])[both] ** 2).mean() for line in lines]))


def thin_by_noise(
    volume: np.ndarray, dose: float, cov: float, sigmas: Sequence[float], voxel_mm: Sequence[float], seed: int
) -> np.ndarray:
    """A volume [X, Y, Z] as if its dose were smaller: correlated noise added, negative values cut off; float32.

    A dose fraction p has 1/p of the variance, so 1/p - 1 of the volume's own is added. Its own noise is taken to be
    `cov` x the local activity (a Gaussian mean of sigma 10 mm), with the correlation that a Gaussian of `sigmas`
    (voxels) gives to white noise.
    """
    field = gaussian_filter(np.random.default_rng(seed).standard_normal(volume.shape), sigmas, mode="wrap")
    field /= field.std()
    activity = gaussian_filter(volume, [LOCAL_MEAN_MM / size for size in voxel_mm])
    noisy = volume + np.sqrt(1 / dose - 1) * cov * activity * field
    return np.maximum(noisy, 0).astype(np.float32)
