"""From a scanner's grid to the model's and back, by physical coordinates.

The model's grid has axes [X, Y, Z] = (anterior-posterior, left-right, axial). It follows the axes of the input,
permuted and flipped to the directions nearest to the model's: an oblique scan is not interpolated across its slices.
"""

from dataclasses import replace
from typing import Literal

import nibabel as nib
import numpy as np
from scipy import ndimage

from guided_diffusion.errors import InputError
from guided_diffusion.pet.operators import apply_separable, axis_operator, back_operator
from guided_diffusion.pet.volume import DEFAULT_AXIS_CODES, DEFAULT_BARE_VOXEL_MM, Volume

# Spacings as close as this to the model's are taken as they are: interpolating would blur more than it would mend.
SAME_SPACING = 0.01
# Body or air: mean SUV over blocks of about 1 cm. Air holds a few hundredths, a thigh 0.2 and more.
BODY_SUV = 0.1
BODY_BLOCK_MM = 10.0
# Pieces smaller than this part of the largest are noise outside the body, not an arm.
SMALLEST_PIECE = 0.005


def to_model_grid(
    volume: Volume,
    *,
    voxel_mm: float | tuple[float, float, float] = DEFAULT_BARE_VOXEL_MM,
    axis_codes: str = DEFAULT_AXIS_CODES,
    margin_mm: float = 20.0,
) -> Volume:
    """Resamples to the model's grid, cropped to the body plus a margin. Neither clipped nor padded.

    Going coarser is anti-aliased; no value falls below zero unless the input's do. A volume that is on the model's grid
    is returned as it is.

    Args:
        volume: SUV, any grid.
        voxel_mm: the model's voxel size along X, Y, Z.
        axis_codes: the directions in which the model's axes grow ('PLS': posterior, left, superior).
        margin_mm: air kept around the body.

    Raises:
        InputError: the volume's axes are not at right angles.
    """
    sizes = np.broadcast_to(voxel_mm, 3).astype(float)
    if is_on_model_grid(volume, voxel_mm=voxel_mm, axis_codes=axis_codes):
        return volume
    if _shear(volume.affine) > 1e-3:
        raise InputError("the axes of this volume are not at right angles (tilted gantry)")
    permutation, signs = _axes_towards(volume.affine, axis_codes)
    box = body_box(volume, margin_mm)
    positions = [
        _model_positions(box[p], size / volume.voxel_mm[p], sign)
        for p, sign, size in zip(permutation, signs, sizes, strict=True)
    ]
    data = np.transpose(volume.data, permutation)
    operators = tuple(axis_operator(x, n) for x, n in zip(positions, data.shape, strict=True))
    resampled = np.maximum(apply_separable(data, operators), min(0.0, float(volume.data.min())))
    affine = volume.affine @ _index_map(permutation, positions, sizes, volume.voxel_mm)
    return replace(volume, data=np.ascontiguousarray(resampled, dtype=np.float32), affine=affine)


def back_to_input_grid(
    denoised: Volume,
    model_input: Volume,
    original: Volume,
    *,
    above_cap: Literal["keep", "clip"] = "keep",
    suv_max: float = 16.0,
) -> Volume:
    """Carries what the model changed back to the grid of `original`.

    The result is original + way back of (denoised - model_input clipped to [0, suv_max]). The way back is the
    least-squares inverse of the way there, so on grids coarser than the model's this is the denoised image itself, with
    nothing of the input's noise left. Outside the model's grid (air) the input stays.

    Args:
        denoised: SUV on the model's grid, computed from `model_input` clipped to [0, suv_max].
        model_input: what `to_model_grid` made of `original`.
        above_cap: 'keep' restores uptake above suv_max (bladder, injection site) from the input, 'clip' cuts it off.

    Raises:
        InputError: the grids do not belong together.
    """
    if denoised.data.shape != model_input.data.shape or not np.allclose(denoised.affine, model_input.affine, atol=1e-3):
        raise InputError("the denoised volume does not lie on the grid of the model's input")
    change = denoised.data - np.clip(model_input.data, 0, suv_max)
    permutation, positions = _positions_in(original.affine, model_input)
    data = original.data.copy()
    view = np.transpose(data, permutation)
    backs = [back_operator(x, n) for x, n in zip(positions, view.shape, strict=True)]
    view[tuple(part for _, part in backs)] += apply_separable(change, tuple(operator for operator, _ in backs))
    np.maximum(data, min(0.0, float(original.data.min())), out=data)
    if above_cap == "clip":
        np.minimum(data, suv_max, out=data)
    return replace(original, data=data)


