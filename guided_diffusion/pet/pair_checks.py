"""Checks that a training pair is two images in SUV by body weight on the model's grid."""

from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

from guided_diffusion.errors import InputError
from guided_diffusion.pet.formats import dicom_tags as tags
from guided_diffusion.pet.formats.arrays import read_statement
from guided_diffusion.pet.grid import Volume
from guided_diffusion.pet.plausibility import check_suv
from guided_diffusion.pet.text import times

SAME_SIZE = 0.01
# A low dose shows the same uptake with more noise. Means this far apart are of two units, or of two patients.
LARGEST_RATIO_OF_MEANS = 2.0
# The differences of neighbours, of the low dose over those of the normal dose. A post-filter of its own may lower them.
SMALLEST_RATIO_OF_DIFFERENCES = 0.9
PLANE_STEP = 4
# Weights of one examination are equal but for rounding: SUV is proportional to them.
SAME_WEIGHT = 0.01


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
    return notices + doubts_of_pair(*pair, path)


def doubts_of_pair(low: np.ndarray, normal: np.ndarray, name: object) -> list[str]:
    """Notices on images [X, Y, Z] of one grid that can hardly be a low dose and the normal dose of one scan.

    name: of their file, for messages.
    """
    low_mean, normal_mean = (float(image.mean(dtype=np.float64)) for image in (low, normal))
    notices = []
    if not 1 / LARGEST_RATIO_OF_MEANS < low_mean / normal_mean < LARGEST_RATIO_OF_MEANS:
        notices.append(
            f"{name}: the low dose has a mean of {low_mean:.3g} and the normal dose one of {normal_mean:.3g}; check"
            " that both are in SUV and of one scan"
        )
    elif _differences(low) / low_mean < SMALLEST_RATIO_OF_DIFFERENCES * _differences(normal) / normal_mean:
        notices.append(f"{name}: the low dose is smoother than the normal dose; check that the two are not swapped")
    if np.array_equal(low, normal):
        notices.append(f"{name}: the low dose and the normal dose are one and the same image")
    return notices


def doubts_of_origins(low: Volume, normal: Volume) -> list[str]:
    """A notice for each tag by which two DICOM series are of different patients or places; without its values."""
    if low.series is None or normal.series is None:
        return []
    first, second = low.series.headers[0], normal.series.headers[0]
    keywords = ("PatientID", "FrameOfReferenceUID")
    different = [keyword for keyword in keywords if tags.text(first, keyword) != tags.text(second, keyword)]
    weights = tags.number(first, "PatientWeight"), tags.number(second, "PatientWeight")
    if None not in weights and abs(weights[0] - weights[1]) > SAME_WEIGHT * weights[1]:
        different.append("PatientWeight")
    return [
        f"{tags.name_tag(keyword)} of low dose and normal dose differ; check that both are of one scan"
        for keyword in different
    ]


def _differences(image: np.ndarray) -> float:
    """Mean absolute difference of neighbours in some planes."""
    planes = np.asarray(image[::PLANE_STEP], dtype=np.float32)
    return float(np.abs(np.diff(planes, axis=1)).mean(dtype=np.float64)) if planes.shape[1] > 1 else 0.0


def _check_grid(path: Path, affine: np.ndarray, voxel_mm: Sequence[float], axis_codes: str) -> None:
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    if (np.abs(sizes / np.array(voxel_mm) - 1) > SAME_SIZE).any():
        raise InputError(
            f"{path}: voxels of {times(sizes)} mm, but the model's have {times(voxel_mm)} mm;"
            " prepare it on the model's grid, or give --voxel_mm"
        )
    codes = "".join(nib.aff2axcodes(affine))
    if codes != axis_codes:
        raise InputError(f"{path}: its axes grow to {codes}, but the model's to {axis_codes}; prepare it again")
