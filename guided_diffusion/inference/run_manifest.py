"""The content of `run.json`: input, settings, what was done, and how long it took."""

import platform
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from guided_diffusion.dist_util import communicator, device
from guided_diffusion.inference.denoising import Denoised
from guided_diffusion.inference.loading import LoadedModel
from guided_diffusion.inference.presets import without_effect
from guided_diffusion.inference.result_files import SAMPLES_SUV, cut_off_at
from guided_diffusion.inference.resume import code_of_results
from guided_diffusion.inference.subjects import place_of
from guided_diffusion.pet.fingerprint import fingerprint
from guided_diffusion.pet.geometry import above_cap
from guided_diffusion.pet.grid import Volume

_PACKAGES = ("pet-3d-ddpm", "torch", "numpy", "scipy", "nibabel", "pydicom", "mpi4py")


@dataclass(frozen=True)
class Run:
    """Everything that is the same for all subjects of a run.

    flags: of the command line. threads: CPU threads on each rank.
    """

    flags: dict[str, Any]
    loaded: LoadedModel
    threads: int


def describe_run(
    run: Run, key: str, input_path: str, volume: Volume, denoised: Denoised, seconds: float
) -> dict[str, Any]:
    """The manifest of one subject, plain values only. key: names its results. seconds: what it took."""
    settings = run.loaded.settings
    return {
        "key": key,
        "code": code_of_results(),
        "input": {
            "name": Path(input_path).name,
            "path": place_of(input_path),
            "sha256_of_voxels_and_affine": fingerprint(volume),
            "shape": list(volume.data.shape),
            "voxel_mm": [round(size, 4) for size in volume.voxel_mm],
            "unit": volume.unit,
            "source": dict(volume.source),
            "above_suv_max": above_cap(volume, settings.preprocessing.suv_max),
        },
        "checkpoint": {"name": Path(run.flags["model_path"]).name, "sha256": run.loaded.sha256},
        "flags": run.flags,
        "settings": settings.as_dict(),
        "without_effect": sorted(without_effect(run.loaded.method)),
        "model_grid": {
            "shape": list(denoised.samples.shape),
            "voxel_mm": list(settings.preprocessing.voxel_mm),
            "samples_suv": SAMPLES_SUV,
            "cut_off_at_suv": cut_off_at(denoised, settings.preprocessing.suv_max),
        },
        "plan": asdict(denoised.plan),
        "nfe_per_patch_and_realisation": _calls_of_realisation(run.loaded),
        "patches": [asdict(timing) for timing in denoised.timings],
        "seconds": round(seconds, 3),
        "ranks": communicator().size,
        "device": str(device()),
        "threads_per_rank": run.threads,
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in _PACKAGES},
    }


def _calls_of_realisation(loaded: LoadedModel) -> int | None:
    """Network calls for a patch of a realisation; None where several realisations share one."""
    if loaded.method.noise_fields:
        return None
    return loaded.diffusion.num_timesteps * (1 + loaded.sampling.mirrored)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
