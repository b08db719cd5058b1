"""Sampling one batch of patches on one rank: noise, network calls and the sampler's steps.

Volumes on the model's grid are arrays [X, Y, Z] = (anterior-posterior, left-right, axial); tensors are [N, C, Z, X, Y].
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from guided_diffusion import samplers
from guided_diffusion.config.inference_flags import Sampling
from guided_diffusion.dist_util import communicator
from guided_diffusion.inference.assembly import Assembly
from guided_diffusion.inference.loading import LoadedModel
from guided_diffusion.interfaces import Network, Process, without_margin
from guided_diffusion.noise import axial_noise
from guided_diffusion.pet.patches import PatchPlan
from guided_diffusion.ranks.stalls import sign_of_life, working

DRAWS_TOGETHER = 10
"""Images drawn of a patch per call: what they share is computed once, but all are held in memory."""


@dataclass(frozen=True)
class PatchTask:
    """Patches of one realisation: their first slices in the volume, and their normalised low-dose voxels.

    low_dose: [N, X, Y, margin + Z + margin], including the slices that are only context for the network. realisation:
    for methods with noise fields, the number of the group of images.
    """

    starts: tuple[int, ...]
    low_dose: np.ndarray
    margin: int = 0
    realisation: int = 0


@dataclass(frozen=True)
class PatchTiming:
    """The patches of a realisation that were sampled together, their rank, and the time it took in s."""

    realisation: int
    patches: list[int]
    rank: int
    seconds: float


@dataclass(frozen=True)
class PatchResult:
    """Denoised voxels of a batch, float32 [N, X, Y, Z], with the rank and the time of the computation.

    For methods with noise fields: [N, 1 + images, X, Y, Z], the mean and the images drawn about it.
    """

    samples: np.ndarray
    rank: int
    seconds: float

    def timing(self, realisation: int, patches: range) -> PatchTiming:
        """The timing of these patches."""
        return PatchTiming(realisation, list(patches), self.rank, round(self.seconds, 3))


class Blending(Protocol):
    """A way to sample the patches of a volume over all ranks and to blend them. Made on every rank alike."""

    def lead(self, padded: np.ndarray, plan: PatchPlan, batches: list[range], assembly: Assembly) -> list[PatchTiming]:
        """Rank 0's part: have the missing patches of the assembly sampled, and add them.

        padded: the normalised volume [X, Y, Z], with X and Y padded for the network. Returns the timings, in order.
        Raises PatchesTooLarge on all ranks if one runs out of memory.
        """

    def join(self) -> None:
        """The part of the other ranks: sample what rank 0 sends. Raises PatchesTooLarge when rank 0 does."""


def make_task(padded: np.ndarray, plan: PatchPlan, patches: range, realisation: int, margin: int = 0) -> PatchTask:
    """Returns the data with which a rank samples some patches of a volume [X, Y, Z].

    margin: slices that the network is shown at both ends; beyond the volume these are its outermost ones.
    """
    starts = tuple(plan.starts[number] for number in patches)
    offsets = np.arange(-margin, plan.patch_size + margin)
    shown = [padded[..., np.clip(start + offsets, 0, plan.length - 1)] for start in starts]
    return PatchTask(starts, np.stack(shown), margin, realisation)


def sample_batch(task: PatchTask, loaded: LoadedModel, after_step: samplers.AfterStep) -> PatchResult:
    """Sample patches together on this rank's device; `after_step` as in `samplers`."""
    began = time.perf_counter()
    sampling, diffusion = loaded.sampling, loaded.diffusion
    shown = torch.from_numpy(task.low_dose).permute(0, 3, 1, 2)[:, None].contiguous().to(loaded.device)
    low_dose = without_margin(shown, task.margin)

    def after(x: Tensor) -> Tensor:
        sign_of_life()
        return after_step(x)

    with working(f"slices {task.starts[0]} and on of realisation {task.realisation}"):
        if loaded.method.noise_fields:
            voxels = _draws(task, low_dose, loaded)
            after(low_dose)
        else:
            network = partial(_in_batches, loaded.model, sampling.batch_size)
            if sampling.mirrored:
                network = partial(_with_mirrored, network)
            noise_at = _noise_source(task, low_dose, diffusion, sampling)
            predict = samplers.Predictor(diffusion, network, {"low_res": shown}, sampling.clip_denoised)
            start = samplers.STARTS[sampling.start_from](diffusion, noise_at(samplers.START), low_dose)
            samples = samplers.SAMPLERS[sampling.sampler](predict, start, noise_at=noise_at, after_step=after)
            voxels = samples[:, 0].permute(0, 2, 3, 1).float().cpu().numpy()
    return PatchResult(np.ascontiguousarray(voxels), communicator().rank, time.perf_counter() - began)


