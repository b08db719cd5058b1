"""Small hot objects of a denoised image, made as hot as the scan shows them where the image has them flatter.

A regression answers with the mean of what an image may be. Where an object of a lesion's size is hot but faint in the
noise, that mean is flatter than the object: it may also not be there. Once it stands out in the answer, how hot it is
can be read off the scan: the least squares fit of what was selected, without the shrinkage of the selection (Belloni &
Chernozhukov, Bernoulli 19:521, 2013).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy.ndimage import maximum_filter

from guided_diffusion.pet.blur import FWHM_PER_SIGMA, gaussian_blur
from guided_diffusion.pet.noise_size import noise_size

# Between scanners' resolutions and lesions' sizes; results change little from 8 and 12.5 mm to 12 and 17.5 mm.
SMOOTHING_FWHM_MM = 10.0
SURROUNDINGS_MM = 15.0  # radius
# An object is fitted within the first radius with full weight, and with none beyond the second.
OBJECT_MM = (10.0, 18.0)
# Maxima are compared within this distance along each axis.
APART_MM = 6.0
NOISE_WINDOW_MM = 60.0
# An object's contrast over its noise from which it is fitted, and from which it is fitted in full.
STANDS_OUT = (1.0, 2.0)
# An edge or a vessel is as hot as its surroundings in some direction. The same for an object's contrast to its hottest
# direction over its contrast to all of them.
ALL_ROUND = (0.4, 0.6)
# An object becomes at most twice as high. None is lowered: low counts leave hot spots of the scan itself too low.
LARGEST_GAIN = 1.0


@dataclass(frozen=True)
class SmallObject:
    """A maximum of an image. place: its voxel. base: the SUV above which its height counts. gain: what is missing of
    its height, over that height. error: roughly the standard error of that: of the contrast at the maximum alone, which
    is too much for objects that are larger than the smoothing. Gain and error of one that hardly stands out are less.
    """

    place: tuple[int, ...]
    base: float
    gain: float
    error: float


class Restoration:
    """What an image lacks of the heights of its objects.

    Objects that overlap were fitted to the same voxels: each voxel is left to the one by which it changes most, or to
    the nearest where it does not change.
    """

    def __init__(self, image: np.ndarray, objects: Sequence[SmallObject], voxel_mm: Sequence[float]):
        self.objects = objects
        self._height = np.zeros(image.shape, np.float32)
        self._owner = np.zeros(image.shape, np.int32)
        largest = np.full(image.shape, -1, np.float32)
        for number, one in enumerate(objects):
            box, inside = _around(one.place, image.shape, voxel_mm)
            height = inside * np.maximum(image[box] - np.float32(one.base), 0)
            claim = np.float32(one.gain) * height + np.float32(1e-6) * inside
            owned = claim > largest[box]
            for whole, part in ((largest, claim), (self._height, height), (self._owner, number)):
                np.copyto(whole[box], part, where=owned)

    def lacking(self, deviates: Sequence[float] | None = None) -> np.ndarray:
        """What is to be added, [X, Y, Z] in SUV, float32.

        deviates: of a standard normal distribution, one per object: by how many of its errors its gain is wrong. None
        takes the gains as they are. No object is lowered below its base.
        """
        if not self.objects:
            return self._height
        deviates = [0.0] * len(self.objects) if deviates is None else deviates
        gains = [max(one.gain + one.error * off, -1.0) for one, off in zip(self.objects, deviates, strict=True)]
        return np.array(gains, np.float32)[self._owner] * self._height


def small_objects(image: np.ndarray, scan: np.ndarray, voxel_mm: Sequence[float]) -> list[SmallObject]:
    """The small hot objects of an image: maxima that stand out from all around them by more than the noise.

    image, scan: [X, Y, Z] in SUV; voxel_mm: along these axes. Noise is what the image took from the scan. How high the
    scan has an object is a least squares fit. Voxels as large as its surroundings show none.
    """
    if max(voxel_mm) > SURROUNDINGS_MM:
        return []
    sigma = SMOOTHING_FWHM_MM / FWHM_PER_SIGMA
    smooth = gaussian_blur(image.astype(np.float32), sigma, voxel_mm)
    removed = gaussian_blur((scan - image).astype(np.float32), sigma, voxel_mm)
    contrast, to_hottest = _contrasts(smooth, voxel_mm)
    noise = noise_size(_contrasts(removed, voxel_mm)[0], image, voxel_mm, NOISE_WINDOW_MM)
    near = [2 * round(APART_MM / size) + 1 for size in voxel_mm]
    is_maximum = (contrast > 0) & (contrast == maximum_filter(contrast, near))
    found = []
    for place in map(tuple, np.argwhere(is_maximum)):
        weight = _rise(contrast[place], STANDS_OUT, noise[place]) * _rise(to_hottest[place], ALL_ROUND, contrast[place])
        if weight > 0:
            base = smooth[place] - to_hottest[place]
            box, inside = _around(place, image.shape, voxel_mm)
            gain = _fitted(np.maximum(smooth[box] - base, 0), removed[box], inside)
            gain = float(np.clip(gain, 0, LARGEST_GAIN))
            found.append(SmallObject(place, float(base), weight * gain, weight * float(noise[place] / contrast[place])))
    return found


def _contrasts(image: np.ndarray, voxel_mm: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Of every voxel, [X, Y, Z]: what it has over the mean of its surroundings, and over their hottest direction.

    Surroundings are points on a sphere, two by two opposite each other; a direction is the mean of two. Beyond the
    volume its edge goes on.
    """
    steps = _directions(voxel_mm)
    reach = np.abs(steps).max(axis=0)
    padded = np.pad(image, [(n, n) for n in reach], mode="edge")

    def moved(step: np.ndarray) -> np.ndarray:
        return padded[tuple(slice(n + s, n + s + size) for n, s, size in zip(reach, step, image.shape, strict=True))]

    total, hottest = np.zeros_like(image), np.full_like(image, -np.inf)
    for step in steps:
        direction = 0.5 * (moved(step) + moved(-step))
        total += direction
        np.maximum(hottest, direction, out=hottest)
    return image - total / np.float32(len(steps)), image - hottest


