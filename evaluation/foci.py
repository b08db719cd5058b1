"""Foci by rule: where a volume has a hot spot of a lesion's size, and which of them another volume lacks."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import maximum_filter

from evaluation.spheres import ball, means_everywhere, sphere_kernel
from evaluation.uptake import PEAK_SPHERE_ML

SHELL_MM = (30.0, 50.0)  # inner and outer diameter of the surroundings
LOWEST_BACKGROUND_SUV = 0.3
SMALLEST_PEAK_SUV = 1.0
CONTRAST = 2.0
STILL_THERE = 1.5
APART_MM = 10.0
FOUND_WITHIN_MM = 16.0  # diameter


@dataclass(frozen=True)
class Focus:
    """A local maximum: voxel index, SUVpeak, its contrast to the surroundings, and the other volume's there."""

    voxel: tuple[int, int, int]
    suv_peak: float
    contrast: float
    contrast_elsewhere: float


def contrast_map(volume: np.ndarray, voxel_mm: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """SUVpeak (mean over 1 mL) about every voxel, and its ratio to the mean of a shell of 30 to 50 mm diameter."""
    peak = means_everywhere(volume, sphere_kernel(PEAK_SPHERE_ML, voxel_mm))
    shell = ball(SHELL_MM[1], voxel_mm).astype(float)
    core = ball(SHELL_MM[0], voxel_mm)
    middle = tuple(slice((n - m) // 2, (n + m) // 2) for n, m in zip(shell.shape, core.shape, strict=True))
    shell[middle][core] = 0
    background = means_everywhere(volume, shell / shell.sum())
    return peak, peak / np.maximum(background, LOWEST_BACKGROUND_SUV)


def lacking(volume: np.ndarray, other: np.ndarray, voxel_mm: Sequence[float]) -> tuple[list[Focus], int]:
    """The foci of `volume` that `other` lacks, hottest first, and how many foci `volume` has.

    A focus is a maximum of SUVpeak within 10 mm either way along each axis, of SUV 1 and twice its surroundings or
    more. `other` lacks it where its contrast stays below 1.5 within 8 mm. Volumes [X, Y, Z] in SUV on one grid.
    """
    peak, contrast = contrast_map(volume, voxel_mm)
    _, contrast_of_other = contrast_map(other, voxel_mm)
    box = [2 * int(APART_MM / size) + 1 for size in voxel_mm]
    is_focus = (peak == maximum_filter(peak, box)) & (peak >= SMALLEST_PEAK_SUV) & (contrast >= CONTRAST)
    best_of_other = maximum_filter(contrast_of_other, footprint=ball(FOUND_WITHIN_MM, voxel_mm))
    foci = [
        Focus(tuple(map(int, voxel)), float(peak[tuple(voxel)]), float(contrast[tuple(voxel)]),
              float(best_of_other[tuple(voxel)]))
        for voxel in np.argwhere(is_focus)
    ]  # fmt: skip
    lost = [focus for focus in foci if focus.contrast_elsewhere < STILL_THERE]
    return sorted(lost, key=lambda focus: -focus.suv_peak), len(foci)
