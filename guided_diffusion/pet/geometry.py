"""From a scanner's grid to the model's and back, by physical coordinates.

The model's grid has axes [X, Y, Z] = (anterior-posterior, left-right, axial). It follows the axes of the input,
permuted and flipped to the directions nearest to the model's: an oblique scan is not interpolated across its slices.
Only a sheared one (tilted gantry) is, onto the patient's axes.
"""

from dataclasses import replace
from typing import Literal

import nibabel as nib
import numpy as np
from scipy import ndimage

from guided_diffusion.errors import InputError
from guided_diffusion.pet.grid import (
    DEFAULT_AXIS_CODES,
    DEFAULT_VOXEL_MM,
    SAME_GRID_VOXELS,
    Volume,
    check_axis_codes,
    check_size,
    check_voxel_mm,
    on_one_grid,
)
from guided_diffusion.pet.normalisation import BODY_SUV, DEFAULT_SUV_MAX
from guided_diffusion.pet.operators import Samples, apply_separable, back_operator, there_operator
from guided_diffusion.pet.sheared import sample, smoothed_for, upright_grid

# Spacings as close as this to the model's are taken as they are: interpolating would blur more than it would correct.
SAME_SPACING = 0.01
# The largest cosine between axes that still count as being at right angles: 0.3 mm over a body's width.
RIGHT_ANGLE = 1e-3
# Body and air are distinguished by mean SUV over blocks of this size.
BODY_BLOCK_MM = 10.0
# No scanner's field of view is longer.
LARGEST_EXTENT_MM = 4000.0
# Of the model's largest SUV: what it makes of uptake above that is more. Chosen on virtual scans with spikes of noise.
NEAR_CAP = 0.75
# Pieces smaller than this part of the largest are noise outside the body, not an arm.
SMALLEST_PIECE = 0.005


def to_model_grid(
    volume: Volume,
    *,
    voxel_mm: float | tuple[float, float, float] = DEFAULT_VOXEL_MM,
    axis_codes: str = DEFAULT_AXIS_CODES,
    margin_mm: float = 20.0,
    linear: bool = False,
) -> Volume:
    """Resamples to the model's grid, cropped to the body plus a margin. Neither clipped nor padded.

    Going coarser is anti-aliased; no value falls below zero unless the input's do, or `linear` lets them. A volume that
    is on the model's grid is returned as it is.

    Args:
        volume: SUV, any grid.
        voxel_mm: the model's voxel size along X, Y, Z.
        axis_codes: the directions in which the model's axes grow ('PLS': posterior, left, superior).
        margin_mm: air kept around the body.
        linear: keep what anti-aliasing takes below zero between the peaks of strong noise. Cutting it off raises the
            mean: by 15 and 45 % for two unfiltered images of 2.1 mm voxels at low counts.

    Raises:
        InputError: the volume's header or the wanted grid has voxels or an extent that no PET image has, or the axis
            codes name no axes.
    """
    check_voxel_mm(voxel_mm, "the model's grid")
    check_axis_codes(axis_codes)
    if not 0 <= margin_mm <= LARGEST_EXTENT_MM:
        raise InputError(f"a margin of {margin_mm:g} mm: give the air to keep around the body in mm, 0 or more")
    _check_extent(volume)
    sizes = np.broadcast_to(voxel_mm, 3).astype(float)
    if is_on_model_grid(volume, voxel_mm=voxel_mm, axis_codes=axis_codes):
        return volume
    box = body_box(volume, margin_mm)
    if _shear(volume.affine) > RIGHT_ANGLE:
        affine, shape = upright_grid(volume.affine, box, sizes, axis_codes)
        check_size(shape, "the image on the model's grid")
        return _from_sheared(volume, affine, shape, linear)
    permutation, signs = _axes_towards(volume.affine, axis_codes)
    samples = [
        _model_samples(box[p], size / volume.voxel_mm[p], sign)
        for p, sign, size in zip(permutation, signs, sizes, strict=True)
    ]
    check_size(tuple(along.count for along in samples), "the image on the model's grid")
    affine = volume.affine @ _index_map(permutation, samples)
    return replace(volume, data=_resample(np.transpose(volume.data, permutation), samples, linear), affine=affine)


