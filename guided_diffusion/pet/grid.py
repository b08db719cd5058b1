"""A PET volume and its position in space, and default grids for arrays without one. No input or output."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product

import numpy as np

from guided_diffusion.errors import InputError
from guided_diffusion.pet.text import printable

# The grid of the published network, along its axes X, Y, Z.
DEFAULT_VOXEL_MM = (1.65, 1.65, 1.65)
DEFAULT_AXIS_CODES = "PLS"
# Scanners for mice go down to 0.1 mm. A header in metres or micrometres falls outside.
SMALLEST_VOXEL_MM, LARGEST_VOXEL_MM = 0.05, 100.0
# Grids whose voxels lie less than this part of a voxel apart are one: rounded in a header, and nothing to PET.
SAME_GRID_VOXELS = 0.05

# 2 GiB as float32. The longest scanners give a quarter of that; a header that claims more is damaged or malicious.
MAX_VOXELS = 2**29


@dataclass(frozen=True, eq=False)
class Volume:
    """A volume as its file has it.

    data: float32 [i, j, k].
    affine: float64 4x4, voxel index -> mm in RAS+ (nibabel's convention).
    unit: 'SUV', 'SUVlbm', 'SUVbsa', 'BQML', 'CNTS', ...
    source: where it came from and how its values became SUV, ready for JSON; names no patient.
    series: the DICOM series that it was read from, whose headers a derived series takes over; stays in memory.
    """

    data: np.ndarray
    affine: np.ndarray
    unit: str = "SUV"
    source: Mapping[str, object] = field(default_factory=dict)
    series: object | None = field(default=None, repr=False)

    @property
    def voxel_mm(self) -> tuple[float, float, float]:
        """Edge lengths of a voxel along i, j, k in mm."""
        return tuple(float(x) for x in np.linalg.norm(self.affine[:3, :3], axis=0))

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel in mL."""
        return float(abs(np.linalg.det(self.affine[:3, :3])) / 1000)


def check_voxel_mm(voxel_mm: float | tuple[float, float, float], name: str) -> None:
    """Refuses voxel sizes that no PET image has.

    Raises:
        InputError: names whose they are and the sizes.
    """
    sizes = np.broadcast_to(voxel_mm, 3)
    if not ((sizes >= SMALLEST_VOXEL_MM) & (sizes <= LARGEST_VOXEL_MM)).all():
        raise InputError(
            f"{name}: no PET image has voxels of {' x '.join(f'{size:.4g}' for size in sizes)} mm;"
            f" give sizes in mm, from {SMALLEST_VOXEL_MM:g} to {LARGEST_VOXEL_MM:g}"
        )


def check_axis_codes(axis_codes: str) -> None:
    """Refuses axis codes that name no three axes.

    Raises:
        InputError: quotes them.
    """
    if sorted("RLAPSI".find(code) // 2 for code in axis_codes) != [0, 1, 2]:
        raise InputError(
            f"axis codes '{printable(axis_codes)}' name no three axes; give one letter each of R or L, A or P, S or I,"
            f" such as {DEFAULT_AXIS_CODES}"
        )


def centred_affine(
    shape: tuple[int, int, int], voxel_mm: float | tuple[float, float, float], axis_codes: str
) -> np.ndarray:
    """4x4 affine (mm, RAS+) of a grid whose axes grow towards `axis_codes` and whose centre lies at the origin.

    Raises:
        InputError: as `check_voxel_mm` and `check_axis_codes`.
    """
    check_voxel_mm(voxel_mm, "an array without affine")
    check_axis_codes(axis_codes)
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, (code, size) in enumerate(zip(axis_codes, np.broadcast_to(voxel_mm, 3), strict=True)):
        world, sign = ("RAS".index(code), 1) if code in "RAS" else ("LPI".index(code), -1)
        affine[world, axis] = sign * size
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


def same_grid(
    shape: tuple[int, ...], affine: np.ndarray, other_shape: tuple[int, ...], other_affine: np.ndarray
) -> bool:
    """Whether two grids are one: of one shape, with no voxel further apart than a twentieth of a voxel.

    affine, other_affine: 4x4, voxel index -> mm. Between the corners of a grid no voxel lies further apart than there.
    """
    if tuple(shape) != tuple(other_shape):
        return False
    corners = np.array([(*corner, 1) for corner in product(*((0, size - 1) for size in shape))])
    apart_mm = np.linalg.norm(corners @ (np.asarray(affine) - np.asarray(other_affine))[:3].T, axis=1)
    return bool(apart_mm.max() <= SAME_GRID_VOXELS * np.linalg.norm(np.asarray(affine)[:3, :3], axis=0).min())


def on_one_grid(volume: Volume, other: Volume) -> bool:
    """Whether two volumes lie on one grid, as `same_grid`."""
    return same_grid(volume.data.shape, volume.affine, other.data.shape, other.affine)


def check_size(shape: tuple[int, ...], name: object) -> None:
    """Refuses sizes that no PET scanner makes, before memory is asked for.

    Raises:
        InputError: no voxel, or more than MAX_VOXELS.
    """
    voxels = 1
    for size in shape:
        voxels *= int(size)
    if not 0 < voxels <= MAX_VOXELS:
        raise InputError(
            f"{name}: would have {' x '.join(str(int(n)) for n in shape)} voxels,"
            " as no PET volume has; check the header"
        )
