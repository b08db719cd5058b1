"""Estimate of the memory that a network needs for inference, computed from its layers before it runs.

At any time memory holds the skip connections between encoder and decoder, and what the current block needs: multiples
of its input and of its output, for normed copies, sums of convolutions and fragments that the allocator cannot reuse at
once. The two multiples are measured (see `tests/test_network_memory.py`); everything else is counted.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from guided_diffusion.config import ModelConfig

INPUT_COPIES = 3.0  # of a block's input, itself included
OUTPUT_COPIES = 2.5  # of a block's output
# Usable share of the free memory: the rest is for the state of sampling and for what the allocator cannot use.
_USABLE = 0.8


@dataclass(frozen=True)
class _Block:
    """Sizes in values per voxel of the patch at full resolution: input, output, and skip connections held meanwhile."""

    entering: float
    leaving: float
    held: float

    @property
    def live(self) -> float:
        return self.held + INPUT_COPIES * self.entering + OUTPUT_COPIES * self.leaving


def network_bytes(config: ModelConfig, patch: tuple[int, int, int], dtype: torch.dtype) -> int:
    """Peak memory of one network call in bytes, without the weights and without attention.

    patch: (Z, X, Y); those of a batch are computed one after the other. dtype: the network's precision.
    """
    depth, x, y = patch
    most = max(block.live for block in _blocks(config))
    return round(most * depth * x * y * dtype.itemsize)


def shorter(patch_size: int, overlap: int) -> int | None:
    """Half the length, or None where patches of that length could not overlap by as much."""
    half = patch_size // 2
    return half if half >= max(1, 2 * overlap) else None


def fitting_patch_size(needed: Callable[[int], float], free_bytes: float, patch_size: int, overlap: int) -> int:
    """`patch_size`, halved until a network call fits into the free memory, or patches cannot become shorter.

    needed: the bytes of a call on a patch of a given number of slices.
    """
    while needed(patch_size) > _USABLE * free_bytes:
        half = shorter(patch_size, overlap)
        if half is None:
            return patch_size
        patch_size = half
    return patch_size


def _blocks(config: ModelConfig) -> Iterator[_Block]:
    """The residual blocks in order of work; every level has a quarter of the last one's voxels."""
    levels = range(len(config.multipliers))
    widths = [multiplier * config.num_channels for multiplier in config.multipliers]
    areas = [0.25**level for level in levels]
    skips = [(config.num_channels, areas[0])]  # width and area, as the encoder makes them

    def held() -> float:
        return sum(width * area for width, area in skips)

    for level in levels:
        for _ in range(config.num_res_blocks):
            width, area = skips[-1]
            # The block's input is the newest skip connection.
            yield _Block(width * area, widths[level] * areas[level], held() - width * area)
            skips.append((widths[level], areas[level]))
        if level + 1 < len(levels):
            width, area = skips[-1]
            yield _Block(width * area, width * areas[level + 1], held() - width * area)
            skips.append((width, areas[level + 1]))

    inwards = skips[::-1]
    outputs = [*(width for width, _ in inwards[1:]), inwards[-1][0]]
    deepest = skips[-1][0] * skips[-1][1]
    yield _Block(deepest, deepest, held())
    for number, (width, area) in enumerate(inwards):
        # The state from below stays until the block is done; the skip connection is part of its input.
        skips.pop()
        leaving = outputs[number]
        yield _Block(2 * width * area, leaving * area, held() + width * area)
        last_of_level = (number + 1) % (config.num_res_blocks + 1) == 0
        if last_of_level and number + 1 < len(inwards):
            yield _Block(leaving * area, 4 * leaving * area, held() + width * area)
