"""Effects of denoising on a scan, by fixed rules: noise and means in uniform tissue, foci kept, lost and new."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from guided_diffusion.pet.foci import FOUND_WITHIN_MM, Focus, contrast_map, foci, surroundings
from guided_diffusion.pet.grid import Volume
from guided_diffusion.pet.spheres import means_everywhere, sphere_kernel
from guided_diffusion.pet.suv_peak import PEAK_SPHERE_ML
from guided_diffusion.pet.uniform_tissue import is_warm, most_uniform_spheres, sphere_statistics

QUANTILES = (5, 50, 95)


@dataclass(frozen=True)
class UniformSphere:
    """A sphere of 30 mm in uniform tissue: centre (voxel index), mean in SUV and COV in per cent, before and after."""

    voxel: tuple[int, int, int]
    mean_before: float
    mean_after: float
    cov_before: float
    cov_after: float

    @property
    def change_percent(self) -> float:
        """Change of the mean in per cent."""
        return 100 * (self.mean_after / self.mean_before - 1)


@dataclass(frozen=True, eq=False)
class Findings:
    """Differences between a scan and its denoised image.

    spheres: the most uniform ones of the scan. change_of_warm: 5th, 50th and 95th percentile of the change in per cent
    of the means of all warm spheres; empty if there are none. before, after: the foci of the scan and of the result.
    """

    spheres: list[UniformSphere]
    change_of_warm: tuple[float, ...]
    before: list[Focus]
    after: list[Focus]

    @cached_property
    def lost(self) -> list[Focus]:
        """Foci of the scan that the result lacks."""
        return [focus for focus in self.before if focus.is_lacking]

    @cached_property
    def new(self) -> list[Focus]:
        """Foci of the result that the scan lacks."""
        return [focus for focus in self.after if focus.is_lacking]

    @property
    def median_cov(self) -> tuple[float, float]:
        """Median COV of the spheres in per cent before and after; NaN if there are none."""
        pairs = [(sphere.cov_before, sphere.cov_after) for sphere in self.spheres] or [(np.nan, np.nan)]
        before, after = np.median(pairs, axis=0)
        return float(before), float(after)

    @property
    def largest_change(self) -> float:
        """The largest change of a sphere's mean in per cent, with its sign; NaN where there are no spheres."""
        return max((sphere.change_percent for sphere in self.spheres), key=abs, default=float("nan"))


def find(scan: Volume, denoised: Volume) -> Findings:
    """Compare a scan with its denoised image, on one grid, in SUV."""
    voxel_mm = scan.voxel_mm
    mean, deviation = sphere_statistics(scan.data, voxel_mm)
    mean_after, deviation_after = sphere_statistics(denoised.data, voxel_mm)
    spheres = [
        UniformSphere(
            tuple(map(int, centre)),
            float(mean[centre]),
            float(mean_after[centre]),
            100 * float(deviation[centre] / mean[centre]),
            100 * float(deviation_after[centre] / mean_after[centre]),
        )
        for centre in map(tuple, most_uniform_spheres(mean, deviation, voxel_mm))
    ]
    warm = is_warm(mean)
    change = 100 * (mean_after[warm] / mean[warm] - 1)
    quantiles = tuple(np.percentile(change, QUANTILES).tolist()) if change.size else ()
    del mean, deviation, mean_after, deviation_after, change, warm  # a whole body takes gigabytes
    own, other = contrast_map(scan.data, voxel_mm), contrast_map(denoised.data, voxel_mm)
    return Findings(spheres, quantiles, foci(own, other), foci(other, own))


def foci_of(scan: Volume) -> list[tuple[int, int, int]]:
    """Voxel indices of the foci of a scan in SUV, in the order of `Findings.before`."""
    return list(contrast_map(scan.data, scan.voxel_mm).places)


def peaks_near(volume: np.ndarray, places: Sequence[Sequence[int]], voxel_mm: Sequence[float]) -> np.ndarray:
    """SUVpeak of a volume [X, Y, Z] within 8 mm of each place (voxel index); float64 [places]."""
    peaks = np.empty(len(places))
    if not len(places):
        return peaks
    kernel = sphere_kernel(PEAK_SPHERE_ML, voxel_mm)
    for number, place in enumerate(places):
        near = np.array(surroundings(place, volume.shape, FOUND_WITHIN_MM, voxel_mm))
        margin = np.array(kernel.shape) // 2
        low = np.maximum(near.min(axis=1) - margin, 0)
        high = near.max(axis=1) + margin + 1
        block = volume[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
        peaks[number] = means_everywhere(block, kernel)[tuple(near - low[:, None])].max()
    return peaks
