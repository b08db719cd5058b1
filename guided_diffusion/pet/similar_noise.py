"""Noise that looks like a given one: as strong and as correlated as that is around every voxel, but another.

Block by block, the Fourier coefficients of the given noise keep their size and get random phases (surrogate data:
Theiler et al., Physica D 58:77, 1992), which keeps the autocorrelation and nothing else. It is done in units of the
noise's own local size, so that blocks may be larger than the places where that changes. The block size and the way to
measure that size were chosen on validation subjects: neither matters much.
"""

from collections.abc import Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy import fft

from guided_diffusion.pet.noise_size import noise_size

# Blocks are four times as large: several times the correlation length of an image with a 10 mm filter, and an organ.
FADE_MM = 24.0
# The window of the local size, with which the network's noise is measured too.
WINDOW_MM = 25.0


def similar_noise(
    noise: np.ndarray, image: np.ndarray, voxel_mm: Sequence[float], random: np.random.Generator
) -> np.ndarray:
    """Noise of the local variance and correlation of `noise`, and independent of it given these; float32 [X, Y, Z].

    noise: [X, Y, Z] in SUV, of mean 0. image: what is noisy, of the same shape, in SUV: where uptake changes within
    millimetres, noise changes with it. voxel_mm: along X, Y, Z. random: where the phases come from.
    """
    size = noise_size(noise, image, voxel_mm, WINDOW_MM)
    unit = np.divide(noise, size, out=np.zeros(noise.shape, np.float32), where=size > 0)
    # No longer than the volume: of voxels as fine as a mouse's blocks would take gigabytes, however small it is.
    fade = [min(max(1, round(FADE_MM / side)), length) for side, length in zip(voxel_mm, noise.shape, strict=True)]
    return _of_random_phases(unit, fade, random) * size


def _of_random_phases(noise: np.ndarray, fade: Sequence[int], random: np.random.Generator) -> np.ndarray:
    """Noise of variance 1 with other phases, by blocks four times as large as the `fade` by which they overlap.

    Each is weighted before its transform and after it: the squares of the weights of all blocks over a voxel add up to
    1.
    """
    block = [4 * length for length in fade]
    steps = [3 * length for length in fade]
    padding = [
        (before, before + -(size + before) % step) for size, before, step in zip(noise.shape, fade, steps, strict=True)
    ]
    padded = np.pad(noise, padding, mode="symmetric")
    weights = np.ones((), np.float32)
    for length in fade:
        weights = weights[..., None] * _weights(length)
    result = np.zeros_like(padded)
    for x in range(0, padded.shape[0] - fade[0], steps[0]):
        slab = slice(x, x + block[0])
        blocks = sliding_window_view(padded[slab], block)[0, :: steps[1], :: steps[2]] * weights
        _add_blocks(result[slab], _with_other_phases(_of_unit_variance(blocks), random) * weights, steps[1:])
    inner = tuple(slice(before, before + size) for before, size in zip(fade, noise.shape, strict=True))
    return result[inner]


def _weights(fade: int) -> np.ndarray:
    """Weights along an axis of a block: up by a quarter of a sine wave, 1 for twice as long, and down."""
    rise = np.sin(0.5 * np.pi * (np.arange(fade) + 0.5) / fade).astype(np.float32)
    return np.concatenate([rise, np.ones(2 * fade, np.float32), rise[::-1]])


def _of_unit_variance(blocks: np.ndarray) -> np.ndarray:
    """Blocks [J, K, X, Y, Z] over their root mean squares; without noise they stay as they are.

    So noise is as strong beside places without any, over which other phases spread it, as elsewhere.
    """
    size = np.sqrt(np.square(blocks).mean(axis=(2, 3, 4), keepdims=True))
    return np.divide(blocks, size, out=blocks, where=size > 0)


def _with_other_phases(blocks: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Blocks [J, K, X, Y, Z] with the phases of white noise added to their own."""
    axes = (2, 3, 4)
    coefficients = fft.rfftn(blocks, axes=axes)
    white = fft.rfftn(random.standard_normal(blocks.shape, dtype=np.float32), axes=axes)
    return fft.irfftn(coefficients * (white / np.abs(white)), s=blocks.shape[2:], axes=axes)


def _add_blocks(slab: np.ndarray, blocks: np.ndarray, steps: Sequence[int]) -> None:
    """Adds blocks [J, K, X, Y, Z] to their places in a slab [X, Y', Z'], `steps` apart along its last two axes."""
    y_side, z_side = blocks.shape[3:]
    for j, row in enumerate(blocks):
        for k, block in enumerate(row):
            y, z = j * steps[0], k * steps[1]
            slab[:, y : y + y_side, z : z + z_side] += block
