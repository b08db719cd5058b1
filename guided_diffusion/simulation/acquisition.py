"""From an activity map to the counts that a scanner would measure, and from thinned counts to images in SUV.

Model of the mean counts of a bin: calibration x exposure(z) x attenuation x (blurred projection of the activity) +
scatter + randoms. Scatter is a broad blur of the attenuated trues, scaled to the scanner's scatter fraction (less what
the blur carries out of the field); randoms are flat in each slice. Both are known exactly to the reconstruction, as if
estimated without noise. Decay during the scan, dead time and breathing are left out. A lower dose keeps each measured
count with the dose's probability, as list-mode data are rebinned to make a low dose; randoms then scale with the dose,
not with its square.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from guided_diffusion.pet.blur import FWHM_PER_SIGMA, gaussian_blur
from guided_diffusion.simulation.canvas import interpolate_along
from guided_diffusion.simulation.osem import osem
from guided_diffusion.simulation.projector import Geometry, Projector, gaussian_matrix
from guided_diffusion.simulation.scanner import Scanner
from guided_diffusion.simulation.tracers import Injection

DOSES = (1 / 2, 1 / 4, 1 / 10, 1 / 20, 1 / 50, 1 / 100)
"""Dose fractions of the public ultra-low-dose data, each a subset of the one before."""

F18_BRANCHING = 0.967
"""Positrons per decay of F-18, with which the NEMA sensitivity was measured."""

SCATTER_RADIAL_SIGMA_MM = 70.0
SCATTER_AXIAL_SIGMA_MM = 40.0
VIEWS = 144


@dataclass(frozen=True)
class Sinograms:
    """Counts and the known parts of their model; each list holds an array [views, bins, Z] per subset."""

    projector: Projector
    counts: list[np.ndarray]
    factors: list[np.ndarray]
    background: list[np.ndarray]

    def thinned(self, counts: list[np.ndarray], dose: float) -> "Sinograms":
        """The same scan with fewer counts: the model's mean shrinks by the dose."""
        share = np.float32(dose)
        return replace(
            self,
            counts=counts,
            factors=[f * share for f in self.factors],
            background=[b * share for b in self.background],
        )


def scan_geometry(shape: tuple[int, int, int], voxel_mm: float, scanner: Scanner) -> Geometry:
    """Views, subsets and bins for a volume [X, Y, Z] of cubic voxels: about 144 views, bins as wide as a voxel.

    The bins cover the circle inscribed in the longer side.
    """
    n_angles = scanner.subsets * round(VIEWS / scanner.subsets)
    return Geometry(shape[:2], voxel_mm, shape[2], voxel_mm, max(shape[:2]), voxel_mm, n_angles, scanner.subsets)


def image_geometry(geometry: Geometry, scanner: Scanner) -> Geometry:
    """The grid of the scanner's images: its own voxel size within a slice where that is coarser than `geometry`'s."""
    voxel_mm = max(geometry.voxel_mm, scanner.voxel_mm)
    nx, ny = (int(np.ceil(n * geometry.voxel_mm / voxel_mm)) for n in geometry.shape)
    return replace(geometry, shape=(nx, ny), voxel_mm=voxel_mm)


def counts_per_suv(injection: Injection, voxel_mm: float) -> float:
    """Decays per second in a voxel of SUV 1 at the time of the scan, in F-18 equivalents of positrons per decay.

    SUV = activity per ml / (injected activity at scan time / weight in g), with 1 g per ml.
    """
    becquerel_per_ml = injection.activity_bq_at_scan / (1000.0 * injection.weight_kg)
    return becquerel_per_ml * (voxel_mm / 10.0) ** 3 * injection.branching / F18_BRANCHING


