"""Positions of a NIfTI's voxels: sform, qform, voxel sizes and their unit must not contradict each other."""

from pathlib import Path

import nibabel as nib
import numpy as np

from guided_diffusion.errors import InputError
from guided_diffusion.pet.damage import damage_as
from guided_diffusion.pet.grid import check_voxel_mm
from guided_diffusion.pet.text import times

# xyzt_units & 7: what a unit of length is in mm. 0 says nothing, and mm is meant.
UNIT_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 1e-3}
SAME_SIZE = 0.01
SAME_PLACE_VOXELS = 0.5


def affine_mm(image: nib.spatialimages.SpatialImage, path: Path) -> np.ndarray:
    """float64 4x4, voxel index -> mm (RAS+), of any image that nibabel opened.

    Raises:
        InputError: the header places the voxels nowhere, or in two ways.
    """
    affine = np.array(image.affine, dtype=np.float64)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise InputError(f"{path}: its affine does not place the voxels in space; repair the header")
    if isinstance(image, nib.Nifti1Pair):
        _check_forms(image, path)
        affine[:3] *= _unit_mm(image, path)
    check_voxel_mm(tuple(np.linalg.norm(affine[:3, :3], axis=0)), str(path))
    return affine


def says_orientation(image: nib.spatialimages.SpatialImage) -> bool:
    """Whether the header, or SPM's matrix beside it, places the voxels. Else nibabel takes i to run to the left."""
    if isinstance(image, nib.Nifti1Pair):
        return bool(image.header["sform_code"] or image.header["qform_code"])
    if isinstance(image, nib.Spm99AnalyzeImage):
        return bool(image.file_map["mat"].fileobj.getvalue())
    return not isinstance(image, nib.AnalyzeImage)


def _unit_mm(image: nib.Nifti1Pair, path: Path) -> float:
    code = int(image.header["xyzt_units"]) & 7
    if code not in UNIT_MM:
        raise InputError(f"{path}: its xyzt_units name no unit of length (code {code}); set them to mm")
    return UNIT_MM[code]


def _check_forms(image: nib.Nifti1Pair, path: Path) -> None:
    """The sform is what nibabel takes; the voxel sizes (pixdim) and a qform of the same space must agree with it."""
    sform, sform_code = image.get_sform(coded=True)
    if sform is None:
        return
    sizes = np.linalg.norm(sform[:3, :3], axis=0)
    stated = np.abs(np.array(image.header["pixdim"][1:4], dtype=np.float64))
    with damage_as(f"{path}: its qform (quatern_b, quatern_c, quatern_d) is no rotation; repair or remove it"):
        qform, qform_code = image.get_qform(coded=True)
    # nibabel reads sizes of zero as 1: with nothing else, 1 says nothing.
    known = np.isfinite(stated) & (stated > 0) & (qform is not None or (stated != 1).any())
    if (np.abs(sizes - stated)[known] > SAME_SIZE * sizes[known]).any():
        raise InputError(
            f"{path}: its sform says voxels of {times(sizes)}, its pixdim {times(stated)}; set both to the true size"
        )
    if qform is None:
        return
    mirrored = np.linalg.det(sform[:3, :3]) * np.linalg.det(qform[:3, :3]) < 0
    apart = _largest_shift(_nearest_qform(sform), qform, image.shape[:3])
    if mirrored or (sform_code == qform_code and apart > SAME_PLACE_VOXELS):
        kind = "mirrored" if mirrored else "in another place"
        raise InputError(f"{path}: its sform and qform contradict each other ({kind}); remove the wrong one")


def fits_qform(affine: np.ndarray, shape: tuple[int, ...]) -> bool:
    """Whether a qform can place voxels as this affine does, to half a voxel: it holds no shear (tilted gantry)."""
    return _largest_shift(affine, _nearest_qform(affine), shape) <= SAME_PLACE_VOXELS


def _nearest_qform(affine: np.ndarray) -> np.ndarray:
    """The affine of a qform that was made from this one: without its shear."""
    header = nib.Nifti1Header()
    header.set_qform(affine)
    return header.get_qform()


def _largest_shift(sform: np.ndarray, qform: np.ndarray, shape: tuple[int, ...]) -> float:
    """Largest distance between the positions of a corner of the volume by two affines, in voxels."""
    corners = np.array(np.meshgrid(*((0, size - 1) for size in shape), indexing="ij")).reshape(3, -1).T
    moved = nib.affines.apply_affine(np.linalg.inv(sform) @ qform, corners)
    return float(np.abs(moved - corners).max())