def _directions(voxel_mm: Sequence[float]) -> np.ndarray:
    """Steps in voxels, int [n, 3], to points on the sphere: one of each two that lie opposite each other."""
    halves = np.array([step for step in product((-1, 0, 1), repeat=3) if step > (0, 0, 0)])
    unit = halves / np.linalg.norm(halves, axis=1, keepdims=True)
    steps = np.unique(np.round(SURROUNDINGS_MM * unit / np.asarray(voxel_mm)).astype(int), axis=0)
    return steps[steps.any(axis=1)]


def _rise(value: float, limits: tuple[float, float], unit: float) -> float:
    """From 0 at the first of the limits to 1 at the second, which are in this unit."""
    return float(np.interp(value, np.multiply(limits, unit), (0.0, 1.0)))


def _around(
    place: tuple[int, ...], shape: Sequence[int], voxel_mm: Sequence[float]
) -> tuple[tuple[slice, ...], np.ndarray]:
    """The box about an object, and how far its voxels belong to the object, 1 to 0."""
    inner, outer = OBJECT_MM
    reach = [int(outer / size) for size in voxel_mm]
    box = tuple(slice(max(c - n, 0), min(c + n + 1, size)) for c, n, size in zip(place, reach, shape, strict=True))
    x, y, z = (
        (np.arange(part.start, part.stop) - c) * size for part, c, size in zip(box, place, voxel_mm, strict=True)
    )
    distance = np.sqrt(x[:, None, None] ** 2 + y[:, None] ** 2 + z**2)
    return box, np.clip((outer - distance) / (outer - inner), 0, 1).astype(np.float32)


def _fitted(height: np.ndarray, removed: np.ndarray, inside: np.ndarray) -> float:
    """How many times an object's height was taken away, by weighted least squares with a constant besides."""
    weights = inside / inside.sum()
    shape = height * inside
    shape = shape - (weights * shape).sum()
    squares = (weights * shape * shape).sum()
    return float((weights * shape * removed).sum() / squares) if squares > 0 else 0.0