def back_to_input_grid(
    denoised: Volume,
    model_input: Volume,
    original: Volume,
    *,
    above_cap: Literal["keep", "clip"] = "keep",
    suv_max: float = DEFAULT_SUV_MAX,
    instead: bool = False,
) -> Volume:
    """Carries what the model changed back to the grid of `original`.

    The result is original + way back of (denoised - model_input capped at suv_max). Without negative voxels, a model
    that changes nothing returns the input exactly. Negative voxels (noise of a reconstruction that allows them) come to
    the model as zero; that difference is carried back too, so they end at what the model says. Were they left as they
    are while the noise above zero goes, cold regions would come out too low: -0.03 instead of 0.05 for noise of 0.3 at
    2 mm. On grids coarser than the model's the way back undoes the way there, so the result is the
    denoised image itself; of the input's noise 0.1 % stays at 2 to 5 mm (an anti-aliasing triangle instead would leave
    28 to 62 %). On finer grids noise that the model's cannot hold stays: at 1 mm, 6 % of noise with a correlation of
    4 mm FWHM and 21 % of noise with 2.5 mm. Outside the model's grid (air) the input stays.

    Args:
        denoised: SUV on the model's grid, computed from `model_input` clipped to [0, suv_max].
        model_input: what `to_model_grid` made of `original`.
        above_cap: 'keep' leaves uptake above suv_max (bladder, injection site) as the input has it, so that its SUV and
            its volume can be read off the result; 'clip' cuts the original off at suv_max before the change is added.
        instead: the denoised image takes the place of the original, except for uptake above suv_max, so that what is
            finer than the model's grid goes too. It is nearly all noise in images of about twice the grid's voxel. A
            voxel above suv_max whose denoised value is far below it (`NEAR_CAP`) is no such uptake but noise.

    Raises:
        InputError: the grids do not belong together.
    """
    if not on_one_grid(denoised, model_input):
        raise InputError("the denoised volume does not lie on the grid of the model's input")
    change = denoised.data - np.minimum(model_input.data, suv_max)
    data = np.minimum(original.data, suv_max) if above_cap == "clip" else original.data.copy()
    if instead:
        _put_instead(denoised, model_input, original, data, suv_max)
    elif _shear(original.affine) > RIGHT_ANGLE:
        data += sample(change, np.linalg.inv(model_input.affine) @ original.affine, data.shape)
    else:
        permutation, samples = _samples_in(
            original.affine, model_input, "the model's input does not follow the axes of the original volume"
        )
        view = np.transpose(data, permutation)
        operators = [back_operator(along, size) for along, size in zip(samples, view.shape, strict=True)]
        covered = tuple(part for _, part in operators)
        view[covered] += apply_separable(change, [operator for operator, _ in operators])
    np.maximum(data, min(0.0, float(original.data.min())), out=data)
    if above_cap == "clip":
        np.minimum(data, suv_max, out=data)
    return replace(original, data=data)


def _put_instead(denoised: Volume, model_input: Volume, original: Volume, data: np.ndarray, suv_max: float) -> None:
    """Writes the denoised image, on the grid of `original`, into `data` but for uptake above suv_max."""
    if _shear(original.affine) > RIGHT_ANGLE:
        to_model = np.linalg.inv(model_input.affine) @ original.affine
        inside = sample(np.ones_like(denoised.data), to_model, data.shape) > 0.999
        back = sample(denoised.data, to_model, data.shape)
        np.copyto(data, back, where=inside & ~_is_above(data, back, suv_max))
        return
    permutation, samples = _samples_in(
        original.affine, model_input, "the model's input does not follow the axes of the original volume"
    )
    view = np.transpose(data, permutation)
    operators = [back_operator(along, size) for along, size in zip(samples, view.shape, strict=True)]
    covered = view[tuple(part for _, part in operators)]
    back = apply_separable(denoised.data, [operator for operator, _ in operators])
    np.copyto(covered, back, where=~_is_above(covered, back, suv_max))


