"""Combines realisations, or images drawn around a mean, into the result on the scan's own grid."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import Any

import numpy as np

from guided_diffusion.inference.loading import LoadedModel
from guided_diffusion.inference.patch_sampling import PatchTiming, groups_of_draws
from guided_diffusion.inference.running_statistics import RunningStatistics
from guided_diffusion.pet.geometry import back_to_input_grid
from guided_diffusion.pet.grid import Volume
from guided_diffusion.pet.normalisation import BODY_SUV, denormalise
from guided_diffusion.pet.patches import PatchPlan

LEAST_LOSS = 0.01
"""Deviations that are too small by a smaller share than this are left: on one and the same grid it is rounding."""


@dataclass(frozen=True)
class Denoised:
    """The result of `denoise_volume` on rank 0.

    samples: normalised, on the model's grid, as sampled. model_input: the low-dose volume (SUV) on the model's grid.
    volume: SUV on the input's own grid. timings: of every batch of patches. With several realisations, samples and
    volume are means, and samples_sd and volume_sd voxelwise standard deviations. If the network draws images about a
    mean, samples and volume are that mean, or the first image if it is asked for. measured: the result of `measure` for
    each realisation.
    """

    samples: np.ndarray
    model_input: Volume
    volume: Volume
    plan: PatchPlan
    timings: list[PatchTiming]
    samples_sd: np.ndarray | None = None
    volume_sd: Volume | None = None
    measured: list[Any] = field(default_factory=list)


class Result:
    """Collects realisations, resamples each to the input's grid, and keeps their statistics."""

    def __init__(
        self,
        volume: Volume,
        model_input: Volume,
        loaded: LoadedModel,
        above_cap: str,
        measure: Callable[[Volume], Any] | None,
    ):
        self.model_input = model_input
        self._volume = volume
        self._sampling = loaded.sampling
        self._suv_max, self._linear = loaded.preprocessing.suv_max, loaded.preprocessing.linear_transfer
        self._above_cap = above_cap
        self._measure = measure
        self._measured: list[Any] = []
        self._on_model_grid, self._on_input_grid = RunningStatistics(), RunningStatistics()

    def shapes(self, in_plane: tuple[int, int]) -> list[tuple[int, ...]]:
        """Shapes of the arrays to be added, without Z. in_plane: X and Y, padded as the network needs them."""
        return [in_plane] * self._sampling.realisations

    def add(self, realisation: np.ndarray) -> None:
        """Add a realisation, normalised [X, Y, Z], padded as the network needs it."""
        samples = self._of_volume(realisation)
        self._on_model_grid.add(samples)
        back = self._back(samples)
        self._on_input_grid.add(back.data)
        if self._measure is not None:
            self._measured.append(self._measure(back))

    def _of_volume(self, padded: np.ndarray) -> np.ndarray:
        """[..., X, Y, Z] without the padding."""
        x, y, z = self.model_input.data.shape
        return padded[..., :x, :y, :z]

    def _back(self, samples: np.ndarray) -> Volume:
        """A normalised image on the model's grid as SUV on the input's."""
        denoised = Volume(self._in_suv(samples), self.model_input.affine, "SUV")
        return back_to_input_grid(
            denoised,
            self.model_input,
            self._volume,
            above_cap=self._above_cap,
            suv_max=self._suv_max,
            instead=self._linear,
        )

    def _in_suv(self, samples: np.ndarray) -> np.ndarray:
        """A normalised image in SUV, without negative values unless they are part of what is carried back.

        Those between the peaks of strong noise are cut off on the input's grid only: here that would raise the mean.
        """
        return denormalise(samples if self._linear else np.maximum(samples, 0), self._suv_max)

    def _varying(self) -> tuple[RunningStatistics, RunningStatistics]:
        """What the error bar is the standard deviation of: statistics on the model's grid, and on the input's."""
        return self._on_model_grid, self._on_input_grid

    def described(self, plan: PatchPlan, timings: list[PatchTiming]) -> Denoised:
        """The result, once all realisations have been added."""
        on_model_grid, on_input_grid = (statistics.standard_deviation for statistics in self._varying())
        return Denoised(
            samples=self._on_model_grid.mean,
            model_input=self.model_input,
            volume=replace(self._volume, data=self._on_input_grid.mean),
            plan=plan,
            timings=timings,
            samples_sd=on_model_grid,
            volume_sd=None if on_input_grid is None else replace(self._volume, data=on_input_grid),
            measured=self._measured,
        )


