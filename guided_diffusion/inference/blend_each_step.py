"""Samples a volume as a whole: all patches take each step together and are blended after it.

Every rank holds a contiguous block of patches and advances in lockstep with the other ranks; realisations are sampled
one after another. A rank without patches waits.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor
from tqdm import tqdm

from guided_diffusion.dist_util import (
    SharedError,
    SharedFailure,
    as_shared,
    communicator,
    meet,
    on_root,
    wait_until,
)
from guided_diffusion.inference.assembly import Assembly
from guided_diffusion.inference.loading import LoadedModel
from guided_diffusion.inference.overlaps import Fusion
from guided_diffusion.inference.patch_sampling import PatchResult, PatchTask, PatchTiming, make_task, sample_batch
from guided_diffusion.machine.memory import PatchesTooLarge, is_out_of_memory
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
    """A `Blending` of neighbouring patches after every sampling step.

    Before each exchange all ranks learn whether one has failed, so that none waits for its overlaps.
    """

    def __init__(self, loaded: LoadedModel):
        self._loaded = loaded

    def join(self) -> None:
        """The part of the ranks other than 0."""
        on_root(lambda: None)  # rank 0 makes the shares
        share: _Share = _receive(0, Tag.SHARE)
        for realisation in share.realisations:
            result = self._walk(share, realisation)
            if result is not None:
                wait_until(communicator().isend(result, dest=0, tag=Tag.SAMPLES).Test)
            _agree()
        meet()

    def lead(self, padded: np.ndarray, plan: PatchPlan, batches: list[range], assembly: Assembly) -> list[PatchTiming]:
        """Rank 0's part: distribute the patches, and sample with the other ranks."""
        comm = communicator()
        # Whole batches, so that what is computed together does not depend on the number of ranks.
        blocks = [block for rank in range(comm.size) if (block := block_of(rank, comm.size, len(batches)))]
        missing = set(assembly.missing())
        realisations = sorted({realisation for realisation, _ in missing})
        shares = on_root(self._shares, padded, plan, batches, blocks, realisations)
        sends = [comm.isend(shares[rank], dest=rank, tag=Tag.SHARE) for rank in range(1, comm.size)]
        timings: list[PatchTiming] = []
        calls = len(batches) * self._loaded.diffusion.num_timesteps * len(realisations)
        with tqdm(total=calls, unit="step", desc="denoising", disable=None) as progress:

            def on_step() -> None:
                progress.update(len(batches))  # all ranks are at the same step

            def add(realisation: int, block: range, samples: np.ndarray) -> None:
                for batch in block:
                    if (realisation, batch) in missing:
                        first = batches[batch].start - batches[block.start].start
                        assembly.add(realisation, batch, samples[first : first + len(batches[batch])])

            for realisation in realisations:
                own = self._walk(shares[0], realisation, on_step)
                failure = None
                for rank, block in enumerate(blocks):
                    result = own if rank == 0 else _receive(rank, Tag.SAMPLES)
                    timings.append(result.timing(realisation, _patches(batches, block)))
                    failure = failure or _failure_of(add, realisation, block, result.samples)
                _agree(failure)
        wait_until(lambda: all(send.Test() for send in sends))
        meet()
        return timings

    def _shares(
        self, padded: np.ndarray, plan: PatchPlan, batches: list[range], blocks: list[range], realisations: list[int]
    ) -> list[_Share]:
        """A share for each rank; those without a block of batches have no task."""
        owners = [rank for rank, block in enumerate(blocks) for batch in block for _ in batches[batch]]
        shares = [_Share(plan, owners, None, realisations)] * communicator().size
        for rank, block in enumerate(blocks):
            task = make_task(padded, plan, _patches(batches, block), 0, self._loaded.margin)
            shares[rank] = replace(shares[rank], task=task)
        return shares

    def _walk(self, share: _Share, realisation: int, on_step: Callable[[], None] = lambda: None) -> PatchResult | None:
        """Sample this rank's patches, blended with their neighbours after each step; None on a rank without patches.

        If one rank fails, all ranks raise its error.
        """
        if share.task is None:
            while not _agree(ended=False):
                pass
            return None
        fuse = Fusion(share.plan, share.owners)

        def after_step(x: Tensor) -> Tensor:
            _agree(ended=False)
            on_step()
            return fuse(x)

        try:
            result = sample_batch(replace(share.task, realisation=realisation), self._loaded, after_step)
        except (SharedError, SharedFailure, PatchesTooLarge):
            raise  # all ranks know of it
        except Exception as error:
            _agree(PatchesTooLarge() if is_out_of_memory(error) else as_shared(error))
        _agree()
        return result


def _agree(failure: Exception | None = None, *, ended: bool = True) -> bool:
    """Tell all ranks whether this one failed; returns whether one of them has stopped sampling.

    If ranks have failed, all ranks raise the error of the first.
    """
    meet()
    states = communicator().allgather((failure, ended))
    for failed, _ in states:
        if failed is not None:
            raise failed
    return any(ended for _, ended in states)


def _failure_of(function: Callable[..., None], *arguments: Any) -> Exception | None:
    """The error that a call raised, in the form that all ranks raise."""
    try:
        function(*arguments)
    except Exception as error:
        return as_shared(error)
    return None


def _patches(batches: list[range], block: range) -> range:
    """The patches of consecutive batches."""
    return range(batches[block.start].start, batches[block.stop - 1].stop)


def _receive(rank: int, tag: int) -> Any:
    """Receive a message from a rank without busy waiting."""
    comm = communicator()
    wait_until(lambda: comm.iprobe(source=rank, tag=tag))
    return comm.recv(source=rank, tag=tag)