def _is_above(original: np.ndarray, denoised: np.ndarray, suv_max: float) -> np.ndarray:
    """Where uptake is above suv_max: there the model saw suv_max all around, and answers with little less."""
    return (original > suv_max) & (denoised > NEAR_CAP * suv_max)


def resample_like(volume: Volume, model: Volume, *, linear: bool = False) -> Volume:
    """Puts another image of the same patient position (its normal-dose partner) on the grid of `model`.

    linear: as `to_model_grid`.

    Raises:
        InputError: the two images' axes are turned against each other, or `volume` lacks a tenth or more of `model`.
    """
    if on_one_grid(volume, model):
        return volume
    permutation, samples = _samples_in(
        volume.affine,
        model,
        "low dose and normal dose do not have parallel axes (with a tilted gantry both must lie on one grid)",
    )
    for axis, along in zip(permutation, samples, strict=True):
        covered = along.covered(volume.data.shape[axis])
        if (covered.stop - covered.start) < 0.9 * abs(along.step) * along.count:
            raise InputError("low dose and normal dose do not show the same part of the patient")
    return _sampled(volume, model, permutation, samples, linear)


def common_part(volume: Volume, model: Volume) -> tuple[slice, slice, slice]:
    """The voxels of `model` that have their centres inside `volume`, whose axes are parallel to the model's.

    `resample_like` continues a volume beyond its border with copies of its edge.
    """
    index_map = np.linalg.inv(volume.affine) @ model.affine
    parts = []
    for axis, count in enumerate(model.data.shape):
        along = int(np.argmax(np.abs(index_map[:3, axis])))
        positions = index_map[along, 3] + index_map[along, axis] * np.arange(count)
        reach = 0.5 + SAME_GRID_VOXELS
        inside = np.flatnonzero((positions >= -reach) & (positions <= volume.data.shape[along] - 1 + reach))
        parts.append(slice(int(inside[0]), int(inside[-1]) + 1))
    return tuple(parts)


def follow_to_model_grid(volume: Volume, model_input: Volume, *, linear: bool = True) -> Volume:
    """Puts an image on the scan's own grid where `to_model_grid` has put the scan. linear: as there."""
    if on_one_grid(volume, model_input):
        return volume
    if _shear(volume.affine) > RIGHT_ANGLE:
        return _from_sheared(volume, model_input.affine, model_input.data.shape, linear)
    permutation, samples = _samples_in(volume.affine, model_input, "the image does not follow the scan's axes")
    return _sampled(volume, model_input, permutation, samples, linear)


def is_on_model_grid(
    volume: Volume,
    *,
    voxel_mm: float | tuple[float, float, float] = DEFAULT_VOXEL_MM,
    axis_codes: str = DEFAULT_AXIS_CODES,
) -> bool:
    """Whether axes and voxel size are the model's already."""
    ratios = np.array(volume.voxel_mm) / voxel_mm
    codes = "".join(nib.aff2axcodes(volume.affine))
    return (
        codes == axis_codes
        and bool((np.abs(ratios - 1) <= SAME_SPACING).all())
        and _shear(volume.affine) <= RIGHT_ANGLE
    )


def body_box(volume: Volume, margin_mm: float) -> list[tuple[int, int]]:
    """First and one past the last voxel of the body plus a margin, per axis; everything where no body is found."""
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


def above_cap(volume: Volume, suv_max: float = DEFAULT_SUV_MAX) -> dict[str, float]:
    """Voxels that clipping at suv_max cuts off: their number, peak SUV, volume in mL."""
    voxels = int(np.count_nonzero(volume.data > suv_max))
    return {"voxels": voxels, "peak": float(volume.data.max()), "ml": voxels * volume.voxel_ml}