class DrawnResult(Result):
    """As `Result`, for a network that draws images about a mean: the mean, or the first image, and their deviation.

    Deviations have the right size on the model's grid. The way back to coarser voxels takes more from them than from a
    scan's own noise, which came from such voxels. So where images with noise are drawn (`--dose_fraction` above 0), and
    the way back has made them too small, their deviations are enlarged by one factor: see `_lost_on_the_way_back`.
    """

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        self._of_draws = RunningStatistics(), RunningStatistics()
        self._mean_on_input_grid: np.ndarray | None = None
        self._factor = 1.0

    def shapes(self, in_plane: tuple[int, int]) -> list[tuple[int, ...]]:
        """As in `Result`: each array has the mean and a group of images."""
        return [(1 + len(group), *in_plane) for group in groups_of_draws(self._sampling)]

    def add(self, realisation: np.ndarray) -> None:
        """Add the mean and a group of images, normalised [1 + images, X, Y, Z], padded as the network needs it.

        Groups are added in order; all have the same mean.
        """
        mean, *images = self._of_volume(realisation)
        backs = map(self._back, images)
        if self._mean_on_input_grid is None:
            self._mean_on_input_grid = self._back(mean).data
            first = list(islice(backs, 1))
            backs = chain(first, backs)
            if first and self._sampling.dose:
                self._factor = self._lost_on_the_way_back(mean, images[0], first[0])
            sample = self._sampling.sample
            self._on_model_grid.add(images[0] if sample else mean)
            self._on_input_grid.add(self._enlarged(first[0]).data if sample else self._mean_on_input_grid)
        if self._sampling.realisations > 1:
            for image, back in zip(images, map(self._enlarged, backs), strict=True):
                for statistics, values in zip(self._of_draws, (image, back.data), strict=True):
                    statistics.add(values)
                if self._measure is not None:
                    self._measured.append(self._measure(back))

    def _enlarged(self, back: Volume) -> Volume:
        """An image on the input's grid with the deviation from the mean as large as it should be there."""
        if self._factor == 1:
            return back
        data = self._mean_on_input_grid + np.float32(self._factor) * (back.data - self._mean_on_input_grid)
        highest = self._suv_max if self._above_cap == "clip" else None
        return replace(back, data=np.clip(data, min(0.0, float(self._volume.data.min())), highest))

    def _lost_on_the_way_back(self, mean: np.ndarray, image: np.ndarray, back: Volume) -> float:
        """By how much more the way back reduces what is drawn than what the mean took from the scan; at least 1.

        Both by their mean absolute values in the body on the two grids. back: the image on the input's.
        """
        on_model_grid = self.model_input.data, self._in_suv(mean), self._in_suv(image)
        on_input_grid = self._volume.data, self._mean_on_input_grid, back.data
        removed, drawn = [], []
        for scan, answer, one in (on_model_grid, on_input_grid):
            body = answer > BODY_SUV
            if not body.any():
                return 1.0
            removed.append(float(np.abs(scan - answer)[body].mean(dtype=np.float64)))
            drawn.append(float(np.abs(one - answer)[body].mean(dtype=np.float64)))
        if not (min(removed) > 0 and min(drawn) > 0):
            return 1.0
        factor = removed[1] / removed[0] * drawn[0] / drawn[1]
        return factor if factor > 1 + LEAST_LOSS else 1.0

    def _varying(self) -> tuple[RunningStatistics, RunningStatistics]:
        return self._of_draws
