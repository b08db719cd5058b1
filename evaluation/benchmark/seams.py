"""Section `seams`: visibility of patch borders, by the patches' noise and by when they are blended."""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from evaluation.benchmark.section import Section
from evaluation.measures.image_fidelity import clip_suv, psnr
from evaluation.measures.patch_seams import seam_index
from guided_diffusion.errors import InputError
from guided_diffusion.inference.denoising import denoise_volume
from guided_diffusion.inference.loading import load_model
from guided_diffusion.machine.memory import keep_freed_memory
from guided_diffusion.pet.geometry import resample_like
from guided_diffusion.pet.grid import Volume
from guided_diffusion.pet.normalisation import denormalise
from guided_diffusion.pet.trial_manifest import read_cases
from guided_diffusion.pet.volume import load_volume

DOSE = 0.05
SLICES = 96
PATCHES = {"patch_size": 32, "overlap": 10}

# Ways to compare: the noise of neighbouring patches, and when they are blended.
WAYS = {
    "published: the same noise in every patch, blended at the end": {"noise": "per_patch"},
    "one noise field, blended at the end": {"noise": "field"},
    "one noise field, blended after each step": {"noise": "field", "fuse": "each_step"},
}

# A chain of several steps beside what the checkpoint recommends, which may be a single call.
WALKS = {
    "recommended": {},
    "ancestral, 10 steps": {"sampler": "ddpm", "timestep_respacing": "10", "start_from": "noise"},
}


def measure_seams(model_path: str, trial: Path | None, chain: bool) -> Section:
    """The section for the middle of the first subject of a trial at 1/20 of the dose.

    chain: with all of `WALKS`, not only the first.

    Raises InputError without a trial, or for one without that dose.
    """
    if trial is None:
        raise InputError("--sections seams needs --trial, the folder of a validation trial")
    case = next((case for case in read_cases(trial) if case.dose == DOSE), None)
    if case is None:
        raise InputError(f"{trial}: no subject at 1/20 of the dose")
    keep_freed_memory()
    low_dose, normal_dose = (_middle(load_volume(path)) for path in (case.low_dose, case.normal_dose))
    rows = [
        _measure(sampler, way, model_path, low_dose, normal_dose)
        for sampler in list(WALKS)[: None if chain else 1]
        for way in WAYS
    ]
    shape = "x".join(map(str, low_dose.data.shape))
    return Section(
        name="seams",
        title=f"Borders of patches of {PATCHES['patch_size']} slices in a volume of {shape} at 1/20 of the dose",
        values={"shape": low_dose.data.shape, **PATCHES, "ways": rows},
        header=("sampler", "noise and blending", "seam index", "PSNR (dB)", "seconds"),
        rows=[
            (
                row["sampler"],
                row["way"],
                f"{row['seam_index']:.3f}",
                f"{row['psnr']:.2f}",
                f"{row['seconds']:.1f}",
            )
            for row in rows
        ],
        notes="Seam index: mean axial step of the error at the borders of patches over that elsewhere; 1 is no seam.",
    )


def _measure(sampler: str, way: str, model_path: str, low_dose: Volume, normal_dose: Volume) -> dict[str, str | float]:
    """One row: the volume denoised in patches, against the normal dose, both on the model's grid, on which patches lie.

    Raises InputError where that grid has no borders of patches.
    """
    loaded = load_model(model_path, {"preset": "fast"} | PATCHES | WAYS[way] | WALKS[sampler])
    grid = loaded.settings.preprocessing
    began = time.perf_counter()
    done = denoise_volume(low_dose, loaded)
    seconds = time.perf_counter() - began
    image = clip_suv(denormalise(done.samples, grid.suv_max))
    reference = clip_suv(resample_like(normal_dose, done.model_input, linear=grid.linear_transfer).data)
    seams = seam_index(reference, image, done.plan)
    return {"sampler": sampler, "way": way, "seam_index": seams, "psnr": psnr(reference, image), "seconds": seconds}


def _middle(volume: Volume) -> Volume:
    """The middle slices of a volume. The grid's position is not used."""
    first = max((volume.data.shape[2] - SLICES) // 2, 0)
    return replace(volume, data=np.ascontiguousarray(volume.data[..., first : first + SLICES]))
