"""Where organs and lesions are measured, their uptake, and its bias."""

from collections.abc import Sequence

import numpy as np

from evaluation.measures.organ_depth import depth_mm
from guided_diffusion.simulation.body_phantom import FIRST_LESION_LABEL

ORGAN_DEPTH_MM = 8.0
SMALLEST_ORGAN_ML = 5.0
SMALLEST_LESION_MM = 10.0
ISOCONTOUR = 0.41


def lesions_over(labels: np.ndarray, voxel_mm: Sequence[float], diameter_mm: float) -> dict[int, float]:
    """Lesions whose labelled volume is that of a sphere over `diameter_mm`: label -> that diameter in mm."""
    values, counts = np.unique(labels[labels >= FIRST_LESION_LABEL], return_counts=True)
    diameters = (6 / np.pi * counts * np.prod(voxel_mm)) ** (1 / 3)
    return {int(value): float(size) for value, size in zip(values, diameters, strict=True) if size > diameter_mm}


def organ_core(organ: np.ndarray, voxel_mm: Sequence[float]) -> np.ndarray:
    """Voxels of an organ (bool [X, Y, Z]) more than 8 mm from the centre of any outside, largely free of spill-in.

    Empty if less than 5 mL remain. The organ ends at the border of the volume.
    """
    box, depth = depth_mm(organ, voxel_mm)
    core = np.zeros_like(organ)
    core[box] = depth > ORGAN_DEPTH_MM
    too_small = core.sum() * np.prod(voxel_mm) / 1000 < SMALLEST_ORGAN_ML
    return np.zeros_like(core) if too_small else core


def total_uptake(image: np.ndarray, lesion: np.ndarray, voxel_mm: Sequence[float]) -> float:
    """Total lesion uptake in SUV mL: volume times SUVmean of the lesion's voxels with at least 41 % of its SUVmax.

    For FDG this is total lesion glycolysis, with the contour of the EANM procedure guidelines (Boellaard et al., Eur J
    Nucl Med Mol Imaging 42:328, 2015). image: [X, Y, Z] in SUV. lesion: bool [X, Y, Z] with at least one voxel.
    """
    values = image[lesion].astype(float)
    return float(values[values >= ISOCONTOUR * values.max()].sum() * np.prod(voxel_mm) / 1000)


def bias_percent(value: float, reference: float) -> float:
    """Difference of a value from its reference, in per cent of the reference."""
    return 100 * (value / reference - 1)