def _check_extent(volume: Volume) -> None:
    """Refuses voxel sizes that no PET image has, as in metres, before memory is allocated for a grid made from them."""
    check_voxel_mm(volume.voxel_mm, "the input's header")
    extent = np.array(volume.voxel_mm) * volume.data.shape
    if extent.max() > LARGEST_EXTENT_MM:
        raise InputError(
            f"the input's header: no PET image is {' x '.join(f'{length:.4g}' for length in extent)} mm large;"
            " repair its voxel size"
        )


def _sampled(
    volume: Volume, model: Volume, permutation: tuple[int, ...], samples: list[Samples], linear: bool
) -> Volume:
    """The volume on the grid of `model`, whose axes it follows as `_samples_in` says."""
    data = _resample(np.transpose(volume.data, permutation), samples, linear)
    return replace(model, data=data, unit=volume.unit, source=volume.source)


def _resample(data: np.ndarray, samples: list[Samples], linear: bool = False) -> np.ndarray:
    """float32 [X, Y, Z] at new samples along each axis; not below zero unless `data` is or `linear` allows it."""
    operators = [there_operator(along, size) for along, size in zip(samples, data.shape, strict=True)]
    covered = data[tuple(part for _, part in operators)]
    resampled = np.ascontiguousarray(apply_separable(covered, [operator for operator, _ in operators]))
    return resampled if linear else np.maximum(resampled, min(0.0, float(data.min())), out=resampled)


def _from_sheared(volume: Volume, affine: np.ndarray, shape: tuple[int, int, int], linear: bool) -> Volume:
    """A sheared volume on an upright grid; not below zero unless it is itself or `linear` allows it."""
    index_map = np.linalg.inv(volume.affine) @ affine
    data = sample(smoothed_for(volume.data, index_map), index_map, shape)
    if not linear:
        np.maximum(data, min(0.0, float(volume.data.min())), out=data)
    return replace(volume, data=data, affine=affine)


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


def _model_samples(box: tuple[int, int], step: float, sign: int) -> Samples:
    """Model voxels, `step` input voxels wide, that cover the input voxels [box) and are centred on them."""
    if abs(step - 1) <= SAME_SPACING:
        step = 1.0
    count = max(1, int(np.ceil((box[1] - box[0]) / step - 1e-3)))
    return Samples((box[0] + box[1] - 1) / 2 - sign * step * (count - 1) / 2, sign * step, count)


def _index_map(permutation: tuple[int, ...], samples: list[Samples]) -> np.ndarray:
    """4x4: model index -> input index."""
    index_map = np.zeros((4, 4))
    index_map[3, 3] = 1
    for axis, (source, along) in enumerate(zip(permutation, samples, strict=True)):
        index_map[source, axis], index_map[source, 3] = along.step, along.first
    return index_map


def _samples_in(affine: np.ndarray, model: Volume, otherwise: str) -> tuple[tuple[int, ...], list[Samples]]:
    """The input axis that each model axis follows, and the positions of the model's voxels along it.

    Raises InputError with the message `otherwise` where it follows none.
    """
    index_map = np.linalg.inv(affine) @ model.affine
    permutation = tuple(int(k) for k in np.argmax(np.abs(index_map[:3, :3]), axis=0))
    steps = index_map[permutation, (0, 1, 2)]
    rest = index_map[:3, :3].copy()
    rest[permutation, (0, 1, 2)] = 0
    if sorted(permutation) != [0, 1, 2] or np.abs(rest).max() > 1e-4:
        raise InputError(otherwise)
    firsts = index_map[list(permutation), 3]
    return permutation, [
        Samples(float(first), float(step), count)
        for first, step, count in zip(firsts, steps, model.data.shape, strict=True)
    ]


def _shear(affine: np.ndarray) -> float:
    """Largest cosine between two axes; 0 where all angles are right."""
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return float(np.abs(axes.T @ axes - np.eye(3)).max())
