"""Noise where a real scan shows uniform tissue: found by rule, measured, and added to stand for a lower dose."""

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.signal import fftconvolve

SPHERE_MM = 30.0
WARM_SUV = (0.5, 8.0)
SPHERES = 20
LOCAL_MEAN_MM = 10.0  # sigma of the activity that the added noise follows
CORRELATION_LIMITS = (0.01, 0.99)


def ball(diameter_mm: float, voxel_mm: Sequence[float]) -> np.ndarray:
    """Voxels whose centres lie within a sphere about the middle voxel: bool, odd sizes."""
    reach = [int(diameter_mm / 2 / size) for size in voxel_mm]
    x, y, z = (np.arange(-n, n + 1) * size for n, size in zip(reach, voxel_mm, strict=True))
    return np.hypot(np.hypot(x[:, None, None], y[:, None]), z) <= diameter_mm / 2


def sphere_statistics(volume: np.ndarray, voxel_mm: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation over the 30 mm sphere about every voxel, float64 [X, Y, Z].

    NaN where the sphere does not lie wholly inside the volume.
    """
    sphere = ball(SPHERE_MM, voxel_mm)
    weights = sphere / sphere.sum()
    inside = tuple(slice(n // 2, size - n // 2) for n, size in zip(sphere.shape, volume.shape, strict=True))
    mean, square = (np.full(volume.shape, np.nan) for _ in range(2))
    mean[inside] = fftconvolve(volume.astype(float), weights, mode="valid")
    square[inside] = fftconvolve(volume.astype(float) ** 2, weights, mode="valid")
    return mean, np.sqrt(np.maximum(square - mean**2, 0))


def is_warm(mean: np.ndarray) -> np.ndarray:
    """Spheres with a mean of SUV 0.5 to 8."""
    return (mean >= WARM_SUV[0]) & (mean <= WARM_SUV[1])


def most_uniform_spheres(
    mean: np.ndarray, deviation: np.ndarray, voxel_mm: Sequence[float], count: int = SPHERES
) -> np.ndarray:
    """Centres (voxel indices, int [n, 3]) of up to `count` warm spheres with the lowest COV, none touching another."""
    candidates = np.argwhere(is_warm(mean))
    order = np.argsort((deviation / mean)[tuple(candidates.T)], kind="stable")
    free = candidates[order]
    centres = []
    while len(free) and len(centres) < count:
        centres.append(free[0])
        free = free[np.linalg.norm((free - free[0]) * np.asarray(voxel_mm), axis=1) >= SPHERE_MM]
    return np.array(centres).reshape(-1, 3)


def noise_sigmas(volume: np.ndarray, centres: np.ndarray, voxel_mm: Sequence[float]) -> tuple[float, ...]:
    """Sigma in voxels, per axis, of the Gaussian that makes white noise as correlated as that of the spheres.

    From the correlation r of neighbours along the axis: noise filtered with sigma has exp(-d^2 / (4 sigma^2)) at a
    distance of d voxels (the filter's autocorrelation), so sigma = 1 / (2 sqrt(-ln r)).
    """
    sphere = ball(SPHERE_MM, voxel_mm)
    half = np.array(sphere.shape) // 2
    products, power = np.zeros(3), np.zeros(3)
    for centre in centres:
        block = volume[tuple(slice(c - h, c + h + 1) for c, h in zip(centre, half, strict=True))].astype(float)
        residual = block - block[sphere].mean()
        for axis in range(3):
            first, second = (np.moveaxis(array, axis, 0) for array in (residual, sphere))
            both = second[:-1] & second[1:]
            products[axis] += (first[:-1] * first[1:])[both].sum()
            power[axis] += (first[:-1] ** 2 + first[1:] ** 2)[both].sum() / 2
    correlation = np.clip(products / power, *CORRELATION_LIMITS)
    return tuple(float(sigma) for sigma in 0.5 / np.sqrt(-np.log(correlation)))


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
