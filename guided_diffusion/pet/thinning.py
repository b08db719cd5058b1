"""Simulates a lower dose by noise: measures the noise in a scan's uniform tissue and adds more of it.

Limits: noise of a lower dose is not only stronger but, in OSEM images, skewed and differently correlated; here it is
Gaussian, has the correlation of the scan's own noise, and is proportional to the local activity.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import gaussian_filter

from guided_diffusion.errors import InputError
from guided_diffusion.pet.blur import gaussian_blur
from guided_diffusion.pet.grid import Volume
from guided_diffusion.pet.spheres import ball
from guided_diffusion.pet.text import number_of, printable
from guided_diffusion.pet.uniform_tissue import SPHERE_MM, most_uniform_spheres, sphere_statistics

LOCAL_MEAN_MM = 10.0  # sigma of the activity that the added noise follows
CALIBRATIONS = 4


@dataclass(frozen=True)
class ScanNoise:
    """Of a scan's tissue: coefficient of variation, and sigma in voxels per axis of the Gaussian that gives white noise
    its correlation.
    """

    cov: float
    sigmas: tuple[float, ...]


def fraction_of(flag: str, text: str) -> float:
    """The dose fraction of a text such as 1/4.

    Raises InputError, with the name of the `flag`, unless it lies between 0 and 1.
    """
    dose = number_of(text)
    if not 0 < dose < 1:
        raise InputError(
            f"{flag} '{printable(text)}': give a fraction between 0 and 1, such as 1/4 or 0.25 (with a decimal point)"
        )
    return dose


def measure_noise(scan: Volume, name: object) -> ScanNoise:
    """The noise of a scan. Raises InputError, with the scan's `name`, where there is no uniform tissue.

    The most uniform spheres of a scan show too little noise, and of too short a correlation, because they are chosen.
    So noise of which all is known, over the scan's local means, is measured in the same way, and what is found in the
    scan is corrected by what that shows of it, `CALIBRATIONS` times.
    """
    found = noise = _apparent_noise(scan, name)
    activity = _local_activity(scan.data, scan.voxel_mm)
    for seed in range(CALIBRATIONS):
        known = activity * (1 + noise.cov * _unit_field(activity.shape, noise.sigmas, seed))
        shown = _apparent_noise(replace(scan, data=known.astype(np.float32)), name)
        sigmas = np.array(noise.sigmas) * found.sigmas / np.array(shown.sigmas)
        noise = ScanNoise(noise.cov * found.cov / shown.cov, tuple(sigmas.tolist()))
    return noise


def _apparent_noise(scan: Volume, name: object) -> ScanNoise:
    """What the most uniform spheres show: the median of their coefficients of variation, and their correlation."""
    mean, deviation = sphere_statistics(scan.data, scan.voxel_mm)
    centres = most_uniform_spheres(mean, deviation, scan.voxel_mm)
    if not len(centres):
        raise InputError(f"{name}: no sphere of 30 mm has a mean SUV of 0.5 to 8; is this a whole-body scan?")
    places = tuple(centres.T)
    return ScanNoise(
        float(np.median(deviation[places] / mean[places])), noise_sigmas(scan.data, centres, scan.voxel_mm)
    )


def thinned(scan: Volume, noise: ScanNoise, dose: float, seed: int | Sequence[int]) -> Volume:
    """A scan as if it had a share `dose` of its counts, see `thin_by_noise`. seed: names the noise."""
    data = thin_by_noise(scan.data, dose, noise.cov, noise.sigmas, scan.voxel_mm, seed)
    return replace(scan, data=data)


def noise_sigmas(volume: np.ndarray, centres: np.ndarray, voxel_mm: Sequence[float]) -> tuple[float, ...]:
    """Sigma in voxels, per axis, of the Gaussian that gives white noise the correlation of the noise in the spheres.

    It is computed from squared differences of voxels at distance d along the axis. Noise filtered with sigma has the
    correlation q^(d^2) with q = exp(-1 / (4 sigma^2)), so the squared differences for d = 2 and d = 1 have the ratio (1
    - q^4) / (1 - q) = 1 + q + q^2 + q^3. Unlike the correlation itself, this needs no mean, which a sphere of few
    correlated voxels does not give well. In spheres selected for their uniformity, sigma is underestimated by a fifth:
    see `measure_noise`.
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
    volume: np.ndarray,
    dose: float,
    cov: float,
    sigmas: Sequence[float],
    voxel_mm: Sequence[float],
    seed: int | Sequence[int],
) -> np.ndarray:
    """A volume [X, Y, Z] as if acquired at a lower dose: adds correlated noise and sets negative values to 0; float32.

    At a dose fraction p the variance is 1/p of the volume's own, so 1/p - 1 times its own variance is added. The
    standard deviation of its own noise is taken as `cov` x the local activity (a Gaussian mean with sigma 10 mm), its
    correlation as that of white noise filtered with a Gaussian of `sigmas` (voxels).
    """
    added = cov * _local_activity(volume, voxel_mm) * _unit_field(volume.shape, sigmas, seed)
    return np.maximum(volume + np.sqrt(1 / dose - 1) * added, 0).astype(np.float32)


def _local_activity(volume: np.ndarray, voxel_mm: Sequence[float]) -> np.ndarray:
    return gaussian_blur(volume, LOCAL_MEAN_MM, voxel_mm, mode="reflect")


def _unit_field(shape: Sequence[int], sigmas: Sequence[float], seed: int | Sequence[int]) -> np.ndarray:
    """White noise filtered with a Gaussian of `sigmas` (voxels), of standard deviation 1."""
    field = gaussian_filter(np.random.default_rng(seed).standard_normal(shape), sigmas, mode="wrap")
    return field / field.std()