def groups_of_draws(sampling: Sampling) -> list[range]:
    """The images to be drawn, in groups that are drawn together; at least one group, which also gives the mean."""
    return [
        range(first, min(first + DRAWS_TOGETHER, sampling.drawn))
        for first in range(0, max(1, sampling.drawn), DRAWS_TOGETHER)
    ]


@torch.no_grad()
def _draws(task: PatchTask, low_dose: Tensor, loaded: LoadedModel) -> np.ndarray:
    """Mean and images of a group, float32 [N, 1 + images, X, Y, Z].

    Patches are computed one at a time, as several together would differ from one alone in the last bits; the device
    holds one image at a time.
    """
    sampling, length, in_plane = loaded.sampling, low_dose.shape[2], tuple(low_dose.shape[3:])
    group = groups_of_draws(sampling)[task.realisation]
    fields = range(loaded.method.noise_fields)

    def noises(start: int) -> Iterator[Tensor]:
        slices = range(start, start + length)
        for number in group:
            sign_of_life()
            drawn = [axial_noise(sampling.seed, number, each, slices, in_plane) for each in fields]
            yield torch.cat(drawn, dim=1).to(low_dose.device)

    voxels = np.empty((len(low_dose), 1 + len(group), *in_plane, length), dtype=np.float32)
    for patch, start in enumerate(task.starts):
        images = loaded.method.draws(loaded.model, low_dose[patch : patch + 1], noises(start))
        for number, image in enumerate(images):
            voxels[patch, number] = image[0, 0].permute(1, 2, 0).float().cpu().numpy()
    return voxels.clip(-1, 1) if sampling.clip_denoised else voxels


def _in_batches(model: Network, size: int, x: Tensor, timesteps: Tensor, low_res: Tensor) -> Tensor:
    """The network's output for all patches, computed `size` patches at a time.

    With --fuse each_step a rank samples more patches together than the --batch_size that the network may take at once.
    A `UNetModel` computes a batch together; a `FastUNet`, whose layers hold one patch, computes it patch by patch.
    """
    if len(x) <= size:
        return model(x, timesteps, low_res=low_res)
    parts = zip(x.split(size), timesteps.split(size), low_res.split(size), strict=True)
    return torch.cat([model(part, t, low_res=low) for part, t, low in parts])


def _with_mirrored(network: Callable[..., Tensor], x: Tensor, timesteps: Tensor, low_res: Tensor) -> Tensor:
    """The mean of the network's outputs for patches [N, C, Z, X, Y] and for these mirrored along all axes.

    What differs between the two is error of the network, since mirrored noise is as likely.
    """
    axes = (2, 3, 4)
    mirrored = network(x.flip(axes), timesteps, low_res=low_res.flip(axes)).flip(axes)
    return 0.5 * (network(x, timesteps, low_res=low_res) + mirrored)


def _noise_source(task: PatchTask, low_res: Tensor, diffusion: Process, sampling: Sampling) -> samplers.NoiseSource:
    """The noise of a batch, [N, 1, Z, X, Y] on its device, step by step."""
    count, _, length, *in_plane = low_res.shape
    if sampling.noise == "per_patch":
        # All patches of a batch get the same draws, as each would alone.
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
