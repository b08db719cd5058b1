"""Scans on a scanner's own grid, with its own bins, slices and voxels, and several reconstructions of one measurement.

Counts are modelled as in `acquisition`; the patient is given on fine cubic voxels, which are averaged axially over the
scanner's slices.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from guided_diffusion.pet.grid import Volume
from guided_diffusion.simulation.acquisition import VIEWS, Sinograms, counts_per_suv, scatter_and_randoms
from guided_diffusion.simulation.body_phantom import Phantom
from guided_diffusion.simulation.canvas import Grid
from guided_diffusion.simulation.osem import osem_iterates
from guided_diffusion.simulation.projector import FWHM_PER_SIGMA, Geometry, Projector
from guided_diffusion.simulation.random_acquisition import AXIAL_KERNELS, Acquisition, Reconstruction
from guided_diffusion.simulation.tracers import Injection


@dataclass(frozen=True)
class RawData:
    """Sinograms [views, bins, slices] of a normal-dose scan, and the corrections known to the reconstruction.

    mean: expected counts without noise. counts: measured counts. survival: fraction of photons that are not attenuated.
    background: scatter and randoms. per_bin: counts per view in a slice of each fine voxel of SUV 1, [slices].
    """

    grid: Grid
    acquisition: Acquisition
    mean: np.ndarray
    counts: np.ndarray
    survival: np.ndarray
    background: np.ndarray
    per_bin: np.ndarray


def native_slices(grid: Grid, slice_mm: float) -> int:
    """Number of a scanner's slices that fit into a patient's grid, the first beginning with it."""
    return int(grid.shape[2] * grid.voxel_mm / slice_mm)


def overlap_weights(fine: int, fine_mm: float, count: int, coarse_mm: float, margin_mm: float = 0.0) -> np.ndarray:
    """Matrix [fine, count] that averages `fine` samples into wider or narrower ones; inner columns sum to 1.

    The coarse samples begin `margin_mm` before the fine ones.
    """
    low, starts = np.arange(fine)[:, None] * fine_mm, np.arange(count)[None, :] * coarse_mm - margin_mm
    shared = np.minimum(low + fine_mm, starts + coarse_mm) - np.maximum(low, starts)
    return (np.clip(shared, 0, None) / coarse_mm).astype(np.float32)


def acquire(
    phantom: Phantom, acquisition: Acquisition, injection: Injection, exposure: np.ndarray, rng: np.random.Generator
) -> RawData:
    """Scan a phantom at normal dose. exposure: of each fine slice, see `Scanner.exposure`."""
    grid, scanner = phantom.grid, acquisition.scanner
    n_slices = native_slices(grid, acquisition.slice_mm)
    average = overlap_weights(grid.shape[2], grid.voxel_mm, n_slices, acquisition.slice_mm)
    n_bins = int(np.ceil(max(grid.shape[:2]) * grid.voxel_mm / acquisition.bin_mm))
    geometry = Geometry(
        grid.shape[:2], grid.voxel_mm, n_slices, acquisition.slice_mm, n_bins, acquisition.bin_mm, VIEWS, 1
    )
    blurs = (float(np.hypot(f, injection.range_fwhm_mm)) for f in (scanner.transaxial_fwhm_mm, scanner.axial_fwhm_mm))
    projector = Projector(geometry, *blurs)
    side = np.cbrt(grid.voxel_mm**2 * acquisition.slice_mm)
    per_bin = (exposure @ average) * counts_per_suv(injection, side) * scanner.tof_gain / VIEWS
    per_bin = per_bin.astype(np.float32)
    survival = np.exp(-projector.line_integrals(phantom.attenuation @ average / np.float32(10.0), 0))
    trues = survival * projector.forward(phantom.activity @ average, 0)
    (background,) = scatter_and_randoms([trues], geometry, scanner)
    background = background * per_bin
    mean = trues * per_bin + background
    counts = rng.poisson(mean.astype(np.float64)).astype(np.float32)
    return RawData(grid, acquisition, mean, counts, survival, background, per_bin)


def reconstruct_all(raw: RawData, counts: np.ndarray, dose: float) -> list[Volume]:
    """The images of some counts at a share `dose` of the normal dose, one per reconstruction of the acquisition."""
    groups: dict[tuple, list[int]] = defaultdict(list)
    wanted = raw.acquisition.reconstructions
    for number, made in enumerate(wanted):
        groups[made.voxel_mm, made.subsets, made.models_resolution].append(number)
    images: dict[int, Volume] = {}
    for numbers in groups.values():
        measured = _measurement(raw, counts, dose, wanted[numbers[0]])
        iterates = osem_iterates(measured.projector, measured.counts, measured.factors, measured.background)
        last = max(wanted[n].iterations for n in numbers)
        for iteration, image in zip(range(1, last + 1), iterates, strict=False):
            for n in numbers:
                if wanted[n].iterations == iteration:
                    images[n] = Volume(
                        _filtered(image, wanted[n], raw.acquisition.slice_mm), native_affine(raw, wanted[n])
                    )
    return [images[number] for number in range(len(wanted))]


def _measurement(raw: RawData, counts: np.ndarray, dose: float, made: Reconstruction) -> Sinograms:
    """The data as one reconstruction takes them: in its subsets, with the model of its voxels."""
    scanner, grid = raw.acquisition.scanner, raw.grid
    shape = native_shape(grid, made.voxel_mm)
    geometry = Geometry(
        shape, made.voxel_mm, counts.shape[2], raw.acquisition.slice_mm, counts.shape[1], raw.acquisition.bin_mm,
        VIEWS, made.subsets,
    )  # fmt: skip
    fwhm = (scanner.transaxial_fwhm_mm, scanner.axial_fwhm_mm) if made.models_resolution else (0.0, 0.0)
    per_voxel = raw.per_bin * np.float32(dose * (made.voxel_mm / grid.voxel_mm) ** 2)

    def subsets(sinogram: np.ndarray) -> Sequence[np.ndarray]:
        return [np.ascontiguousarray(sinogram[s :: made.subsets]) for s in range(made.subsets)]

    return Sinograms(
        Projector(geometry, *fwhm),
        subsets(counts),
        [part * per_voxel for part in subsets(raw.survival)],
        [part * np.float32(dose) for part in subsets(raw.background)],
    )


def _filtered(image: np.ndarray, made: Reconstruction, slice_mm: float) -> np.ndarray:
    """The post-filter: a Gaussian within slices; along the axis the same, or three weights."""
    sigma_mm = made.filter_fwhm_mm / FWHM_PER_SIGMA
    gaussian = made.axial_kernel == "gaussian"
    sigmas = [sigma_mm / made.voxel_mm] * 2 + [sigma_mm / slice_mm if gaussian else 0.0]
    filtered = ndimage.gaussian_filter(image, sigmas)
    return filtered if gaussian else ndimage.correlate1d(filtered, AXIAL_KERNELS[made.axial_kernel], axis=2)


def native_shape(grid: Grid, voxel_mm: float) -> tuple[int, int]:
    """Voxels of a reconstruction that cover a patient's grid in the plane."""
    nx, ny = (int(np.ceil(n * grid.voxel_mm / voxel_mm)) for n in grid.shape[:2])
    return nx, ny


