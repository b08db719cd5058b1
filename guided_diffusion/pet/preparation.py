"""Resamples any PET image to the model's grid, as a file for training or testing, and describes images."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np

from guided_diffusion.errors import InputError
from guided_diffusion.files import writable_folder, write_text
from guided_diffusion.pet.geometry import (
    above_cap,
    common_part,
    follow_to_model_grid,
    resample_like,
    to_model_grid,
)
from guided_diffusion.pet.grid import DEFAULT_AXIS_CODES, DEFAULT_VOXEL_MM, Volume, on_one_grid
from guided_diffusion.pet.normalisation import DEFAULT_SUV_MAX
from guided_diffusion.pet.suv import SUVOverrides
from guided_diffusion.pet.suv_bases import SUVBasis
from guided_diffusion.pet.text import times
from guided_diffusion.pet.volume import check_suffix, in_suv_basis, load_volume, save_pair, save_volume

# Peak beside the interpreter and its libraries, in float32 copies of the larger grid; measured on a GE series.
PREPARATION_COPIES = 2


@dataclass(frozen=True)
class ModelGrid:
    """The model's grid and what reading an image takes.

    voxel_mm: along X, Y, Z. axis_codes: where the axes grow to. margin_mm: air kept around the body.
    bare_voxel_mm: voxel size of arrays that carry no affine. linear: see `to_model_grid`.
    """

    voxel_mm: tuple[float, float, float] = DEFAULT_VOXEL_MM
    axis_codes: str = DEFAULT_AXIS_CODES
    margin_mm: float = 20.0
    bare_voxel_mm: tuple[float, float, float] = DEFAULT_VOXEL_MM
    suv_max: float = DEFAULT_SUV_MAX
    linear: bool = False


def load(
    path: str, grid: ModelGrid, series: str | None = None, overrides: SUVOverrides | None = None, channel: int = 0
) -> Volume:
    """The image in SUV, as `load_volume`, with bare arrays placed as `grid` says."""
    return load_volume(
        path,
        bare_voxel_mm=grid.bare_voxel_mm,
        bare_axis_codes=grid.axis_codes,
        series=series,
        overrides=overrides,
        channel=channel,
    )


def check_output(output: str, inputs: Sequence[str | None]) -> None:
    """Refuses, before anything is read, what could not be written afterwards; inputs: the image, and its partner.

    Raises:
        InputError: the name has another suffix than the formats that are written, the folder cannot be written, or an
            input would be replaced.
    """
    check_suffix(output)
    if len([path for path in inputs if path]) > 1 and Path(output).suffix != ".npz":
        raise InputError(f"cannot write {output}: a pair of low and normal dose needs the suffix .npz")
    writable_folder(Path(output).parent)
    if any(path and "://" not in path and Path(path).resolve() == Path(output).resolve() for path in inputs):
        raise InputError(f"cannot write {output}: it would replace the input; choose another name")


def prepare(
    volume: Volume,
    output: str | Path,
    grid: ModelGrid,
    *,
    normal_dose: Volume | None = None,
    dose: float | None = None,
    suv_basis: SUVBasis = "bw",
) -> Volume:
    """Resamples `volume` to the model's grid and writes `.npz` or NIfTI, with a record of how in `<output>.json`.

    With `normal_dose`, on any grid of the same patient position, both go into one training pair (`.npz`), which states
    the `dose` of the volume as a fraction of the other's, if it is known. What the normal dose does not show, is left
    out of both.

    Returns:
        The volume on the model's grid; its source says under "left_out" what is not in the pair.

    Raises:
        InputError: the output cannot be written, the basis does not follow from the image, or the two images do not
            belong together.
    """
    model = on_model_grid(volume, grid)
    if normal_dose is None:
        model = in_suv_basis(model, suv_basis)
        save_volume(model, output, description="PET-3D-DDPM prepare")
    elif Path(output).suffix != ".npz":
        raise InputError(f"cannot write {output}: a pair of low and normal dose needs the suffix .npz")
    else:
        model, partner = (in_suv_basis(image, suv_basis) for image in _pair(volume, model, normal_dose, grid.linear))
        save_pair(model, partner, output, dose)
    record = {
        "source": dict(model.source),
        "normal_dose_source": dict(normal_dose.source) if normal_dose else None,
        "input_shape": list(volume.data.shape),
        "input_affine": volume.affine.tolist(),
        "shape": list(model.data.shape),
        "affine": model.affine.tolist(),
        "unit": model.unit,
        "above_cap": above_cap(volume, grid.suv_max) | {"suv_max": grid.suv_max},
    }
    write_text(f"{output}.json", json.dumps(record, indent=1) + "\n")
    return model


def _pair(low_dose: Volume, model: Volume, normal_dose: Volume, linear: bool) -> tuple[Volume, Volume]:
    """The two images of a pair on the model's grid, as far as both show the patient.

    model: what became of the low dose there. Raises InputError where they are in different units or do not belong
    together.
    """
    if low_dose.unit != normal_dose.unit:
        raise InputError(
            f"the low dose is in {low_dose.unit} and the normal dose in {normal_dose.unit}: give both in one"
        )
    if on_one_grid(low_dose, normal_dose):
        return model, follow_to_model_grid(normal_dose, model, linear=linear)
    if not any(image.source.get("is_placed", True) for image in (low_dose, normal_dose)):
        raise InputError(
            f"low dose and normal dose are arrays of {times(low_dose.data.shape)} and {times(normal_dose.data.shape)}"
            " voxels, which do not say where they lie; give them in one shape, or with an affine"
        )
    partner = resample_like(normal_dose, model, linear=linear)
    common = common_part(normal_dose, model)
    lacking = [
        f"{count - (part.stop - part.start)} of {count} slices along {axis}"
        for axis, part, count in zip("XYZ", common, model.data.shape, strict=True)
        if part != slice(0, count)
    ]
    if not lacking:
        return model, partner
    source = {**model.source, "left_out": f"{', '.join(lacking)}, which the normal dose does not show"}
    return replace(_part_of(model, common), source=source), _part_of(partner, common)


def _part_of(volume: Volume, part: tuple[slice, slice, slice]) -> Volume:
    affine = volume.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ [along.start for along in part]
    return replace(volume, data=np.ascontiguousarray(volume.data[part]), affine=affine)


def describe(volume: Volume, grid: ModelGrid) -> list[tuple[str, str]]:
    """A table of an image: what it is, how it became SUV, and what preparing it takes."""
    model = on_model_grid(volume, grid)
    hot = above_cap(volume, grid.suv_max)
    megabytes = PREPARATION_COPIES * max(volume.data.nbytes, model.data.nbytes) / 1e6
    return [
        ("format", str(volume.source.get("format"))),
        ("grid", times(volume.data.shape)),
        ("voxel (mm)", times(volume.voxel_mm)),
        *([("slice spacing", str(volume.source["spacing"]))] if "spacing" in volume.source else []),
        ("orientation", _orientation(volume)),
        ("units", f"{volume.source.get('stored_units', 'unnamed')} -> {volume.unit}"),
        ("SUV factor", _factor(volume.source.get("suv_factor", 1.0))),
        ("how found", str(volume.source.get("suv"))),
        ("peak SUV", f"{hot['peak']:.3g}"),
        (f"above SUV {grid.suv_max:g}", f"{hot['voxels']} voxels, {hot['ml']:.3g} mL"),
        ("model grid", f"{times(model.data.shape)}, {times(model.voxel_mm)} mm"),
        ("memory", f"{megabytes:.0f} MB to read and resample; the network's own depends on device and precision"),
    ]


def table(rows: list[tuple[str, str]]) -> str:
    """Rows as lines of two columns."""
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def on_model_grid(volume: Volume, grid: ModelGrid) -> Volume:
    """The volume on that grid, as `to_model_grid`."""
    return to_model_grid(
        volume, voxel_mm=grid.voxel_mm, axis_codes=grid.axis_codes, margin_mm=grid.margin_mm, linear=grid.linear
    )


def _factor(factor: object) -> str:
    if isinstance(factor, list):
        return f"{factor[0]:.6g} to {factor[1]:.6g} per slice"
    return f"{factor:.6g}"


def _orientation(volume: Volume) -> str:
    codes = "".join(nib.aff2axcodes(volume.affine))
    if "orientation" in volume.source:
        return f"{codes}, {volume.source['orientation']}"
    degrees = float(np.degrees(nib.affines.obliquity(volume.affine)).max())
    return codes if degrees < 0.05 else f"{codes}, {degrees:.1f} degrees oblique"
