"""The batches of a run, prepared in advance by threads."""

import itertools
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from guided_diffusion.image_datasets import CropSource


@dataclass(frozen=True)
class Batch:
    """Crops of one step, normalised, [N, 1, Z, X, Y], noise of their shape, and their references [N, 2], as `Crop`."""

    low_dose: Tensor
    normal_dose: Tensor
    noise: Tensor | None
    reference: Tensor


def batches(
    source: CropSource, items: range, first_step: int, threads: int = 1, *, pinned: bool = False
) -> Iterator[Batch]:
    """The batches of all steps from `first_step` on, the same for any number of threads.

    While one batch is used, the next ones are prepared: at least one, and enough to give every thread a crop. Raises
    InputError for an unusable crop when its step is reached. Closing the iterator waits only for crops in progress.

    items: which items of each step. The ranks of a run divide them, so that together they use the same data as a single
    rank. pinned: use page-locked memory, from which a GPU can copy while it computes.
    """
    ahead = 1 + -(-threads // len(items))
    upcoming: deque[_Upcoming] = deque()
    steps = itertools.count(first_step)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="crops")
    try:
        while True:
            while len(upcoming) <= ahead:
                upcoming.append(_Upcoming(pool, source, items, next(steps), pinned))
            yield upcoming.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


class _Upcoming:
    """A batch whose crops a pool's threads prepare, a task each."""

    def __init__(self, pool: ThreadPoolExecutor, source: CropSource, items: range, step: int, pinned: bool):
        x, y, z = source.crop_size
        images = [torch.empty(len(items), 1, z, x, y, pin_memory=pinned) for _ in range(3 if source.with_noise else 2)]
        noise = images[2] if source.with_noise else None
        self._batch = Batch(*images[:2], noise, torch.empty(len(items), 2, pin_memory=pinned))
        self._crops = [pool.submit(self._fill, place, source, step, item) for place, item in enumerate(items)]

    def _fill(self, place: int, source: CropSource, step: int, item: int) -> None:
        crop = source.crop(step, item)
        for name, values in vars(self._batch).items():
            if values is not None:
                values[place].numpy()[...] = getattr(crop, name)

    def result(self) -> Batch:
        """Wait for the batch and return it. Raises the error of its first unusable crop, if any."""
        for crop in self._crops:
            crop.result()
        return self._batch
