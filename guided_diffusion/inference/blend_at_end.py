"""Patches sampled each by itself, as tasks over the MPI ranks."""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from torch import Tensor
from tqdm import tqdm

from guided_diffusion.dist_util import communicator
from guided_diffusion.inference.assembly import Assembly
from guided_diffusion.inference.patch_sampling import PatchResult, PatchTask, Sampling, sample_batch
from guided_diffusion.interfaces import Network, Process
from guided_diffusion.memory import PatchesTooLarge, is_out_of_memory
from guided_diffusion.pet.patches import PatchPlan
from guided_diffusion.tasks import share_tasks


def join(model: Network, diffusion: Process, sampling: Sampling) -> None:
    """The part of the ranks other than 0: sample what rank 0 sends. Raises PatchesTooLarge when rank 0 does."""
    share_tasks(
        None,
        partial(_sample, model, diffusion, sampling),
        on_result=lambda *_: None,
        on_step=lambda: None,
    )
    _agree(None)


def lead(
    padded: np.ndarray,
    plan: PatchPlan,
    batches: list[range],
    assembly: Assembly,
    model: Network,
    diffusion: Process,
    sampling: Sampling,
) -> list[dict]:
    """Rank 0's part: share what the assembly misses among the ranks, and fill it.

    padded: the normalised volume [X, Y, Z], X and Y as the network needs them. Returns a timing per batch computed.
    Raises PatchesTooLarge, on all ranks, if one ran out of memory; no further task is handed out then.
    """
    missing = assembly.missing()
    timings = []
    too_large = False

    def tasks() -> Iterator[PatchTask]:
        for realisation, batch in missing:
            if too_large:
                return
            yield make_task(padded, plan, batches[batch], realisation)

    with tqdm(total=len(missing) * diffusion.num_timesteps, unit="NFE", desc="denoising", disable=None) as progress:

        def on_result(number: int, result: PatchResult | None) -> None:
            nonlocal too_large
            if result is None:
                too_large = True
                return
            realisation, batch = missing[number]
            assembly.add(realisation, batch, result.samples)
            timings.append(
                {
                    "realisation": realisation,
                    "patches": list(batches[batch]),
                    "rank": result.rank,
                    "seconds": round(result.seconds, 3),
                }
            )

        share_tasks(tasks(), partial(_sample, model, diffusion, sampling), on_result, on_step=progress.update)
    _agree(too_large)
    return sorted(timings, key=lambda timing: (timing["realisation"], timing["patches"]))


def make_task(padded: np.ndarray, plan: PatchPlan, patches: range, realisation: int) -> PatchTask:
    """What a rank needs to know to sample some patches of a volume [X, Y, Z]."""
    starts = tuple(plan.starts[number] for number in patches)
    return PatchTask(starts, np.stack([plan.extract(padded, number) for number in patches]), realisation)


def _sample(
    model: Network, diffusion: Process, sampling: Sampling, task: PatchTask, on_step: Callable[[], None]
) -> PatchResult | None:
    """Sample one batch of patches, reporting each step; None if there is not enough memory."""

    def after_step(x: Tensor) -> Tensor:
        on_step()
        return x

    try:
        return sample_batch(task, model, diffusion, sampling, after_step)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
    return None


def _agree(too_large: bool | None) -> None:
    """Rank 0 tells the others whether all patches fitted."""
    if communicator().bcast(too_large):
        raise PatchesTooLarge
