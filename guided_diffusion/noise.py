"""Random numbers identified by name: they depend on what they are for, not on when they are drawn.

The noise of (seed, realisation, step, axial slice) is always the same: overlapping patches get equal noise in the
overlap, and nothing depends on patch size, batch or number of ranks. Philox is counter-based (Salmon et al., Parallel
random numbers: as easy as 1, 2, 3, SC 2011), so the name is used as the counter and nothing is drawn in sequence.
"""

from enum import IntEnum

import numpy as np
import torch
from torch import Tensor


class Stream(IntEnum):
    """Purposes of the random numbers of training; part of their names."""

    CROP = 0
    NOISE = 1
    VALIDATION = 2
    TIMESTEP = 3
    DROPOUT = 4


def generator(seed: int, stream: Stream, step: int, item: int) -> np.random.Generator:
    """The random numbers with this name: those of a step's item, items being numbered over all ranks."""
    return np.random.default_rng([seed, int(stream), step, item])


def axial_noise(seed: int, realisation: int, step: int, slices: range, in_plane: tuple[int, int]) -> Tensor:
    """Noise for a slab, float32 [1, 1, Z, X, Y] on the CPU.

    step: the timestep of the original process, or its length for the noise at which sampling starts; for images drawn
    by a network, the number of the noise field. slices: the slab's axial positions in the volume on the model's grid.
    in_plane: (X, Y) after padding.
    """
    slab = np.empty((len(slices), *in_plane), dtype=np.float32)
    for index, axial in enumerate(slices):
        sampling_noise(seed, realisation, step, axial).standard_normal(out=slab[index], dtype=np.float32)
    return torch.from_numpy(slab)[None, None]


def sampling_noise(seed: int, realisation: int, step: int, axial: int = 0) -> np.random.Generator:
    """The random numbers with this name in inference; for axial and step see `axial_noise`."""
    # The lowest counter word advances with the draws; the others are the name.
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, axial, step, realisation]))
