"""Foci, defined by a fixed rule: hot spots of a lesion's size, and which of them another volume lacks."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.ndimage import maximum_filter

from guided_diffusion.pet.spheres import ball, means_everywhere, sphere_kernel, steps_within
from guided_diffusion.pet.suv_peak import PEAK_SPHERE_ML

SHELL_MM = (30.0, 50.0)  # inner and outer diameter of the surroundings
LOWEST_BACKGROUND_SUV = 0.3
SMALLEST_PEAK_SUV = 1.0
CONTRAST = 2.0
STILL_THERE = 1.5
APART_MM = 10.0
FOUND_WITHIN_MM = 16.0  # diameter


@dataclass(frozen=True)
class Focus:
    """A local maximum: voxel index, SUVpeak, its contrast to the surroundings, and the other volume's nearby."""

    voxel: tuple[int, int, int]
    suv_peak: float
    contrast: float
    suv_peak_elsewhere: float
    contrast_elsewhere: float

    @property
    def is_lacking(self) -> bool:
        """Whether the other volume's contrast stays below 1.5 within 8 mm."""
        return self.contrast_elsewhere < STILL_THERE


@dataclass(frozen=True, eq=False)
class ContrastMap:
    """SUVpeak about every voxel and its ratio to the surroundings, float64 [X, Y, Z]; voxel sizes in mm."""

    peak: np.ndarray
    contrast: np.ndarray
    voxel_mm: tuple[float, float, float]

    @cached_property
    def places(self) -> tuple[tuple[int, int, int], ...]:
        """The voxels of the foci, hottest first: see `foci`. Found once, however many volumes are compared with."""
        reach = steps_within(APART_MM, self.voxel_mm)
        is_focus = (self.peak >= SMALLEST_PEAK_SUV) & (self.contrast >= CONTRAST)
        is_focus &= self.peak == maximum_filter(self.peak, [2 * n + 1 for n in reach])
        maxima = [tuple(map(int, voxel)) for voxel in np.argwhere(is_focus)]
        places: list[tuple[int, int, int]] = []
        for voxel in sorted(maxima, key=lambda voxel: -self.peak[voxel]):
            if not any((np.abs(np.subtract(voxel, place)) <= reach).all() for place in places):  # one for equal maxima
                places.append(voxel)
        return tuple(places)


def contrast_map(volume: np.ndarray, voxel_mm: Sequence[float]) -> ContrastMap:
    """SUVpeak (mean over 1 mL) about every voxel, and its ratio to the mean of a shell of 30 to 50 mm diameter.

    The highest within a lesion is what `suv_peak` gives. NaN, and so without foci, for a volume of fewer voxels than
    the cube around that shell: its surroundings would be its edge alone, in arrays without a bound for fine voxels.
    """
    if math.prod(2 * n + 1 for n in steps_within(SHELL_MM[1] / 2, voxel_mm)) > volume.size:
        return ContrastMap(*(np.full(volume.shape, np.nan) for _ in range(2)), tuple(voxel_mm))
    peak = means_everywhere(volume, sphere_kernel(PEAK_SPHERE_ML, voxel_mm))
    shell = ball(SHELL_MM[1], voxel_mm).astype(float)
    core = ball(SHELL_MM[0], voxel_mm)
    middle = tuple(slice((n - m) // 2, (n + m) // 2) for n, m in zip(shell.shape, core.shape, strict=True))
    shell[middle][core] = 0
    background = means_everywhere(volume, shell / shell.sum())
    return ContrastMap(peak, peak / np.maximum(background, LOWEST_BACKGROUND_SUV), tuple(voxel_mm))


def foci(own: ContrastMap, other: ContrastMap) -> list[Focus]:
    """The foci of a volume, hottest first, and what another volume on the same grid has within 8 mm of each.

    A focus is a maximum of SUVpeak within 10 mm in both directions along each axis, with an SUVpeak of at least 1 and
    at least twice the mean of its surroundings.
    """
    return [_focus(place, own, other) for place in own.places]


def _focus(voxel: tuple[int, int, int], own: ContrastMap, other: ContrastMap) -> Focus:
    near = surroundings(voxel, own.peak.shape, FOUND_WITHIN_MM, own.voxel_mm)
    return Focus(
        voxel,
        float(own.peak[voxel]),
        float(own.contrast[voxel]),
        float(other.peak[near].max()),
        float(other.contrast[near].max()),
    )


def surroundings(
    voxel: Sequence[int], shape: Sequence[int], diameter_mm: float, voxel_mm: Sequence[float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Indices of the voxels of a sphere about `voxel` that lie in a volume of this shape."""
    sphere = ball(diameter_mm, voxel_mm)
    places = np.argwhere(sphere) + np.asarray(voxel) - np.array(sphere.shape) // 2
    return tuple(places[((places >= 0) & (places < shape)).all(axis=1)].T)
