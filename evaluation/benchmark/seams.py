"""Section `seams`: how far neighbouring patches agree, by the noise they see and by when they are blended."""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from evaluation.benchmark.section import Section
from evaluation.metrics import clip_suv, psnr, seam_index
from guided_diffusion.errors import InputError
from guided_diffusion.inference import denoise_volume
from guided_diffusion.loading import load_model
from guided_diffusion.memory import keep_freed_memory
from guided_diffusion.pet.cases import read_cases
from guided_diffusion.pet.volume import Volume, load_volume

DOSE = 0.05
IN_PLANE = 64
PATCHES = {"patch_size": 48, "overlap": 10}

# What is compared: the noise of neighbouring patches, and when they are blended.
WAYS = {
    "published: the same noise in every patch, blended at the end": {"noise": "per_patch"},
    "one noise field, blended at the end": {"noise": "field"},
    "one noise field, blended after each step": {"noise": "field", "fuse": "each_step"},
}


def measure_seams(model_path: str, trial: Path | None) -> Section:
    """The section for the first subject of a trial at 1/20 of the dose, a column through its middle.

    Raises InputError without a trial, or for one without that dose.
    """
    if trial is None:
        raise InputError("--sections seams needs --trial, the folder of a validation trial")
    case = next((case for case in read_cases(trial) if case.dose == DOSE), None)
    if case is None:
        raise InputError(f"{trial}: no subject at 1/20 of the dose")
    keep_freed_memory()
    low_dose, normal_dose = (_column(load_volume(path)) for path in (case.low_dose, case.normal_dose))
    reference = clip_suv(normal_dose.data)
    measured = {}
    for name, flags in WAYS.items():
        loaded = load_model(model_path, {"preset": "fast"} | flags)
        preprocessing = replace(loaded.settings.preprocessing, **PATCHES)
        began = time.perf_counter()
        done = denoise_volume(low_dose, loaded.model, loaded.diffusion, loaded.settings.sampling, preprocessing)
        seconds = time.perf_counter() - began
        image = clip_suv(done.volume.data)
        seams = seam_index(reference, image, done.plan)
        measured[name] = {"seam_index": seams, "psnr": psnr(reference, image), "seconds": seconds}
    shape = "x".join(map(str, low_dose.data.shape))
    return Section(
        name="seams",
        title=f"Borders of patches of {PATCHES['patch_size']} slices in a volume of {shape} at 1/20 of the dose",
        values={"shape": low_dose.data.shape, **PATCHES, "ways": measured},
        header=("", "seam index", "PSNR (dB)", "seconds"),
        rows=[
            (name, f"{row['seam_index']:.3f}", f"{row['psnr']:.2f}", f"{row['seconds']:.1f}")
            for name, row in measured.items()
        ],
        notes="Seam index: mean axial step of the error at the borders of patches over that elsewhere; 1 is no seam.",
    )


def _column(volume: Volume) -> Volume:
    """The middle of a volume in plane, over its whole length. The grid's position is of no interest here."""
    first = [max((size - IN_PLANE) // 2, 0) for size in volume.data.shape[:2]]
    column = volume.data[first[0] : first[0] + IN_PLANE, first[1] : first[1] + IN_PLANE]
    return replace(volume, data=np.ascontiguousarray(column))
