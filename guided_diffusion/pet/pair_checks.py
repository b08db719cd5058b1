"""Checks that a training pair is two images in SUV by body weight on the model's grid."""

from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

from guided_diffusion.errors import InputError
from guided_diffusion.pet.formats.arrays import read_statement
from guided_diffusion.pet.plausibility import check_suv

SAME_SIZE = 0.01
# A low dose shows the same uptake with more noise. Means this far apart are of two units, or of two patients.
LARGEST_RATIO_OF_MEANS = 2.0


def check_pair(path: Path, pair: np.ndarray, voxel_mm: Sequence[float], axis_codes: str) -> list[str]:
    """Reads every voxel of a pair [2, X, Y, Z] and returns notices on what is doubtful.

    voxel_mm, axis_codes: of the model's grid, for a file that says where its voxels lie.

    Raises:
        InputError: another unit or grid than the model's, or values that cannot be SUV; names the file.
    """
    affine, unit = read_statement(path)
    if unit not in (None, "SUV"):
        raise InputError(f"{path}: is in {unit}, but the network learns SUV by body weight; prepare it with that basis")
    if affine is not None:
        _check_grid(path, affine, voxel_mm, axis_codes)
    # Half precision is converted once: its extremes and means take several times as long.
    pair = np.asarray(pair, np.promote_types(pair.dtype, np.float32))
    notices = [notice for channel in pair for notice in check_suv(channel, path, stated=unit is not None)]
    low, normal = (float(channel.mean(dtype=np.float64)) for channel in pair)
    if not 1 / LARGEST_RATIO_OF_MEANS < low / normal < LARGEST_RATIO_OF_MEANS:
        notices.append(
            f"{path}: the low dose has a mean of {low:.3g} and the normal dose one of {normal:.3g}; check that both are"
            " in SUV and of one scan"
        )
    return notices


def _check_grid(path: Path, affine: np.ndarray, voxel_mm: Sequence[float], axis_codes: str) -> None:
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    if (np.abs(sizes / np.array(voxel_mm) - 1) > SAME_SIZE).any():
        raise InputError(
            f"{path}: voxels of {_times(sizes)} mm, but the model's have {_times(voxel_mm)} mm;"
            " prepare it on the model's grid, or give --voxel_mm"
        )
    codes = "".join(nib.aff2axcodes(affine))
    if codes != axis_codes:
        raise InputError(f"{path}: its axes grow to {codes}, but the model's to {axis_codes}; prepare it again")


def _times(sizes: Sequence[float]) -> str:
    return " x ".join(f"{size:.4g}" for size in sizes)
