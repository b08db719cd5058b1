"""Section `samplers`: image quality by sampler and number of steps, on slabs around lesions of a validation trial."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from evaluation.benchmark.section import Section
from evaluation.compared_scans import labels_on_grid_of
from evaluation.measures.image_fidelity import clip_suv, psnr, ssim
from evaluation.measures.uptake import SMALLEST_LESION_MM, bias_percent, lesions_over
from guided_diffusion.errors import InputError
from guided_diffusion.inference.denoising import denoise_volume
from guided_diffusion.inference.loading import load_model
from guided_diffusion.machine.memory import keep_freed_memory
from guided_diffusion.pet.grid import Volume
from guided_diffusion.pet.suv_peak import suv_peak
from guided_diffusion.pet.trial_manifest import Case, read_cases
from guided_diffusion.pet.volume import load_volume

DOSE = 0.05
# The whole plane, as networks get it: the statistics of their norms depend on how much of it is air.
SLICES = 8
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
        if steps <= 100:
            yield Walk("ddim", f"logsnr{steps}")
        if 1 < steps <= 100:  # a single step of DPM-Solver++ is DDIM's
            yield Walk("dpmpp_2m", f"logsnr{steps}")
            yield Walk("dpmpp_2m_sde", f"logsnr{steps}")
        if steps <= 10:
            yield Walk("ddim", f"logsnr{steps}", LOW_DOSE_START)


@dataclass(frozen=True)
class LesionSlab:
    """The slices around a lesion: the low dose, the normal dose (float32 [X, Y, Z] in SUV clipped to [0, 16]) and the
    lesion's voxels. The grid's position is not used.
    """

    low_dose: Volume
    normal_dose: np.ndarray
    lesion: np.ndarray


def measure_samplers(model_path: str, trial: Path | None, longest: int) -> Section:
    """The section for one slab per subject of a trial at 1/20 of the dose, around its largest lesion.

    Raises InputError without a trial, or for one that has no lesion over 10 mm at that dose.
    """
    if trial is None:
        raise InputError("--sections samplers needs --trial, the folder of a validation trial")
    keep_freed_memory()
    slabs = [slab for case in read_cases(trial) if case.dose == DOSE and (slab := lesion_slab(case))]
    if not slabs:
        raise InputError(f"{trial}: no subject has a lesion over {SMALLEST_LESION_MM:g} mm at 1/20 of the dose")
    rows = [_measure(walk, model_path, slabs) for walk in walks(longest)]
    low_dose = _quality([clip_suv(slab.low_dose.data) for slab in slabs], slabs)
    return Section(
        name="samplers",
        title=f"Samplers on {len(slabs)} slabs of {SLICES} slices around lesions at 1/20 of the dose",
        values={"low_dose": low_dose, "walks": rows},
        header=("sampler", "timesteps", "start", "NFE", "PSNR (dB)", "SSIM", "SUVpeak bias (%)", "seconds a slab"),
        rows=[("low dose", "", "", "0", *_words(low_dose), ""), *(_row(row) for row in rows)],
        notes="Means over the slabs; the bias is the mean of its absolute value. NFE: network calls.",
    )


def lesion_slab(case: Case) -> LesionSlab | None:
    """The slab around a case's largest lesion, None if it has none over 10 mm."""
    low_dose, normal_dose = load_volume(case.low_dose), load_volume(case.normal_dose)
    labels = labels_on_grid_of(low_dose, case.labels)
    lesions = lesions_over(labels, low_dose.voxel_mm, SMALLEST_LESION_MM)
    if not lesions:
        return None
    lesion = labels == max(lesions, key=lesions.get)
    middle = round(np.flatnonzero(lesion.any(axis=(0, 1))).mean())
    first = max(0, min(middle - SLICES // 2, lesion.shape[2] - SLICES))
    low, normal, lesion = (array[..., first : first + SLICES] for array in (low_dose.data, normal_dose.data, lesion))
    return LesionSlab(replace(low_dose, data=np.ascontiguousarray(low)), clip_suv(normal), lesion)


def _measure(walk: Walk, model_path: str, slabs: list[LesionSlab]) -> dict[str, object]:
    flags = {"preset": "fast", "sampler": walk.sampler, "timestep_respacing": walk.respacing, "start_from": "noise"}
    if walk.start_step is not None:
        flags |= {"start_from": "low_dose", "start_step": walk.start_step}
    loaded = load_model(model_path, flags)
    began = time.perf_counter()
    done = [denoise_volume(slab.low_dose, loaded) for slab in slabs]
    images = [clip_suv(denoised.volume.data) for denoised in done]
    seconds = (time.perf_counter() - began) / len(slabs)
    calls = {"nfe": loaded.diffusion.num_timesteps, "seconds": seconds}
    return {"sampler": walk.sampler, "timesteps": walk.respacing, "start": walk.start} | calls | _quality(images, slabs)


def _quality(images: list[np.ndarray], slabs: list[LesionSlab]) -> dict[str, float]:
    """Means over the slabs."""
    biases = []
    for image, slab in zip(images, slabs, strict=True):
        peaks = (suv_peak(volume, slab.lesion, slab.low_dose.voxel_mm) for volume in (image, slab.normal_dose))
        biases.append(bias_percent(*peaks))
    pairs = [(slab.normal_dose, image) for image, slab in zip(images, slabs, strict=True)]
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
