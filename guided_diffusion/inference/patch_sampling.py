"""Sampling one batch of patches on one rank: noise, network, walk.

Volumes on the model's grid are arrays [X, Y, Z] = (anterior-posterior, left-right, axial); tensors are [N, C, Z, X, Y].
"""

import time
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from guided_diffusion import samplers
from guided_diffusion.config.inference_flags import Sampling
from guided_diffusion.dist_util import communicator
from guided_diffusion.interfaces import Network, Process
from guided_diffusion.noise import axial_noise

PUBLISHED_ORDER = Sampling(noise="per_patch")


@dataclass(frozen=True)
class PatchTask:
    """Patches of one realisation: their first slices in the volume, and their low-dose voxels [N, X, Y, Z],
    normalised.
    """

    starts: tuple[int, ...]
    low_dose: np.ndarray
    realisation: int = 0


@dataclass(frozen=True)
class PatchResult:
    """Denoised voxels of a batch, float32 [N, X, Y, Z], where they were computed and how long it took."""

    samples: np.ndarray
    rank: int
    seconds: float


def sample_batch(
    task: PatchTask,
    model: Network,
    diffusion: Process,
    sampling: Sampling,
    after_step: samplers.AfterStep,
) -> PatchResult:
    """Sample patches together on this rank's device; `after_step` as in `samplers`.

    diffusion: the process as far as it is walked, that is up to `sampling.start_step`.
    """
    began = time.perf_counter()
    device = next(model.parameters()).device
    low_res = torch.from_numpy(task.low_dose).permute(0, 3, 1, 2)[:, None].contiguous().to(device)
    noise_at = _noise_source(task, low_res, diffusion, sampling)
    network = partial(_in_batches, model, sampling.batch_size)
    predict = samplers.Predictor(diffusion, network, {"low_res": low_res}, sampling.clip_denoised)
    start = samplers.STARTS[sampling.start_from](diffusion, noise_at(samplers.START), low_res)
    samples = samplers.SAMPLERS[sampling.sampler](predict, start, noise_at=noise_at, after_step=after_step)
    voxels = samples[:, 0].permute(0, 2, 3, 1).float().cpu().numpy()
    return PatchResult(np.ascontiguousarray(voxels), communicator().rank, time.perf_counter() - began)


def _in_batches(model: Network, size: int, x: Tensor, timesteps: Tensor, low_res: Tensor) -> Tensor:
    """The network's output for all patches, computed `size` patches at a time.

    Where patches are fused after each step, a rank walks with more of them than --batch_size lets a network see at
    once. What a network does with a batch is its own matter: a `UNetModel` computes it together, while a `FastUNet`,
    whose layers hold one patch, takes it patch by patch.
    """
    if len(x) <= size:
        return model(x, timesteps, low_res=low_res)
    parts = zip(x.split(size), timesteps.split(size), low_res.split(size), strict=True)
    return torch.cat([model(part, t, low_res=low) for part, t, low in parts])


def _noise_source(task: PatchTask, low_res: Tensor, diffusion: Process, sampling: Sampling) -> samplers.NoiseSource:
    """The noise of a batch, [N, 1, Z, X, Y] on its device, step by step."""
    count, _, length, *in_plane = low_res.shape
    if sampling.noise == "per_patch":
        # All patches of a batch see the same draws, as each would alone.
        torch.manual_seed(sampling.seed + task.realisation)
        return lambda _step: torch.randn(1, *low_res.shape[1:], device=low_res.device).expand(count, -1, -1, -1, -1)

    def field(step: int) -> Tensor:
        original = diffusion.config.diffusion_steps if step == samplers.START else diffusion.original_timesteps[step]
        slabs = [
            axial_noise(sampling.seed, task.realisation, int(original), range(start, start + length), tuple(in_plane))
            for start in task.starts
        ]
        return torch.cat(slabs).to(low_res.device)

    return field