def is_on_model_grid(
    volume: Volume,
    *,
    voxel_mm: float | tuple[float, float, float] = DEFAULT_BARE_VOXEL_MM,
    axis_codes: str = DEFAULT_AXIS_CODES,
) -> bool:
    """Whether axes and voxel size are the model's already."""
    ratios = np.array(volume.voxel_mm) / voxel_mm
    codes = "".join(nib.aff2axcodes(volume.affine))
    return codes == axis_codes and bool((np.abs(ratios - 1) <= SAME_SPACING).all()) and _shear(volume.affine) <= 1e-3


def body_box(volume: Volume, margin_mm: float) -> list[tuple[int, int]]:
    """First and one past the last voxel of the body plus a margin, per axis; all of the volume where no body is found."""
    shape = volume.data.shape
    blocks = [max(1, round(BODY_BLOCK_MM / size)) for size in volume.voxel_mm]
    means = volume.data
    for axis, block in enumerate(blocks):
        starts = np.arange(0, shape[axis], block)
        widths = np.diff(np.append(starts, shape[axis])).astype(np.float32)
        means = np.add.reduceat(means, starts, axis=axis) / np.expand_dims(widths, tuple({0, 1, 2} - {axis}))
    pieces, count = ndimage.label(means > BODY_SUV)
    if count == 0:
        return [(0, n) for n in shape]
    sizes = np.bincount(pieces.ravel())[1:]
    body = np.isin(pieces, 1 + np.flatnonzero(sizes >= SMALLEST_PIECE * sizes.max()))
    box = []
    for axis, (block, size, n) in enumerate(zip(blocks, volume.voxel_mm, shape, strict=True)):
        inside = np.flatnonzero(body.any(axis=tuple({0, 1, 2} - {axis})))
        margin = int(np.ceil(margin_mm / size))
        first, last = int(inside[0]) * block, (int(inside[-1]) + 1) * block
        box.append((max(0, first - margin), min(n, last + margin)))
    return box


def above_cap(volume: Volume, suv_max: float = 16.0) -> dict[str, float]:
    """What clipping at suv_max cuts off: number of voxels, peak SUV, volume in mL."""
    voxels = int(np.count_nonzero(volume.data > suv_max))
    return {"voxels": voxels, "peak": float(volume.data.max()), "ml": voxels * volume.voxel_ml}


def _axes_towards(affine: np.ndarray, axis_codes: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """For each model axis: which input axis it follows, and whether along (1) or against (-1) it."""
    have = nib.io_orientation(affine)
    want = nib.orientations.axcodes2ornt(axis_codes)
    permutation, signs = [], []
    for world, direction in want:
        axis = int(np.flatnonzero(have[:, 0] == world)[0])
        permutation.append(axis)
        signs.append(int(have[axis, 1] * direction))
    return tuple(permutation), tuple(signs)


def _model_positions(box: tuple[int, int], step: float, sign: int) -> np.ndarray:
    """Centres of model voxels that cover the input voxels [box), centred on them, in input voxels."""
    if abs(step - 1) <= SAME_SPACING:
        step = 1.0
    length = box[1] - box[0]
    count = max(1, int(np.ceil(length / step - 1e-3)))
    return (box[0] + box[1] - 1) / 2 + sign * step * (np.arange(count) - (count - 1) / 2)


def _index_map(
    permutation: tuple[int, ...], positions: list[np.ndarray], sizes: np.ndarray, voxel_mm: tuple[float, ...]
) -> np.ndarray:
    """4x4: model index -> input index."""
    index_map = np.zeros((4, 4))
    index_map[3, 3] = 1
    for axis, (source, x) in enumerate(zip(permutation, positions, strict=True)):
        index_map[source, axis] = x[1] - x[0] if len(x) > 1 else sizes[axis] / voxel_mm[source]
        index_map[source, 3] = x[0]
    return index_map


def _positions_in(affine: np.ndarray, model: Volume) -> tuple[tuple[int, ...], list[np.ndarray]]:
    """Which input axis each model axis follows, and where its voxels lie along it, in input voxels."""
    index_map = np.linalg.inv(affine) @ model.affine
    permutation = tuple(int(k) for k in np.argmax(np.abs(index_map[:3, :3]), axis=0))
    steps = index_map[permutation, (0, 1, 2)]
    rest = index_map[:3, :3].copy()
    rest[permutation, (0, 1, 2)] = 0
    if sorted(permutation) != [0, 1, 2] or np.abs(rest).max() > 1e-4:
        raise InputError("the model's input does not follow the axes of the original volume")
    starts = index_map[list(permutation), 3]
    return permutation, [
        start + step * np.arange(n) for start, step, n in zip(starts, steps, model.data.shape, strict=True)
    ]


def _shear(affine: np.ndarray) -> float:
    """Largest cosine between two axes; 0 where all angles are right."""
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return float(np.abs(axes.T @ axes - np.eye(3)).max())
