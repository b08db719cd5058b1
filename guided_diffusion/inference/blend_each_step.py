"""A volume sampled as one: all its patches take every step together and agree after it.

Every rank holds a contiguous block of patches and walks them in lockstep with the other ranks; realisations follow one
another. A rank that has none waits without work.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor
from tqdm import tqdm

from guided_diffusion.dist_util import Tag, communicator, meet, wait_until
from guided_diffusion.inference.assembly import Assembly
from guided_diffusion.inference.blend_at_end import make_task
from guided_diffusion.inference.overlaps import Fusion
from guided_diffusion.inference.patch_sampling import PatchResult, PatchTask, Sampling, sample_batch
from guided_diffusion.interfaces import Network, Process
from guided_diffusion.memory import PatchesTooLarge, is_out_of_memory
from guided_diffusion.pet.patches import PatchPlan
from guided_diffusion.tasks import block_of


@dataclass(frozen=True)
class _Work:
    """A rank's share: its patches (None: it has none), who holds which, and the realisations to be sampled of them."""

    plan: PatchPlan
    owners: list[int]
    task: PatchTask | None
    realisations: list[int]


def join(model: Network, diffusion: Process, sampling: Sampling) -> None:
    """The part of the ranks other than 0: walk with the others what rank 0 sends. Raises PatchesTooLarge as they do."""
    work: _Work = _receive(0, Tag.SHARE)
    for realisation in work.realisations:
        if work.task is None:
            _agree(fits=True)
        else:
            result = _walk(work, realisation, model, diffusion, sampling)
            sent = communicator().isend(result, dest=0, tag=Tag.SAMPLES)
            wait_until(sent.Test)
    meet()


def lead(
    padded: np.ndarray,
    plan: PatchPlan,
    batches: list[range],
    assembly: Assembly,
    model: Network,
    diffusion: Process,
    sampling: Sampling,
) -> list[dict]:
    """Rank 0's part: share the patches out, walk with the others, and fill the assembly.

    padded: the normalised volume [X, Y, Z], X and Y as the network needs them. Returns a timing per rank's block of
    patches and realisation. Raises PatchesTooLarge, on all ranks, if one runs out of memory in the first network call.
    """
    comm = communicator()
    missing = set(assembly.missing())
    realisations = sorted({realisation for realisation, _ in missing})
    # Whole batches, so that what is computed together does not depend on the number of ranks.
    blocks = [block for rank in range(comm.size) if (block := block_of(rank, comm.size, len(batches)))]
    owners = [rank for rank, block in enumerate(blocks) for batch in block for _ in batches[batch]]
    work = [_Work(plan, owners, None, realisations)] * comm.size
    for rank, block in enumerate(blocks):
        work[rank] = replace(work[rank], task=make_task(padded, plan, _patches(batches, block), 0))
    sends = [comm.isend(work[rank], dest=rank, tag=Tag.SHARE) for rank in range(1, comm.size)]
    timings = []
    calls = len(batches) * diffusion.num_timesteps * len(realisations)
    with tqdm(total=calls, unit="NFE", desc="denoising", disable=None) as progress:

        def on_step() -> None:
            progress.update(len(batches))  # all ranks are at the same step

        for realisation in realisations:
            own = _walk(work[0], realisation, model, diffusion, sampling, on_step)
            for rank, block in enumerate(blocks):
                result = own if rank == 0 else _receive(rank, Tag.SAMPLES)
                patches = _patches(batches, block)
                for batch in block:
                    if (realisation, batch) in missing:
                        first = batches[batch].start - patches.start
                        assembly.add(realisation, batch, result.samples[first : first + len(batches[batch])])
                timings.append(
                    {
                        "realisation": realisation,
                        "patches": list(patches),
                        "rank": rank,
                        "seconds": round(result.seconds, 3),
                    }
                )
    wait_until(lambda: all(send.Test() for send in sends))
    meet()
    return timings


def _walk(
    work: _Work,
    realisation: int,
    model: Network,
    diffusion: Process,
    sampling: Sampling,
    on_step: Callable[[], None] = lambda: None,
) -> PatchResult:
    """Sample this rank's patches, fused with their neighbours after each step."""
    fuse = Fusion(work.plan, work.owners)
    agreed = False

    def after_step(x: Tensor) -> Tensor:
        nonlocal agreed
        if not agreed:
            _agree(fits=True)
            agreed = True
        on_step()
        return fuse(x)

    try:
        return sample_batch(replace(work.task, realisation=realisation), model, diffusion, sampling, after_step)
    except RuntimeError as error:
        # Later calls need no more memory than the first, and after it nobody listens.
        if agreed or not is_out_of_memory(error):
            raise
    return _agree(fits=False)


def _agree(fits: bool) -> None:
    """Once in every walk, before anything is exchanged: all ranks hear whether it fits everyone's memory."""
    meet()
    if not all(communicator().allgather(fits)):
        raise PatchesTooLarge


def _patches(batches: list[range], block: range) -> range:
    """The patches of consecutive batches."""
    return range(batches[block.start].start, batches[block.stop - 1].stop)


def _receive(rank: int, tag: int) -> Any:
    """A message from a rank, without burning a core while it is on its way."""
    comm = communicator()
    wait_until(lambda: comm.iprobe(source=rank, tag=tag))
    return comm.recv(source=rank, tag=tag)
