"""Random scanners and reconstructions within the published ranges of acquisitions.csv, and held-out families."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from guided_diffusion.simulation.scanner import Scanner
from guided_diffusion.simulation.table_rows import rows

SUBSETS = (4, 6, 8, 9, 12, 16, 18, 24, 36)
"""Numbers of subsets that divide the views."""
MOST_ITERATIONS = 12
LONG_FOV_MM = 500.0

NO_TOF_SHARE, NO_FILTER_SHARE, PSF_SHARE = 1 / 3, 1 / 4, 1 / 2
NO_TOF_PS = 1e6
"""A timing so poor that it gains nothing."""

AXIAL_KERNELS = {
    "none": (0.0, 1.0, 0.0),
    "light": (1 / 8, 6 / 8, 1 / 8),
    "standard": (1 / 6, 4 / 6, 1 / 6),
    "heavy": (1 / 4, 2 / 4, 1 / 4),
}
"""Weights of three neighbouring slices, as GE offers them; `gaussian` filters the axis as the plane instead."""


@dataclass(frozen=True)
class Range:
    """Limits of one quantity and whether it is drawn evenly in itself or in its logarithm."""

    low: float
    high: float
    scale: str

    def draw(self, rng: np.random.Generator) -> float:
        if self.scale == "log":
            return float(np.exp(rng.uniform(np.log(self.low), np.log(self.high))))
        return float(rng.uniform(self.low, self.high))


@dataclass(frozen=True)
class Reconstruction:
    """Settings of a reconstruction: voxel size, number of OSEM updates, resolution modelling, and post-filter.

    filter_fwhm_mm: within slices, 0 for none. axial_kernel: a name of AXIAL_KERNELS or `gaussian`.
    """

    voxel_mm: float
    subsets: int
    iterations: int
    models_resolution: bool
    filter_fwhm_mm: float
    axial_kernel: str

    @property
    def updates(self) -> int:
        return self.subsets * self.iterations


@dataclass(frozen=True)
class Acquisition:
    """A scanner with its slices and bins (mm), and the reconstructions of its data."""

    scanner: Scanner
    slice_mm: float
    bin_mm: float
    reconstructions: tuple[Reconstruction, ...]


def load_ranges() -> dict[str, Range]:
    """Every quantity of acquisitions.csv by name."""
    return {row["quantity"]: Range(float(row["low"]), float(row["high"]), row["scale"]) for row in rows("acquisitions")}


def _sharp(made: Reconstruction) -> bool:
    return made.updates >= 150 and made.filter_fwhm_mm <= 3


def _smooth(made: Reconstruction) -> bool:
    return made.updates <= 40 and made.filter_fwhm_mm >= 6


def _coarse(made: Reconstruction) -> bool:
    return made.voxel_mm >= 4.8


def _fine(made: Reconstruction) -> bool:
    return made.voxel_mm <= 2.0 and made.filter_fwhm_mm == 0


HELD_OUT: dict[str, Callable[[Reconstruction], bool]] = {
    "sharp": _sharp,
    "smooth": _smooth,
    "coarse": _coarse,
    "fine": _fine,
}
"""Families of reconstructions that `random` never draws, so that weights trained on it can be tested on them: many
updates and little filter; few updates and much filter; voxels of 4.8 mm and more; small voxels without filter."""

RANDOM = "random"
SPHERES = "random-spheres"
"""As `random`, but what is scanned is no patient: a warm column with many small hot spheres."""
RANDOM_SCANNERS = (RANDOM, SPHERES, *(f"held-out-{name}" for name in HELD_OUT))
"""Values of `scripts/simulate.py --scanners` besides the scanners of scanners.csv."""


def is_held_out(made: Reconstruction) -> bool:
    """Whether a reconstruction belongs to a group that no training uses."""
    return any(belongs(made) for belongs in HELD_OUT.values())


def draw_acquisition(kind: str, count: int, rng: np.random.Generator) -> Acquisition:
    """A scanner and `count` reconstructions, none of a held-out family; with `held-out-NAME`, all of that family.

    They are drawn in pairs that share an OSEM run: the second is its image after half of the iterations, with another
    filter. Of a pair, only those that `kind` admits are taken, so that one may stand alone.
    """
    ranges = load_ranges()
    if kind in (RANDOM, SPHERES):
        fits = lambda made: not is_held_out(made)  # noqa: E731
    else:
        fits = HELD_OUT[kind.removeprefix("held-out-")]
    made: list[Reconstruction] = []
    while len(made) < count:
        first = _draw_reconstruction(ranges, rng)
        filter_mm, kernel = _draw_filter(ranges, rng)
        second = Reconstruction(
            first.voxel_mm, first.subsets, max(1, first.iterations // 2), first.models_resolution, filter_mm, kernel
        )
        made += [one for one in (first, second) if fits(one)]
    return Acquisition(
        _draw_scanner(ranges, rng), ranges["slice_mm"].draw(rng), ranges["bin_mm"].draw(rng), tuple(made[:count])
    )


def _draw_reconstruction(ranges: dict[str, Range], rng: np.random.Generator) -> Reconstruction:
    updates = ranges["updates"].draw(rng)
    possible = [n for n in SUBSETS if n <= updates <= MOST_ITERATIONS * n]
    subsets = int(rng.choice(possible))
    filter_mm, kernel = _draw_filter(ranges, rng)
    return Reconstruction(
        ranges["voxel_mm"].draw(rng),
        subsets,
        round(updates / subsets),
        bool(rng.random() < PSF_SHARE),
        filter_mm,
        kernel,
    )


def _draw_filter(ranges: dict[str, Range], rng: np.random.Generator) -> tuple[float, str]:
    filter_mm = 0.0 if rng.random() < NO_FILTER_SHARE else ranges["filter_fwhm_mm"].draw(rng)
    kernels = [*AXIAL_KERNELS, *["gaussian"] * (len(AXIAL_KERNELS) if filter_mm else 0)]
    return filter_mm, str(rng.choice(kernels))


def _draw_scanner(ranges: dict[str, Range], rng: np.random.Generator) -> Scanner:
    """A scanner whose beds overlap by a quarter to a half; a long one does not accept all its ring differences."""
    axial_fov_mm = ranges["axial_fov_mm"].draw(rng)
    return Scanner(
        name=RANDOM,
        title="drawn at random",
        axial_fov_mm=axial_fov_mm,
        ramp_mm=axial_fov_mm * (rng.uniform(0.12, 0.35) if axial_fov_mm > LONG_FOV_MM else 0.5),
        sensitivity_cps_per_kbq=axial_fov_mm * ranges["sensitivity_cps_per_kbq_per_mm"].draw(rng),
        transaxial_fwhm_mm=ranges["transaxial_fwhm_mm"].draw(rng),
        axial_fwhm_mm=ranges["axial_fwhm_mm"].draw(rng),
        tof_ps=NO_TOF_PS if rng.random() < NO_TOF_SHARE else ranges["tof_ps"].draw(rng),
        scatter_fraction=ranges["scatter_fraction"].draw(rng),
        randoms_ratio=ranges["randoms_ratio"].draw(rng),
        voxel_mm=0.0,
        slice_mm=0.0,
        iterations=0,
        subsets=0,
        filter_fwhm_mm=0.0,
        bed_minutes=ranges["bed_minutes"].draw(rng) * ranges["count_factor"].draw(rng),
        bed_overlap=rng.uniform(0.24, 0.5),
        source="acquisitions.csv",
    )
