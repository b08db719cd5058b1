"""Section `samplers`: what the ways and lengths of walking the chain are worth, on lesions of a validation trial."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evaluation.benchmark.section import Section
from evaluation.metrics import clip_suv, psnr, ssim
from evaluation.uptake import SMALLEST_LESION_MM, bias_percent, lesions_over, suv_peak
from guided_diffusion.errors import InputError
from guided_diffusion.loading import load_model
from guided_diffusion.memory import keep_freed_memory
from guided_diffusion.normalisation import denormalise, normalise
from guided_diffusion.patch_sampling import PatchTask, sample_batch
from guided_diffusion.pet.cases import Case, read_cases
from guided_diffusion.pet.volume import load_volume

DOSE = 0.05
CROP = (48, 48, 24)
LOW_DOSE_START = 250


@dataclass(frozen=True)
class Walk:
    """A sampler, its timesteps as `--timestep_respacing` has them, and where it starts."""

    sampler: str
    respacing: str
    start_step: int | None = None

    @property
    def start(self) -> str:
        return "noise" if self.start_step is None else f"low dose, {self.start_step}"


def walks(longest: int) -> Iterator[Walk]:
    """The rows of the table: at most `longest` steps each."""
    for steps in filter(lambda steps: steps <= longest, (1, 2, 5, 10, 20, 50, 100, 250, 1000)):
        if steps > 1:
            yield Walk("ddpm", str(steps) if steps < 1000 else "")
        if steps <= 50:
            yield Walk("ddim", f"logsnr{steps}")
            yield Walk("dpmpp_2m", f"logsnr{steps}")
            yield Walk("dpmpp_2m_sde", f"logsnr{steps}")
        if steps <= 10:
            yield Walk("ddim", f"logsnr{steps}", LOW_DOSE_START)


@dataclass(frozen=True)
class LesionCrop:
    """The surroundings of a lesion, float32 [X, Y, Z] in SUV clipped to [0, 16], and the lesion's voxels."""

    low_dose: np.ndarray
    normal_dose: np.ndarray
    lesion: np.ndarray
    voxel_mm: tuple[float, float, float]


def measure_samplers(model_path: str, trial: Path | None, longest: int) -> Section:
    """The section for one crop per subject of a trial at 1/20 of the dose, around its largest lesion.

    Raises InputError without a trial, or for one that has no lesion over 10 mm at that dose.
    """
    if trial is None:
        raise InputError("--sections samplers needs --trial, the folder of a validation trial")
    keep_freed_memory()
    crops = [crop for case in read_cases(trial) if case.dose == DOSE and (crop := lesion_crop(case))]
    if not crops:
        raise InputError(f"{trial}: no subject has a lesion over {SMALLEST_LESION_MM:g} mm at 1/20 of the dose")
    rows = [_measure(walk, model_path, crops) for walk in walks(longest)]
    low_dose = _quality([crop.low_dose for crop in crops], crops)
    size = "x".join(map(str, CROP))
    return Section(
        name="samplers",
        title=f"Samplers on {len(crops)} crops of {size} voxels around lesions at 1/20 of the dose",
        values={"low_dose": low_dose, "walks": rows},
        header=("sampler", "timesteps", "start", "NFE", "PSNR (dB)", "SSIM", "SUVpeak bias (%)", "seconds a crop"),
        rows=[("low dose", "", "", "0", *_words(low_dose), ""), *(_row(row) for row in rows)],
        notes="Means over the crops; the bias is the mean of its absolute value. NFE: network calls.",
    )


def lesion_crop(case: Case) -> LesionCrop | None:
    """The crop around a case's largest lesion, None if it has none over 10 mm."""
    low_dose, normal_dose = load_volume(case.low_dose), load_volume(case.normal_dose)
    labels = load_volume(case.labels).data.astype(np.uint8)
    lesions = lesions_over(labels, low_dose.voxel_mm, SMALLEST_LESION_MM)
    if not lesions:
        return None
    lesion = labels == max(lesions, key=lesions.get)
    middle = np.argwhere(lesion).mean(axis=0).round().astype(int)
    first = np.clip(middle - np.array(CROP) // 2, 0, np.subtract(lesion.shape, CROP))
    window = tuple(slice(start, start + size) for start, size in zip(first, CROP, strict=True))
    low, normal = clip_suv(low_dose.data[window]), clip_suv(normal_dose.data[window])
    return LesionCrop(low, normal, lesion[window], low_dose.voxel_mm)


def _measure(walk: Walk, model_path: str, crops: list[LesionCrop]) -> dict[str, object]:
    flags = {"preset": "fast", "sampler": walk.sampler, "timestep_respacing": walk.respacing, "start_from": "noise"}
    if walk.start_step is not None:
        flags |= {"start_from": "low_dose", "start_step": walk.start_step}
    loaded = load_model(model_path, flags)
    suv_max, sampling = loaded.settings.preprocessing.suv_max, loaded.settings.sampling
    began = time.perf_counter()
    images = []
    for crop in crops:
        task = PatchTask((0,), normalise(crop.low_dose, suv_max)[None])
        result = sample_batch(task, loaded.model, loaded.diffusion, sampling, lambda x: x)
        images.append(denormalise(np.maximum(result.samples[0], 0), suv_max))
    seconds = (time.perf_counter() - began) / len(crops)
    calls = {"nfe": loaded.diffusion.num_timesteps, "seconds": seconds}
    return {"sampler": walk.sampler, "timesteps": walk.respacing, "start": walk.start} | calls | _quality(images, crops)


def _quality(images: list[np.ndarray], crops: list[LesionCrop]) -> dict[str, float]:
    """Means over the crops."""
    biases = [
        bias_percent(
            suv_peak(image, crop.lesion, crop.voxel_mm), suv_peak(crop.normal_dose, crop.lesion, crop.voxel_mm)
        )
        for image, crop in zip(images, crops, strict=True)
    ]
    pairs = [(crop.normal_dose, image) for image, crop in zip(images, crops, strict=True)]
    return {
        "psnr": float(np.mean([psnr(*pair) for pair in pairs])),
        "ssim": float(np.mean([ssim(*pair) for pair in pairs])),
        "suvpeak_bias_percent": float(np.mean(np.abs(biases))),
    }


def _words(quality: dict) -> tuple[str, str, str]:
    return f"{quality['psnr']:.2f}", f"{quality['ssim']:.4f}", f"{quality['suvpeak_bias_percent']:.1f}"


def _row(row: dict) -> tuple[str, ...]:
    return (
        row["sampler"],
        row["timesteps"] or "all",
        row["start"],
        str(row["nfe"]),
        *_words(row),
        f"{row['seconds']:.1f}",
    )
