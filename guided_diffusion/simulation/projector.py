"""Parallel-beam projection of all transaxial slices at once.

A slice is projected by one sparse matrix that every slice shares, so a volume is projected by one sparse product. The
weights are exact strip areas: the share of a square pixel that falls into each bin, so that every view keeps the
activity. Detector blur is a Gaussian along the radial coordinate and one along the axis: for a shift-invariant
isotropic blur this equals blurring the image in three dimensions, and costs far less.

Simplifications, stated once: coincidences between different slices are assigned to the slice of emission (ideal
single-slice rebinning), the blur does not grow towards the edge of the field, and time of flight enters as extra counts
(see `guided_diffusion.simulation.scanner`), not as a data dimension.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from scipy import sparse

from guided_diffusion.pet.blur import FWHM_PER_SIGMA


@dataclass(frozen=True)
class Geometry:
    """Image grid and views of the projector.

    shape: voxels of one slice (X, Y); voxel_mm: their side; n_slices, slice_mm: slices and their distance; n_bins,
    bin_mm: radial bins and their width, centred on the image; n_angles: views over 180 degrees; n_subsets: interleaved
    subsets of views, which must divide n_angles.
    """

    shape: tuple[int, int]
    voxel_mm: float
    n_slices: int
    slice_mm: float
    n_bins: int
    bin_mm: float
    n_angles: int
    n_subsets: int

    def __post_init__(self) -> None:
        if self.n_angles % self.n_subsets:
            raise ValueError(f"{self.n_angles} views cannot be shared by {self.n_subsets} subsets")


def _trapezoid_cdf(u: np.ndarray, half_short: float, half_long: float) -> np.ndarray:
    """Area left of u under the unit trapezoid that a square casts: flat to half_short, zero from half_long."""
    height = 1.0 / (half_short + half_long)
    ramp = half_long - half_short
    u = np.clip(u, -half_long, half_long)
    flat = height * np.clip(u + half_short, 0.0, 2.0 * half_short)
    if ramp < 1e-9:
        return flat
    rising = np.clip(u + half_long, 0.0, ramp)
    falling = np.clip(u - half_short, 0.0, ramp)
    return flat + height * (rising**2 / (2 * ramp)) + height * (falling - falling**2 / (2 * ramp))


def _view_matrix(angle: float, geometry: Geometry) -> sparse.coo_array:
    """Share of each pixel in each radial bin of one view: [n_bins, X * Y]; columns of pixels in the circle sum to 1."""
    nx, ny = geometry.shape
    voxel, n_bins = geometry.voxel_mm / geometry.bin_mm, geometry.n_bins
    x = (np.arange(nx) - (nx - 1) / 2)[:, None] * voxel
    y = (np.arange(ny) - (ny - 1) / 2)[None, :] * voxel
    inside = np.flatnonzero((x**2 + y**2 <= (n_bins / 2 - voxel) ** 2).ravel())
    radius = (x * np.cos(angle) + y * np.sin(angle)).ravel()[inside] + n_bins / 2
    c, s = abs(np.cos(angle)), abs(np.sin(angle))
    half_short, half_long = abs(c - s) / 2 * voxel, (c + s) / 2 * voxel
    first = np.floor(radius - half_long).astype(int)
    reached = int(np.ceil(2 * half_long)) + 1
    rows, weights = [], []
    for k in range(reached):
        low = first + k - radius
        weights.append(_trapezoid_cdf(low + 1, half_short, half_long) - _trapezoid_cdf(low, half_short, half_long))
        rows.append(np.clip(first + k, 0, n_bins - 1))
    columns = np.tile(inside, reached)
    weights, rows = np.concatenate(weights), np.concatenate(rows)
    kept = weights > 1e-6
    return sparse.coo_array((weights[kept], (rows[kept], columns[kept])), shape=(n_bins, nx * ny))


@lru_cache(maxsize=4)
def _subset_matrices(geometry: Geometry) -> tuple[tuple[sparse.csr_array, sparse.csr_array], ...]:
    """Per subset: the float32 system matrix [views * bins, X * Y] and its transpose, both stored by rows."""
    pairs = []
    for subset in range(geometry.n_subsets):
        views = range(subset, geometry.n_angles, geometry.n_subsets)
        stacked = sparse.vstack([_view_matrix(np.pi * v / geometry.n_angles, geometry) for v in views])
        matrix = sparse.csr_array(stacked.astype(np.float32))
        pairs.append((matrix, sparse.csr_array(matrix.T)))
    return tuple(pairs)


def gaussian_matrix(size: int, sigma: float) -> np.ndarray:
    """Symmetric matrix [size, size], float32, that blurs by a Gaussian of `sigma` samples; what leaves is lost."""
    if sigma <= 0:
        return np.eye(size, dtype=np.float32)
    offset = np.arange(size)[:, None] - np.arange(size)[None, :]
    reach = np.arange(-size, size + 1)
    kernel = np.exp(-0.5 * reach**2 / sigma**2)
    return (np.exp(-0.5 * (offset / sigma) ** 2) / kernel.sum()).astype(np.float32)


class Projector:
    """Forward and back projection of volumes [X, Y, Z] to sinograms, subset by subset, blur included.

    A sinogram of a subset is float32 [views, bins, Z]. Forward and back are exact transposes of each other.
    """

    def __init__(self, geometry: Geometry, transaxial_fwhm_mm: float, axial_fwhm_mm: float) -> None:
        self.geometry = geometry
        self.radial_blur = gaussian_matrix(geometry.n_bins, transaxial_fwhm_mm / FWHM_PER_SIGMA / geometry.bin_mm)
        self.axial_blur = gaussian_matrix(geometry.n_slices, axial_fwhm_mm / FWHM_PER_SIGMA / geometry.slice_mm)

    @cached_property
    def _matrices(self) -> tuple[tuple[sparse.csr_array, sparse.csr_array], ...]:
        return _subset_matrices(self.geometry)

    def forward(self, image: np.ndarray, subset: int) -> np.ndarray:
        """Sinogram [views, bins, Z] of `image` [X, Y, Z]: the activity in each bin's strip, after blur."""
        geometry = self.geometry
        rays = self._matrices[subset][0] @ image.reshape(-1, geometry.n_slices)
        rays = (rays @ self.axial_blur).reshape(-1, geometry.n_bins, geometry.n_slices)
        return np.matmul(self.radial_blur, rays)

    def back(self, sinogram: np.ndarray, subset: int) -> np.ndarray:
        """Back projection [X, Y, Z] of a subset's sinogram [views, bins, Z]."""
        geometry = self.geometry
        rays = np.matmul(self.radial_blur, sinogram).reshape(-1, geometry.n_slices) @ self.axial_blur
        return (self._matrices[subset][1] @ rays).reshape(*geometry.shape, geometry.n_slices)

    def line_integrals(self, density: np.ndarray, subset: int) -> np.ndarray:
        """Unblurred line integrals [views, bins, Z] of `density` [X, Y, Z] (per mm): mean over each bin's strip."""
        geometry = self.geometry
        rays = self._matrices[subset][0] @ density.reshape(-1, geometry.n_slices)
        per_strip = np.float32(geometry.voxel_mm**2 / geometry.bin_mm)
        return rays.reshape(-1, geometry.n_bins, geometry.n_slices) * per_strip
