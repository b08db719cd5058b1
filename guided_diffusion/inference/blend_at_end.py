"""Samples each patch independently, as tasks distributed over the MPI ranks, and blends the finished patches."""

from collections.abc import Callable, Iterator

import numpy as np
from torch import Tensor
from tqdm import tqdm

from guided_diffusion.dist_util import as_shared, communicator
from guided_diffusion.inference.assembly import Assembly
from guided_diffusion.inference.loading import LoadedModel
from guided_diffusion.inference.patch_sampling import PatchResult, PatchTask, PatchTiming, make_task, sample_batch
from guided_diffusion.machine.memory import PatchesTooLarge, is_out_of_memory
from guided_diffusion.pet.patches import PatchPlan
from guided_diffusion.tasks import share_tasks


class BlendAtEnd:
    """A `Blending` of finished patches: whichever rank is free takes the next batch of them."""

    def __init__(self, loaded: LoadedModel):
        self._loaded = loaded

    def join(self) -> None:
        """The part of the ranks other than 0."""
        share_tasks(None, self._sample, on_result=lambda *_: None, on_step=lambda: None)
        _agree(None)

    def lead(self, padded: np.ndarray, plan: PatchPlan, batches: list[range], assembly: Assembly) -> list[PatchTiming]:
        """Rank 0's part. Hands out no further tasks once a batch did not fit into memory or something failed."""
        missing = assembly.missing()
        timings: list[PatchTiming] = []
        stopped: Exception | None = None

        def tasks() -> Iterator[PatchTask]:
            nonlocal stopped
            for realisation, batch in missing:
                if stopped is not None:
                    return
                try:
                    task = make_task(padded, plan, batches[batch], realisation, self._loaded.margin)
                except Exception as error:
                    stopped = as_shared(error)
                    return
                yield task

        calls = len(missing) * self._loaded.diffusion.num_timesteps
        with tqdm(total=calls, unit="step", desc="denoising", disable=None) as progress:

            def on_result(number: int, result: PatchResult | Exception) -> None:
                nonlocal stopped
                if stopped is not None or isinstance(result, Exception):
                    stopped = stopped or result
                    return
                realisation, batch = missing[number]
                try:
                    assembly.add(realisation, batch, result.samples)
                except Exception as error:
                    stopped = as_shared(error)
                timings.append(result.timing(realisation, batches[batch]))

            share_tasks(tasks(), self._sample, on_result, on_step=progress.update)
        _agree(stopped)
        return sorted(timings, key=lambda timing: (timing.realisation, timing.patches))

    def _sample(self, task: PatchTask, on_step: Callable[[], None]) -> PatchResult | Exception:
        """Sample one batch of patches, reporting each step; what went wrong is returned, for all ranks to raise."""

        def after_step(x: Tensor) -> Tensor:
            on_step()
            return x

        try:
            return sample_batch(task, self._loaded, after_step)
        except Exception as error:
            return PatchesTooLarge() if is_out_of_memory(error) else as_shared(error)


def _agree(stopped: Exception | None) -> None:
    """Raise on every rank the error that stopped rank 0, if any."""
    stopped = communicator().bcast(stopped)
    if stopped is not None:
        raise stopped
