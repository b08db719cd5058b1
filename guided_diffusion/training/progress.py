"""Progress of a training run: rows of its tables, and the progress bar."""

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from tqdm import tqdm

from guided_diffusion.dist_util import communicator

VALIDATION_COLUMNS = (
    "step", "minutes", "ema_rate", "psnr_low_dose", "psnr_denoised", "ssim_low_dose", "ssim_denoised",
)  # fmt: skip


def progress_columns(terms: Sequence[str]) -> tuple[str, ...]:
    """Columns of the progress table of a method that reports these terms besides its loss."""
    quartiles = [f"loss_q{quartile}" for quartile in range(4)]
    return ("step", "minutes", "loss", *terms, *quartiles, "grad_norm", "lr", "voxels_per_s", "waiting_for_data")


class ProgressInterval:
    """Counts since the last row of the progress table. Voxels are those of all ranks."""

    def __init__(self) -> None:
        self.waited = 0.0
        self._began = time.monotonic()
        self._voxels = 0
        self._values: dict[str, list[float]] = defaultdict(list)

    def add(self, report: dict[str, float], voxels: int) -> None:
        """Count a step."""
        self._voxels += voxels
        for name, value in report.items():
            self._values[name].append(value)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Within the block, time does not count: for validation and saving."""
        began = time.monotonic()
        yield
        self._began += time.monotonic() - began

    def row(self) -> dict[str, float]:
        """Means over the steps, voxels per second, and the fraction of the time that was spent waiting for data."""
        seconds = time.monotonic() - self._began
        means = {name: float(np.mean(values)) for name, values in self._values.items()}
        return means | {"voxels_per_s": self._voxels / seconds, "waiting_for_data": self.waited / seconds}


@contextmanager
def progress_bar(first_step: int, last_step: int) -> Iterator[tqdm]:
    """A bar on the terminal of rank 0, nothing elsewhere. last_step: 0 if it is not known."""
    hidden = True if communicator().rank else None  # None: if there is no terminal
    with tqdm(total=last_step or None, initial=first_step, unit="step", desc="training", disable=hidden) as bar:
        yield bar
