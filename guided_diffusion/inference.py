"""From a low-dose volume to a denoised one: patches, ranks, and back to one volume.

`denoise_volume` is the Python door; `scripts/test.py` goes through it too. Volumes on the model's grid are arrays
[X, Y, Z] = (anterior-posterior, left-right, axial); tensors are [N, C, Z, X, Y].
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from guided_diffusion import samplers
from guided_diffusion.config import PreprocessingConfig
from guided_diffusion.dist_util import communicator, on_root
from guided_diffusion.errors import InputError
from guided_diffusion.gaussian_diffusion import GaussianDiffusion
from guided_diffusion.noise import axial_noise
from guided_diffusion.normalisation import denormalise, normalise
from guided_diffusion.pet.geometry import back_to_input_grid, to_model_grid
from guided_diffusion.pet.patches import PatchPlan, pad_in_plane, plan_axial_patches
from guided_diffusion.pet.volume import Volume
from guided_diffusion.resume import FinishedPatches
from guided_diffusion.tasks import share_tasks
from guided_diffusion.unet import SuperResModel

PUBLISHED_SEED = 10


@dataclass(frozen=True)
class Sampling:
    """How patches are sampled.

    noise: "field" names the noise by axial slice, so that overlapping patches see the same; "per_patch" is the
    published protocol, in which every patch restarts PyTorch's generator from `seed`.
    """

    use_ddim: bool = False
    clip_denoised: bool = True
    noise: str = "field"
    seed: int = PUBLISHED_SEED
    batch_size: int = 1


PUBLISHED_ORDER = Sampling(noise="per_patch")
PUBLISHED_GRID = PreprocessingConfig()


@dataclass(frozen=True)
class PatchTask:
    """A batch of patches: their first slices in the volume, and their low-dose voxels [N, X, Y, Z], normalised."""

    starts: tuple[int, ...]
    low_dose: np.ndarray


@dataclass(frozen=True)
class PatchResult:
    """Denoised voxels of a batch, float32 [N, X, Y, Z], where they were computed and how long it took."""

    samples: np.ndarray
    rank: int
    seconds: float


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
        lambda task, on_step: _sample(task, model, diffusion, sampling, on_step),
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
            lambda task, on_step: _sample(task, model, diffusion, sampling, on_step),
            on_result,
            on_step=progress.update,
        )
    timings.sort(key=lambda timing: timing["patches"])
    return stitched[: low_dose.shape[0], : low_dose.shape[1]], timings


def _task(padded: np.ndarray, plan: PatchPlan, batch: range) -> PatchTask:
    """What a rank needs to know to sample a batch."""
    starts = tuple(plan.starts[number] for number in batch)
    return PatchTask(starts, np.stack([plan.extract(padded, number) for number in batch]))


def _batches(patches: int, batch_size: int) -> list[range]:
    """Patch numbers in batches of at most `batch_size`."""
    return [range(first, min(first + batch_size, patches)) for first in range(0, patches, batch_size)]


def _sample(
    task: PatchTask,
    model: SuperResModel,
    diffusion: GaussianDiffusion,
    sampling: Sampling,
    on_step: Callable[[], None],
) -> PatchResult:
    """Sample one batch of patches on this rank's device."""
    began = time.perf_counter()
    device = next(model.parameters()).device
    low_res = torch.from_numpy(task.low_dose).permute(0, 3, 1, 2)[:, None].contiguous().to(device)
    noise_at = _noise_source(task, low_res, diffusion, sampling)
    predict = samplers.Predictor(diffusion, model, {"low_res": low_res}, sampling.clip_denoised)
    start = noise_at(samplers.START)
    walk = samplers.ddim if sampling.use_ddim else samplers.ddpm
    samples = walk(predict, start, noise_at=noise_at, on_step=on_step)
    voxels = samples[:, 0].permute(0, 2, 3, 1).float().cpu().numpy()
    return PatchResult(np.ascontiguousarray(voxels), communicator().rank, time.perf_counter() - began)


def _noise_source(
    task: PatchTask, low_res: Tensor, diffusion: GaussianDiffusion, sampling: Sampling
) -> samplers.NoiseSource:
    """The noise of a batch, [N, 1, Z, X, Y] on its device, step by step."""
    count, _, length, *in_plane = low_res.shape
    if sampling.noise == "per_patch":
        # All patches of a batch see the same draws, as each would alone.
        torch.manual_seed(sampling.seed)
        return lambda _step: torch.randn(1, *low_res.shape[1:], device=low_res.device).expand(count, -1, -1, -1, -1)

    def field(step: int) -> Tensor:
        original = diffusion.config.diffusion_steps if step == samplers.START else diffusion.original_timesteps[step]
        slabs = [
            axial_noise(sampling.seed, 0, int(original), range(start, start + length), tuple(in_plane))
            for start in task.starts
        ]
        return torch.cat(slabs).to(low_res.device)

    return field
