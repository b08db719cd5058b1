"""`run.json`: what a run was given, what it did, and how long it took."""

import platform
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from guided_diffusion.dist_util import communicator
from guided_diffusion.inference.denoising import Denoised
from guided_diffusion.inference.presets import Settings
from guided_diffusion.inference.resume import fingerprint
from guided_diffusion.pet.geometry import above_cap
from guided_diffusion.pet.grid import Volume

_PACKAGES = ("pet-3d-ddpm", "torch", "numpy", "scipy", "nibabel", "pydicom", "mpi4py")


def describe_run(
    *,
    key: str,
    input_path: str,
    volume: Volume,
    model_path: str,
    weights: str,
    flags: dict[str, Any],
    settings: Settings,
    denoised: Denoised,
    nfe_per_patch: int,
    device: torch.device,
    threads: int,
    seconds: float,
) -> dict[str, Any]:
    """The manifest of one subject, plain values only.

    key: names the run's results. weights: the checkpoint's digest. nfe_per_patch: network calls on every patch.
    """
    return {
        "key": key,
        "input": {
            "name": Path(input_path).name,
            "sha256_of_voxels_and_affine": fingerprint(volume),
            "shape": list(volume.data.shape),
            "voxel_mm": [round(size, 4) for size in volume.voxel_mm],
            "unit": volume.unit,
            "source": dict(volume.source),
            "above_suv_max": above_cap(volume, settings.preprocessing.suv_max),
        },
        "checkpoint": {"name": Path(model_path).name, "sha256": weights},
        "flags": flags,
        "settings": settings.as_dict(),
        "model_grid": {"shape": list(denoised.samples.shape), "voxel_mm": list(settings.preprocessing.voxel_mm)},
        "plan": asdict(denoised.plan),
        "nfe_per_patch_and_realisation": nfe_per_patch,
        "patches": denoised.timings,
        "seconds": round(seconds, 3),
        "ranks": communicator().size,
        "device": str(device),
        "threads_per_rank": threads,
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in _PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
