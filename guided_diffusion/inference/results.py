"""Combines realisations, or images drawn around a mean, into the result on the scan's own grid."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import chain
from typing import Any

import numpy as np

from guided_diffusion.inference.loading import LoadedModel
from guided_diffusion.inference.patch_sampling import PatchTiming, groups_of_draws
from guided_diffusion.inference.running_statistics import RunningStatistics
from guided_diffusion.noise import sampling_noise
from guided_diffusion.pet.geometry import back_to_input_grid, follow_to_model_grid
from guided_diffusion.pet.grid import Volume
from guided_diffusion.pet.normalisation import denormalise, normalise
from guided_diffusion.pet.patches import PatchPlan
from guided_diffusion.pet.similar_noise import similar_noise
from guided_diffusion.pet.small_objects import Restoration, small_objects
from guided_diffusion.references import expected, fresh_variance


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
    """Collects realisations, resamples each to the input's grid, and keeps their statistics.

    A network of the noise-free image gives that; small hot objects in it that are flatter than in the scan are raised
    (`small_objects`). The image of the wanted dose is made of it and of the scan here, on each grid (`references`), so
    that the scan's share of it is not resampled.
    """

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
        self._noise_free = loaded.method.noise_free
        self._dose = loaded.sampling.dose if self._noise_free else 0.0
        self._noise_fields = loaded.method.noise_fields
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
        if self._noise_free:
            samples = self._raised(samples, self._restoration(samples).lacking())
        self._on_model_grid.add(self._with_scan(samples))
        back = self._back_with_scan(self._back(samples))
        self._on_input_grid.add(back.data)
        if self._measure is not None:
            self._measured.append(self._measure(back))

    def _of_volume(self, padded: np.ndarray) -> np.ndarray:
        """[..., X, Y, Z] without the padding."""
        x, y, z = self.model_input.data.shape
        return padded[..., :x, :y, :z]

    def _restoration(self, samples: np.ndarray) -> Restoration:
        """What a noise-free image, normalised, lacks of the heights of its small hot objects."""
        unit, voxel_mm = np.float32(self._suv_max), self.model_input.voxel_mm
        image = unit * samples
        return Restoration(image, small_objects(image, unit * self._normalised_scan, voxel_mm), voxel_mm)

    def _raised(self, image: np.ndarray, lacking: np.ndarray) -> np.ndarray:
        """An image, normalised, with what it lacks in SUV, within the network's range."""
        return np.minimum(image + lacking / np.float32(self._suv_max), np.maximum(image, 1))

    def _with_scan(self, samples: np.ndarray) -> np.ndarray:
        """The image of the wanted dose on the model's grid, of a noise-free one; both normalised."""
        if not self._dose:
            return samples
        return expected(samples, self._normalised_scan, self._dose)

    @cached_property
    def _normalised_scan(self) -> np.ndarray:
        """The scan on the model's grid as the network sees it."""
        return normalise(self.model_input.data, self._suv_max, negative=self._linear)

    def _back_with_scan(self, back: Volume) -> Volume:
        """The same on the input's grid, in SUV."""
        if not self._dose:
            return back
        return replace(back, data=expected(back.data, self._scan(), self._dose))

    def _scan(self) -> np.ndarray:
        """The scan's own voxels as far as they may be part of a result."""
        return np.minimum(self._volume.data, self._suv_max) if self._above_cap == "clip" else self._volume.data

    def _back(self, samples: np.ndarray) -> Volume:
        """A normalised image on the model's grid as SUV on the input's.

        Negative values are cut off unless they are part of what is carried back. Those between the peaks of strong
        noise are cut off on the input's grid only: here that would raise the mean.
        """
        suv = denormalise(samples if self._linear else np.maximum(samples, 0), self._suv_max)
        return back_to_input_grid(
            Volume(suv, self.model_input.affine, "SUV"),
            self.model_input,
            self._volume,
            above_cap=self._above_cap,
            suv_max=self._suv_max,
            instead=self._linear,
        )

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

    What is drawn is the noise-free image. An image of a dose has noise of its own besides that of the scan: it is made
    like the noise that the scan has by that drawn image, on the scan's own grid (`similar_noise`).
    """

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        self._of_draws = RunningStatistics(), RunningStatistics()
        self._drawn = 0
        self._of_mean: Restoration | None = None

    def shapes(self, in_plane: tuple[int, int]) -> list[tuple[int, ...]]:
        """As in `Result`: each array has the mean and a group of images."""
        return [(1 + len(group), *in_plane) for group in groups_of_draws(self._sampling)]

    def add(self, realisation: np.ndarray) -> None:
        """Add the mean and a group of images, normalised [1 + images, X, Y, Z], padded as the network needs it.

        Groups are added in order; all have the same mean.
        """
        mean, *images = self._of_volume(realisation)
        if self._of_mean is None:
            self._of_mean = self._restoration(mean)
        drawn = map(self._plausible, images)
        sampling = self._sampling
        if not self._on_model_grid.count:
            if sampling.sample:
                first = next(drawn)
                drawn = chain([first], drawn)
            else:
                raised = self._raised(mean, self._of_mean.lacking())
                first = self._with_scan(raised), self._back_with_scan(self._back(raised))
            self._on_model_grid.add(first[0])
            self._on_input_grid.add(first[1].data)
        if sampling.realisations > 1:
            for samples, back in drawn:
                for statistics, values in zip(self._of_draws, (samples, back.data), strict=True):
                    statistics.add(values)
                if self._measure is not None:
                    self._measured.append(self._measure(back))

    def _plausible(self, image: np.ndarray) -> tuple[np.ndarray, Volume]:
        """An image that may be that of the wanted dose, on the model's grid (normalised) and on the input's (SUV)."""
        number = self._drawn
        self._drawn += 1
        image = self._raised(image, self._of_mean.lacking(self._deviates(number, image.shape)))
        free = self._back(image)
        if not self._dose:
            return image, free
        own = self._scan() - free.data
        random = sampling_noise(self._sampling.seed, number, self._noise_fields)  # after the network's fields
        noise = similar_noise(own, free.data, self._volume.voxel_mm, random)
        noise *= fresh_variance(self._dose) ** 0.5
        noise[own == 0] = 0  # where the input is kept, it stays as it is
        on_model_grid = follow_to_model_grid(replace(self._volume, data=noise), self.model_input).data
        back = self._back_with_scan(free)
        highest = self._suv_max if self._above_cap == "clip" else None
        data = np.clip(back.data + noise, min(0.0, float(self._volume.data.min())), highest)
        return self._with_scan(image) + on_model_grid / np.float32(self._suv_max), replace(back, data=data)

    def _deviates(self, number: int, shape: tuple[int, ...]) -> list[float]:
        """By how many of its errors an image has each object too high, named by the voxel."""
        named = partial(sampling_noise, self._sampling.seed, number, self._noise_fields + 1)
        places = (int(np.ravel_multi_index(one.place, shape)) for one in self._of_mean.objects)
        return [named(place).standard_normal() for place in places]

    def _varying(self) -> tuple[RunningStatistics, RunningStatistics]:
        return self._of_draws
