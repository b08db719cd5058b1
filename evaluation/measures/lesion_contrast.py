"""Contrast of lesions: contrast-to-noise ratio, and how much of the contrast an image keeps."""

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import distance_transform_edt, find_objects

SURROUNDINGS_MM = (8.0, 16.0)
SMALLEST_SURROUNDINGS_ML = 1.0
SMALLEST_CONTRAST = 0.5


def contrast_to_noise(image: np.ndarray, lesion: np.ndarray, background: np.ndarray) -> float:
    """(SUVmean of the lesion - SUVmean of the background) / standard deviation of the background's voxels.

    lesion, background: bool [X, Y, Z]; the background is a sphere of 3 cm in the liver, as is usual for whole-body PET
    (PERCIST measures the liver there; doi:10.1186/s40658-019-0264-9 its noise). NaN if the background is constant.
    """
    around = image[background].astype(float)
    noise = around.std()
    return float((image[lesion].mean(dtype=float) - around.mean()) / noise) if noise else np.nan


def surroundings_of(lesion: np.ndarray, tissue: np.ndarray, voxel_mm: Sequence[float]) -> np.ndarray:
    """Voxels of `tissue` at 8 to 16 mm from a lesion (all bool [X, Y, Z]); none if they are less than 1 mL.

    Nearer voxels contain spill-out from the lesion: scanners resolve 4 to 8 mm.
    """
    around = np.zeros_like(lesion)
    (box,) = find_objects(lesion.astype(np.uint8))
    reach = [int(np.ceil(SURROUNDINGS_MM[1] / size)) for size in voxel_mm]
    wide = tuple(slice(max(side.start - n, 0), side.stop + n) for side, n in zip(box, reach, strict=True))
    distance = distance_transform_edt(~lesion[wide], sampling=voxel_mm)
    around[wide] = tissue[wide] & (distance >= SURROUNDINGS_MM[0]) & (distance <= SURROUNDINGS_MM[1])
    too_small = around.sum() * np.prod(voxel_mm) / 1000 < SMALLEST_SURROUNDINGS_ML
    return np.zeros_like(lesion) if too_small else around


def contrast_recovery(image: np.ndarray, reference: np.ndarray, lesion: np.ndarray, surroundings: np.ndarray) -> float:
    """Contrast of a lesion in an image, in per cent of its contrast in the reference; 100: fully preserved.

    Contrast is the mean of the lesion over that of its surroundings, minus one, as in NEMA NU 2, with a measured
    reference instead of the filled activity ratio. NaN if the contrast of the reference is below 0.5, where the ratio
    is mostly noise.
    """

    def contrast(volume: np.ndarray) -> float:
        around = volume[surroundings].mean(dtype=float)
        return volume[lesion].mean(dtype=float) / around - 1 if around > 0 else np.nan

    own, expected = contrast(image), contrast(reference)
    return float(100 * own / expected) if expected >= SMALLEST_CONTRAST else np.nan