def measure(
    activity: np.ndarray,
    attenuation: np.ndarray,
    voxel_mm: float,
    exposure: np.ndarray,
    scanner: Scanner,
    injection: Injection,
    rng: np.random.Generator,
) -> Sinograms:
    """Scan `activity` (SUV, [X, Y, Z]) behind `attenuation` (per cm, same grid) at normal dose.

    `exposure` [Z]: seconds x efficiency of each slice (`Scanner.exposure`). The measurement's projector is the one that
    the scanner's software would use: its own grid and resolution, without the positron range.
    """
    geometry = scan_geometry(activity.shape, voxel_mm, scanner)
    truth_projector = Projector(
        geometry,
        float(np.hypot(scanner.transaxial_fwhm_mm, injection.range_fwhm_mm)),
        float(np.hypot(scanner.axial_fwhm_mm, injection.range_fwhm_mm)),
    )
    per_bin = exposure * counts_per_suv(injection, voxel_mm) * scanner.tof_gain / geometry.n_angles
    per_bin = per_bin.astype(np.float32)
    subsets = range(geometry.n_subsets)
    density_per_mm = attenuation / np.float32(10.0)
    survival = [np.exp(-truth_projector.line_integrals(density_per_mm, s)) for s in subsets]
    trues = [survival[s] * truth_projector.forward(activity, s) for s in subsets]
    background = [b * per_bin for b in scatter_and_randoms(trues, geometry, scanner)]
    counts = [
        rng.poisson(np.asarray(trues[s] * per_bin + background[s], dtype=np.float64)).astype(np.float32)
        for s in subsets
    ]
    grid = image_geometry(geometry, scanner)
    per_voxel = per_bin * np.float32((grid.voxel_mm / voxel_mm) ** 2)
    projector = Projector(grid, scanner.transaxial_fwhm_mm, scanner.axial_fwhm_mm)
    return Sinograms(projector, counts, [a * per_voxel for a in survival], background)


def scatter_and_randoms(trues: Sequence[np.ndarray], geometry: Geometry, scanner: Scanner) -> list[np.ndarray]:
    """Scatter plus randoms per unit of exposure, one array [views, bins, Z] per subset."""
    radial = gaussian_matrix(geometry.n_bins, SCATTER_RADIAL_SIGMA_MM / geometry.bin_mm)
    axial = gaussian_matrix(geometry.n_slices, SCATTER_AXIAL_SIGMA_MM / geometry.slice_mm)
    scatter_ratio = np.float32(scanner.scatter_fraction / (1 - scanner.scatter_fraction))
    per_slice = sum(t.sum(axis=(0, 1), dtype=np.float64) for t in trues) / (geometry.n_angles * geometry.n_bins)
    randoms = (scanner.randoms_ratio * per_slice @ axial).astype(np.float32)
    return [np.matmul(radial, t @ axial) * scatter_ratio + randoms for t in trues]


def thin(counts: list[np.ndarray], rng: np.random.Generator) -> Iterator[tuple[float, list[np.ndarray]]]:
    """Yield (dose, counts) for every dose of DOSES, each a binomial subset of the dose before.

    All doses are always drawn, so that the counts of one do not depend on which others are wanted.
    """
    previous = 1.0
    for dose in DOSES:
        counts = [rng.binomial(c.astype(np.int64), dose / previous).astype(np.float32) for c in counts]
        yield dose, counts
        previous = dose


def reconstruct(measurement: Sinograms, scanner: Scanner, shape: tuple[int, int, int]) -> np.ndarray:
    """OSEM with the scanner's iterations and post-filter, on the volume's grid: float32 SUV `shape` [X, Y, Z]."""
    grid = measurement.projector.geometry
    image = osem(
        measurement.projector, measurement.counts, measurement.factors, measurement.background, scanner.iterations
    )
    sigma_mm = scanner.filter_fwhm_mm / FWHM_PER_SIGMA
    image = gaussian_blur(image, sigma_mm, (grid.voxel_mm, grid.voxel_mm, grid.slice_mm), mode="reflect")
    for axis, (size, own) in enumerate(zip(shape[:2], grid.shape, strict=True)):
        if own != size:
            centred = (np.arange(size) - (size - 1) / 2) * grid.slice_mm / grid.voxel_mm
            image = interpolate_along(image, axis, centred + (own - 1) / 2)
    return np.ascontiguousarray(image)
