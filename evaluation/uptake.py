"""Values that are read from a PET image: the core of an organ, lesions by their size, and the bias of a value."""

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import distance_transform_edt

from guided_diffusion.simulation.body_phantom import FIRST_LESION_LABEL

ORGAN_DEPTH_MM = 8.0
SMALLEST_ORGAN_ML = 5.0
SMALLEST_LESION_MM = 10.0


def lesions_over(labels: np.ndarray, voxel_mm: Sequence[float], diameter_mm: float) -> dict[int, float]:
    """Lesions whose labelled volume is that of a sphere over `diameter_mm`: label -> that diameter in mm."""
    values, counts = np.unique(labels[labels >= FIRST_LESION_LABEL], return_counts=True)
    diameters = (6 / np.pi * counts * np.prod(voxel_mm)) ** (1 / 3)
    return {int(value): float(size) for value, size in zip(values, diameters, strict=True) if size > diameter_mm}


def organ_core(labels: np.ndarray, label: int, voxel_mm: Sequence[float]) -> np.ndarray:
    """Voxels of an organ deeper than 8 mm below its surface (bool [X, Y, Z]), which its neighbours hardly reach.

    Empty where less than 5 mL remain. Lesions have labels of their own and count as neighbours.
    """
    core = distance_transform_edt(np.pad(labels == label, 1), sampling=voxel_mm)[1:-1, 1:-1, 1:-1] > ORGAN_DEPTH_MM
    too_small = core.sum() * np.prod(voxel_mm) / 1000 < SMALLEST_ORGAN_ML
    return np.zeros_like(core) if too_small else core


def bias_percent(value: float, reference: float) -> float:
    """Difference of a value from its reference, in per cent of the reference."""
    return 100 * (value / reference - 1)
