"""Stitches batches of patches into realisations of the volume, and passes these on in order."""

from collections.abc import Callable, Sequence

import numpy as np

from guided_diffusion.inference.resume import FinishedPatches
from guided_diffusion.pet.patches import PatchPlan


class Assembly:
    """Stitches batches in the order of arrival, and passes on complete realisations in the order of their numbers.

    Volumes are float32 [X, Y, Z], patches [N, X, Y, patch_size], with a channel axis before X if a realisation has
    several. shapes: of each realisation, without Z. In memory are only the realisations from the next one to be passed
    on to the latest that has arrived in part. Batches on disk from an earlier run are read when their realisation is
    due.
    """

    def __init__(
        self,
        plan: PatchPlan,
        batches: list[range],
        shapes: Sequence[tuple[int, ...]],
        on_volume: Callable[[np.ndarray], None],
        finished: FinishedPatches | None = None,
    ):
        self._plan, self._batches = plan, batches
        self._shapes = [(*shape, plan.length) for shape in shapes]
        self._realisations = len(shapes)
        self._on_volume = on_volume
        self._finished = finished
        self._volumes: dict[int, np.ndarray] = {}
        self._remaining: dict[int, set[int]] = {}
        self._next = 0
        self._hand_on()

    def missing(self) -> list[tuple[int, int]]:
        """(realisation, batch) of everything that is not on disk, in order. To be asked before the first `add`."""
        return [
            (realisation, batch) for realisation in range(self._realisations) for batch in self._absent(realisation)
        ]

    def add(self, realisation: int, batch: int, samples: np.ndarray) -> None:
        """Add a batch that has just been computed, and keep it on disk until the volume is complete."""
        if realisation not in self._volumes:
            self._open(realisation)
        if self._finished:
            self._finished.save(self._number(realisation, batch), samples)
        self._place(realisation, batch, samples)
        self._hand_on()

    def _hand_on(self) -> None:
        """Pass on the realisations that are complete."""
        while self._next < self._realisations:
            if self._next not in self._volumes:
                if self._absent(self._next):
                    return
                self._open(self._next)
            if self._remaining[self._next]:
                return
            del self._remaining[self._next]
            self._on_volume(self._volumes.pop(self._next))
            self._next += 1

    def _open(self, realisation: int) -> None:
        """Start a realisation from its batches on disk."""
        absent = self._absent(realisation)
        self._volumes[realisation] = np.zeros(self._shapes[realisation], dtype=np.float32)
        self._remaining[realisation] = set(range(len(self._batches)))
        for batch in range(len(self._batches)):
            if batch not in absent:
                self._place(realisation, batch, self._finished.load(self._number(realisation, batch)))

    def _place(self, realisation: int, batch: int, samples: np.ndarray) -> None:
        for patch, sample in zip(self._batches[batch], samples, strict=True):
            self._plan.add(self._volumes[realisation], patch, sample)
        self._remaining[realisation].remove(batch)

    def _absent(self, realisation: int) -> list[int]:
        """Batches of a realisation that are not on disk."""
        batches = range(len(self._batches))
        if self._finished is None:
            return list(batches)
        return [batch for batch in batches if not self._finished.has(self._number(realisation, batch))]

    def _number(self, realisation: int, batch: int) -> int:
        return realisation * len(self._batches) + batch
