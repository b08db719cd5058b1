"""The files of a denoised scan: writing them, and reading them again."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from guided_diffusion.files import atomic_write, write_text
from guided_diffusion.inference.denoising import Denoised
from guided_diffusion.inference.subjects import DENOISED_NAME, MANIFEST_NAME, UNCERTAINTY_NAME, Subject, digest_of
from guided_diffusion.pet.formats import arrays, volume_formats
from guided_diffusion.pet.geometry import back_to_input_grid
from guided_diffusion.pet.grid import Volume, on_one_grid
from guided_diffusion.pet.normalisation import DEFAULT_SUV_MAX
from guided_diffusion.pet.suv_bases import SUVBasis, ratio_of
from guided_diffusion.pet.volume import in_suv_basis, save_volume

SAMPLES_SUV = DEFAULT_SUV_MAX
"""SUV of the value 1 in the arrays on the model's grid, whatever the range of the network."""


def write_volumes(
    subject: Subject, denoised: Denoised, suv_max: float, description: str, suv_basis: SUVBasis
) -> list[Path]:
    """Write a subject's volumes, and return their paths.

    Always `samples_<X>x<Y>x<Z>.npz` (`arr_0` [X, Y, Z] float32, SUV/16 on the model's grid; cut off at SUV 16 if the
    network has a larger range), and `denoised.nii.gz` (SUV in the given basis, on the scan's own grid) unless the scan
    is an array that already lies on the model's grid. After several realisations these are their mean;
    `uncertainty_<X>x<Y>x<Z>.npz` and `uncertainty.nii.gz` are their standard deviation, in the same units.

    suv_max: the SUV by which the values in `denoised` are divided.
    """
    scale = np.float32(suv_max / SAMPLES_SUV)
    samples = denoised.samples * scale
    on_model_grid = {"samples": np.minimum(samples, 1) if scale > 1 else samples}
    if denoised.samples_sd is not None:
        on_model_grid["uncertainty"] = denoised.samples_sd * scale
    volumes = {DENOISED_NAME: denoised.volume, UNCERTAINTY_NAME: denoised.volume_sd}
    written = [_write_array(subject.folder, name, array) for name, array in on_model_grid.items()]
    if not is_bare(denoised):
        for name, volume in volumes.items():
            if volume is not None:
                save_volume(in_suv_basis(volume, suv_basis), subject.folder / name, description=description)
                written.append(subject.folder / name)
    return written


def load_results(subject: Subject, scan: Volume, manifest: Mapping[str, Any]) -> tuple[Volume, Volume | None]:
    """A finished subject's denoised volume and its standard deviation (or None), in SUV by body weight.

    For an array on the model's grid, the result is transferred to the scan again, as in denoising; above the largest
    SUV of the stored samples it is the input (`linear_transfer`), or differs from it as they do from that SUV. Negative
    values are then set to 0 in the mean of several realisations, not in each.
    """
    basis = manifest["flags"]["suv_basis"]
    ratio = 1.0 if basis == "bw" else ratio_of(basis, scan.source.get("suv_basis_ratios", {}))
    suv_max = manifest["settings"]["preprocessing"]["suv_max"]
    samples_suv = manifest["model_grid"]["samples_suv"]
    shape = "x".join(map(str, manifest["model_grid"]["shape"]))

    def load(name: str, factor: float) -> Volume | None:
        path = subject.folder / name
        return replace(scan, data=volume_formats.read(path).data * np.float32(factor)) if path.is_file() else None

    denoised, deviation = load(DENOISED_NAME, 1 / ratio), load(UNCERTAINTY_NAME, 1 / ratio)
    if denoised is None:
        samples = load(f"samples_{shape}.npz", samples_suv)
        positive = replace(samples, data=np.maximum(samples.data, 0))
        cap = min(suv_max, samples_suv)
        if manifest["settings"]["preprocessing"]["linear_transfer"]:
            denoised = replace(scan, data=np.where(positive.data < cap, positive.data, scan.data))
        else:
            denoised = back_to_input_grid(positive, scan, scan, above_cap=manifest["flags"]["above_cap"], suv_max=cap)
        deviation = load(f"uncertainty_{shape}.npz", samples_suv)
    return denoised, deviation


def _write_array(folder: Path, name: str, array: np.ndarray) -> Path:
    path = folder / f"{name}_{'x'.join(str(size) for size in array.shape)}.npz"
    with atomic_write(path) as temporary:
        np.savez(temporary, arr_0=array)
    return path


def write_manifest(subject: Subject, manifest: dict[str, Any], written: list[Path]) -> Path:
    """Write `run.json`, which lists what was `written` into the subject's folder and says that it is complete."""
    path = subject.folder / MANIFEST_NAME
    listing = manifest | {
        "files": [result.name for result in written],
        "sha256": {result.name: digest_of(result) for result in written},
    }
    write_text(path, json.dumps(listing, indent=2, default=str) + "\n")
    return path


def cut_off_at(denoised: Denoised, suv_max: float) -> float | None:
    """The SUV at which the files of a result end, None where they hold all of it.

    Uptake above that is in `denoised.nii.gz` only, which an array on the model's grid does not get. suv_max: as in
    `write_volumes`.
    """
    end = min(suv_max, SAMPLES_SUV)
    rounding = 1e-3
    return end if is_bare(denoised) and denoised.volume.data.max() > end + rounding else None


def is_bare(denoised: Denoised) -> bool:
    """Whether a scan is an array on the model's grid, with no other grid to go back to."""
    # Not by shape: an array with an affine may have as many voxels along other axes.
    return denoised.volume.source.get("format") in arrays.NAMES and on_one_grid(denoised.volume, denoised.model_input)
