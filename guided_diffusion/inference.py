"""From a low-dose volume to a denoised one: patches, ranks, and back to one volume.

`denoise_volume` is the Python door; `scripts/test.py` goes through it too. Volumes on the model's grid are arrays
[X, Y, Z] = (anterior-posterior, left-right, axial); tensors are [N, C, Z, X, Y].
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from torch import Tensor
from tqdm import tqdm

from guided_diffusion.config import PreprocessingConfig
from guided_diffusion.dist_util import on_root
from guided_diffusion.errors import InputError
from guided_diffusion.gaussian_diffusion import GaussianDiffusion
from guided_diffusion.normalisation import denormalise, normalise
from guided_diffusion.patch_sampling import PUBLISHED_ORDER, PatchResult, PatchTask, Sampling, sample_batch
from guided_diffusion.pet.geometry import back_to_input_grid, to_model_grid
from guided_diffusion.pet.patches import PatchPlan, pad_in_plane, plan_axial_patches
from guided_diffusion.pet.volume import Volume
from guided_diffusion.resume import FinishedPatches
from guided_diffusion.tasks import share_tasks
from guided_diffusion.unet import SuperResModel

PUBLISHED_GRID = PreprocessingConfig()


@dataclass(frozen=True)
class Denoised:
    """What rank 0 has after `denoise_volume`.

    samples: normalised, on the model's grid, as sampled. model_input: the low-dose volume (SUV) on the model's grid.
    volume: SUV on the input's own grid. timings: one entry per batch of patches.
    """

    samples: np.ndarray
    model_input: Volume
    volume: Volume
    plan: PatchPlan
    timings: list[dict]


def denoise_volume(
    volume: Volume | None,
    model: SuperResModel,
    diffusion: GaussianDiffusion,
    sampling: Sampling = PUBLISHED_ORDER,
    preprocessing: PreprocessingConfig = PUBLISHED_GRID,
    *,
    above_cap: str = "keep",
    expected_patches: int | None = None,
    finished: FinishedPatches | None = None,
) -> Denoised | None:
    """Denoise a volume over all MPI ranks; every rank calls this, rank 0 with the volume and the others with None.

    volume: in SUV, on any grid. model: in evaluation mode on this rank's device. above_cap: what becomes of uptake
    above suv_max, see `back_to_input_grid`. expected_patches: raise InputError unless the plan has as many. finished:
    where rank 0 keeps finished patches, so that an interrupted run can be continued.
    Returns the result on rank 0 and None elsewhere.
    """
    prepared = on_root(_prepare, volume, preprocessing, expected_patches)
    if prepared is None:
        _join_patches(model, diffusion, sampling)
        return None
    model_input, plan = prepared
    low_dose = normalise(model_input.data, preprocessing.suv_max)
    samples, timings = _lead_patches(low_dose, plan, model, diffusion, sampling, finished)
    denoised = denormalise(np.maximum(samples, 0), preprocessing.suv_max)
    back = back_to_input_grid(
        Volume(denoised, model_input.affine, "SUV"),
        model_input,
        volume,
        above_cap=above_cap,
        suv_max=preprocessing.suv_max,
    )
    return Denoised(samples, model_input, back, plan, timings)


def _prepare(
    volume: Volume, preprocessing: PreprocessingConfig, expected_patches: int | None
) -> tuple[Volume, PatchPlan]:
    """The volume on the model's grid and the plan of its patches."""
    if volume.unit != "SUV":
        raise InputError(f"the scan is in {volume.unit}, but the network knows SUV by body weight only")
    on_grid = to_model_grid(volume, voxel_mm=preprocessing.voxel_mm, axis_codes=preprocessing.axis_codes)
    plan = plan_axial_patches(on_grid.data.shape[2], preprocessing.patch_size, preprocessing.overlap)
    if expected_patches not in (None, len(plan.starts)):
        raise InputError(
            f"--num_samples {expected_patches} contradicts the plan: {plan.length} slices take"
            f" {len(plan.starts)} patches of {plan.patch_size}; leave the flag out"
        )
    return on_grid, plan


def _join_patches(model: SuperResModel, diffusion: GaussianDiffusion, sampling: Sampling) -> None:
    """The part of the ranks other than 0: sample what rank 0 sends."""
    share_tasks(
        None,
        partial(_sample, model, diffusion, sampling),
        on_result=lambda *_: None,
        on_step=lambda: None,
    )


def _lead_patches(
    low_dose: np.ndarray,
    plan: PatchPlan,
    model: SuperResModel,
    diffusion: GaussianDiffusion,
    sampling: Sampling,
    finished: FinishedPatches | None,
) -> tuple[np.ndarray, list[dict]]:
    """Rank 0's part: share the patches of a normalised volume [X, Y, Z] among the ranks, sample and stitch them.

    Returns the samples [X, Y, Z] and a timing per batch that this run computed.
    """
    padded = pad_in_plane(low_dose, model.config.in_plane_multiple)
    batches = _batches(len(plan.starts), sampling.batch_size)
    stitched = np.zeros(padded.shape, dtype=np.float32)
    timings = []

    def place(batch: range, samples: np.ndarray) -> None:
        for patch, sample in zip(batch, samples, strict=True):
            plan.add(stitched, patch, sample)

    remaining = []
    for number, batch in enumerate(batches):
        kept = finished.load(number) if finished else None
        if kept is None:
            remaining.append(number)
        else:
            place(batch, kept)
    tasks = [_task(padded, plan, batches[number]) for number in remaining]
    with tqdm(total=len(tasks) * diffusion.num_timesteps, unit="NFE", desc="denoising", disable=None) as progress:

        def on_result(index: int, result: PatchResult) -> None:
            batch = batches[remaining[index]]
            place(batch, result.samples)
            if finished:
                finished.save(remaining[index], result.samples)
            timings.append({"patches": list(batch), "rank": result.rank, "seconds": round(result.seconds, 3)})

        share_tasks(
            tasks,
            partial(_sample, model, diffusion, sampling),
            on_result,
            on_step=progress.update,
        )
    timings.sort(key=lambda timing: timing["patches"])
    return stitched[: low_dose.shape[0], : low_dose.shape[1]], timings


def _sample(
    model: SuperResModel, diffusion: GaussianDiffusion, sampling: Sampling, task: PatchTask, on_step: Callable[[], None]
) -> PatchResult:
    """Sample one batch of patches, reporting each step."""

    def after_step(x: Tensor) -> Tensor:
        on_step()
        return x

    return sample_batch(task, model, diffusion, sampling, after_step)


def _task(padded: np.ndarray, plan: PatchPlan, batch: range) -> PatchTask:
    """What a rank needs to know to sample a batch."""
    starts = tuple(plan.starts[number] for number in batch)
    return PatchTask(starts, np.stack([plan.extract(padded, number) for number in batch]))


def _batches(patches: int, batch_size: int) -> list[range]:
    """Patch numbers in batches of at most `batch_size`."""
    return [range(first, min(first + batch_size, patches)) for first in range(0, patches, batch_size)]
