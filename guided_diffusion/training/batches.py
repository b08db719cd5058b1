"""The batches of a run, prepared one step ahead."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from guided_diffusion.image_datasets import CropSource


@dataclass(frozen=True)
class Batch:
    """Crops of one step, normalised, [N, 1, Z, X, Y], noise of their shape, and their references [N, 2], as `Crop`."""

    low_dose: Tensor
    normal_dose: Tensor
    noise: Tensor
    reference: Tensor


def batches(source: CropSource, items: range, first_step: int) -> Iterator[Batch]:
    """The batches of all steps from `first_step` on. The next one is prepared while the last one is used.

    items: which items of every step. The ranks of a run share them out, so that together they use the same data as one
    rank.
    """
    with ThreadPoolExecutor(1) as pool:
        upcoming = pool.submit(_batch, source, items, first_step)
        step = first_step
        while True:
            batch = upcoming.result()
            step += 1
            upcoming = pool.submit(_batch, source, items, step)
            yield batch


def _batch(source: CropSource, items: range, step: int) -> Batch:
    crops = [source.crop(step, item) for item in items]
    return Batch(
        *(
            torch.from_numpy(np.stack([getattr(crop, name) for crop in crops]))
            for name in ("low_dose", "normal_dose", "noise", "reference")
        )
    )
