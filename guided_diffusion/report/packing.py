"""Volumes as text in a report: quantised, compressed, and unpacked again by `static/volumes.js`.

A value v is stored as the whole number nearest to asinh(v / KNEE) / step, with an error of at most
step / 2 x sqrt(v^2 + KNEE^2): constant for small values and proportional to large ones, however large the maximum is.
Each number is stored as its difference from the one before along Z, zigzag-coded so that small differences of both
signs are small numbers, low bytes before high bytes, in zlib's format, as base64.
"""

import base64
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from guided_diffusion.report.projections import coarser

KNEE = 1.0  # SUV
STEPS = (0.002, 0.005, 0.01, 0.02)
BLOCKS = (1, 2, 3, 4, 6, 8)
TEXT_LIMIT = 12_000_000  # characters of all volumes of a page, so that a page stays below 15 MB
SAMPLED_PLANES = 16
_SAFETY = 1.1


class PageTooLarge(ValueError):
    """The volumes do not fit into a page even at the coarsest quantisation."""


@dataclass(frozen=True)
class Packing:
    """Parameters of the stored volumes of a page: voxels along each side of a block that is averaged, and the step."""

    block: int
    step: float

    def largest_error(self, value: float) -> float:
        """Largest difference between a stored value and the original one, in the unit of the values."""
        return self.step / 2 * (1 + self.step) * float(np.hypot(value, KNEE))

    @property
    def percent(self) -> float:
        """The largest error of a value far above the knee."""
        return 100 * self.step / 2

    def pack(self, volume: np.ndarray) -> str:
        """The text of a volume [X, Y, Z], float32; Z changes fastest."""
        return base64.b64encode(_compressed(coarser(volume, self.block), self.step)).decode()


def choose_packing(volumes: Sequence[np.ndarray], limit: int = TEXT_LIMIT) -> Packing:
    """The finest packing whose texts together stay below `limit` characters, judged by some planes of each volume.

    Whole voxels with a coarse step are preferred to blocks with a fine one. Raises PageTooLarge where none fits.
    """
    for block in BLOCKS:
        sampled = [_sample(volume, block) for volume in volumes]
        for step in STEPS:
            size = sum(len(_compressed(planes, step)) * share for planes, share in sampled)
            if _SAFETY * size * 4 / 3 <= limit:
                return Packing(block, step)
    raise PageTooLarge(f"{len(volumes)} volumes of {volumes[0].shape} voxels do not fit into {limit / 1e6:.0f} MB")


def quantised(volume: np.ndarray, step: float) -> np.ndarray:
    """int16 numbers that stand for the values."""
    return np.rint(np.arcsinh(volume / KNEE) / step).astype(np.int16)


def _compressed(volume: np.ndarray, step: float) -> bytes:
    numbers = quantised(volume, step)
    change = np.diff(numbers, axis=2, prepend=np.int16(0))
    zigzag = ((change << 1) ^ (change >> 15)).astype("<u2")
    halves = [(zigzag & 255).astype(np.uint8), (zigzag >> 8).astype(np.uint8)]
    return zlib.compress(b"".join(half.tobytes() for half in halves))


def _sample(volume: np.ndarray, block: int) -> tuple[np.ndarray, float]:
    """Some planes of the volume in blocks, spread evenly, and how many times more there are."""
    count = max(1, volume.shape[0] // block)
    chosen = np.unique(np.linspace(0, count - 1, min(count, SAMPLED_PLANES)).astype(int))
    planes = np.concatenate([coarser(volume[i * block : (i + 1) * block], block) for i in chosen])
    return planes, count / len(chosen)
