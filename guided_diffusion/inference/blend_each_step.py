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

from guided_diffusion.dist_util import communicator, meet, wait_until
from guided_diffusion.inference.assembly import Assembly
from guided_diffusion.inference.loading import LoadedModel
from guided_diffusion.inference.overlaps import Fusion
from guided_diffusion.inference.patch_sampling import PatchResult, PatchTask, PatchTiming, make_task, sample_batch
from guided_diffusion.memory import PatchesTooLarge, is_out_of_memory
from guided_diffusion.pet.patches import PatchPlan
from guided_diffusion.tasks import Tag, block_of


@dataclass(frozen=True)
class _Share:
    """A rank's share: its patches (None: it has none), the rank of each patch, and the realisations to sample."""

    plan: PatchPlan
    owners: list[int]
    task: PatchTask | None
    realisations: list[int]


class BlendEachStep:
    """A `Blending` of neighbouring patches after every step of their walks."""

    def __init__(self, loaded: LoadedModel):
        self._loaded = loaded

    def join(self) -> None:
        """The part of the ranks other than 0."""
        share: _Share = _receive(0, Tag.SHARE)
        for realisation in share.realisations:
            if share.task is None:
                _agree(fits=True)
            else:
                result = self._walk(share, realisation)
                sent = communicator().isend(result, dest=0, tag=Tag.SAMPLES)
                wait_until(sent.Test)
        meet()

    def lead(self, padded: np.ndarray, plan: PatchPlan, batches: list[range], assembly: Assembly) -> list[PatchTiming]:
        """Rank 0's part: share the patches out and walk with the others. Memory is short in the first call or never."""
        comm = communicator()
        missing = set(assembly.missing())
        realisations = sorted({realisation for realisation, _ in missing})
        # Whole batches, so that what is computed together does not depend on the number of ranks.
        blocks = [block for rank in range(comm.size) if (block := block_of(rank, comm.size, len(batches)))]
        owners = [rank for rank, block in enumerate(blocks) for batch in block for _ in batches[batch]]
        shares = [_Share(plan, owners, None, realisations)] * comm.size
        for rank, block in enumerate(blocks):
            task = make_task(padded, plan, _patches(batches, block), 0, self._loaded.margin)
            shares[rank] = replace(shares[rank], task=task)
        sends = [comm.isend(shares[rank], dest=rank, tag=Tag.SHARE) for rank in range(1, comm.size)]
        timings = []
        calls = len(batches) * self._loaded.diffusion.num_timesteps * len(realisations)
        with tqdm(total=calls, unit="NFE", desc="denoising", disable=None) as progress:

            def on_step() -> None:
                progress.update(len(batches))  # all ranks are at the same step

            for realisation in realisations:
                own = self._walk(shares[0], realisation, on_step)
                for rank, block in enumerate(blocks):
                    result = own if rank == 0 else _receive(rank, Tag.SAMPLES)
                    patches = _patches(batches, block)
                    for batch in block:
                        if (realisation, batch) in missing:
                            first = batches[batch].start - patches.start
                            assembly.add(realisation, batch, result.samples[first : first + len(batches[batch])])
                    timings.append(result.timing(realisation, patches))
        wait_until(lambda: all(send.Test() for send in sends))
        meet()
        return timings

    def _walk(self, share: _Share, realisation: int, on_step: Callable[[], None] = lambda: None) -> PatchResult:
        """Sample this rank's patches, fused with their neighbours after each step."""
        fuse = Fusion(share.plan, share.owners)
        agreed = False

        def after_step(x: Tensor) -> Tensor:
            nonlocal agreed
            if not agreed:
                _agree(fits=True)
                agreed = True
            on_step()
            return fuse(x)

        try:
            return sample_batch(replace(share.task, realisation=realisation), self._loaded, after_step)
        except RuntimeError as error:
            # Later calls need no more memory than the first, and after it no rank receives such a message.
            if agreed or not is_out_of_memory(error):
                raise
        return _agree(fits=False)


def _agree(fits: bool) -> None:
    """Once in every walk, before anything is exchanged: all ranks learn whether it fits the memory of each."""
    meet()
    if not all(communicator().allgather(fits)):
        raise PatchesTooLarge


def _patches(batches: list[range], block: range) -> range:
    """The patches of consecutive batches."""
    return range(batches[block.start].start, batches[block.stop - 1].stop)


def _receive(rank: int, tag: int) -> Any:
    """A message from a rank, without keeping a core busy while waiting."""
    comm = communicator()
    wait_until(lambda: comm.iprobe(source=rank, tag=tag))
    return comm.recv(source=rank, tag=tag)