def native_affine(raw: RawData, made: Reconstruction) -> np.ndarray:
    """Voxel indices of a reconstruction to mm (RAS+): centred on the grid in the plane, axially from its lowest end."""
    grid, slice_mm = raw.grid, raw.acquisition.slice_mm
    nx, ny = native_shape(grid, made.voxel_mm)
    affine = replace(grid, shape=(nx, ny, grid.shape[2]), voxel_mm=made.voxel_mm).affine()
    affine[2, 2] = slice_mm
    affine[2, 3] = grid.affine()[2, 3] - grid.voxel_mm / 2 + slice_mm / 2
    return affine


def on_native_grid(
    values: np.ndarray, grid: Grid, shape: tuple[int, int, int], sizes: tuple[float, float]
) -> np.ndarray:
    """A map on a patient's grid averaged over a reconstruction's voxels: float32 `shape`; sizes of these in mm."""
    nx, ny, nz = shape
    voxel_mm, slice_mm = sizes
    for axis, count in ((0, nx), (1, ny)):
        margin = (count * voxel_mm - grid.shape[axis] * grid.voxel_mm) / 2
        weights = overlap_weights(grid.shape[axis], grid.voxel_mm, count, voxel_mm, margin)
        values = np.moveaxis(np.tensordot(weights.T, values, axes=(1, axis)), 0, axis)
    return np.ascontiguousarray(values @ overlap_weights(grid.shape[2], grid.voxel_mm, nz, slice_mm))
