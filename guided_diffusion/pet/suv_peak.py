"""SUVpeak: the highest mean over a sphere of 1 mL (Wahl et al., PERCIST 1.0, J Nucl Med 50 Suppl 1:122S, 2009)."""

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import convolve, find_objects

from guided_diffusion.pet.spheres import sphere_kernel

PEAK_SPHERE_ML = 1.0


def suv_peak(volume: np.ndarray, lesion: np.ndarray, voxel_mm: Sequence[float]) -> float:
    """SUVpeak: the highest mean over a sphere of 1 mL centred on a voxel of the lesion.

    volume: [X, Y, Z] in SUV, extended by its edge values. lesion: bool [X, Y, Z] with at least one voxel.
    """
    # Around the lesion only: the means everywhere, which `foci.contrast_map` needs, take many times longer.
    kernel = sphere_kernel(PEAK_SPHERE_ML, voxel_mm)
    (box,) = find_objects(lesion.astype(np.uint8))
    wide = tuple(
        slice(max(side.start - n // 2, 0), side.stop + n // 2) for side, n in zip(box, kernel.shape, strict=True)
    )
    means = convolve(volume[wide].astype(float), kernel, mode="nearest")
    return float(means[lesion[wide]].max())
