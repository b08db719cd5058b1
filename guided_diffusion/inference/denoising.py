"""From a low-dose volume to a denoised one: patches, ranks, and back to one volume.

`denoise_volume` is the Python door; `scripts/test.py` goes through it too. Volumes on the model's grid are arrays
[X, Y, Z] = (anterior-posterior, left-right, axial); tensors are [N, C, Z, X, Y].
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any

import numpy as np

from guided_diffusion.config import PreprocessingConfig
from guided_diffusion.dist_util import on_root
from guided_diffusion.errors import InputError
from guided_diffusion.inference import blend_at_end, blend_each_step, planning
from guided_diffusion.inference.assembly import Assembly
from guided_diffusion.inference.patch_sampling import PUBLISHED_ORDER, Sampling
from guided_diffusion.inference.resume import FinishedPatches
from guided_diffusion.inference.running_statistics import RunningStatistics
from guided_diffusion.interfaces import Network, Process
from guided_diffusion.memory import PatchesTooLarge
from guided_diffusion.pet.geometry import back_to_input_grid
from guided_diffusion.pet.grid import Volume
from guided_diffusion.pet.normalisation import denormalise, normalise
from guided_diffusion.pet.patches import PatchPlan, pad_in_plane

PUBLISHED_GRID = PreprocessingConfig()


@dataclass(frozen=True)
class Denoised:
    """What rank 0 has after `denoise_volume`.

    samples: normalised, on the model's grid, as sampled. model_input: the low-dose volume (SUV) on the model's grid.
    volume: SUV on the input's own grid. timings: one entry per batch of patches. After several realisations, samples
    and volume are their means, and samples_sd and volume_sd their standard deviations, voxel by voxel. measured: what
    `measure` gave for each realisation.
    """

    samples: np.ndarray
    model_input: Volume
    volume: Volume
    plan: PatchPlan
    timings: list[dict]
    samples_sd: np.ndarray | None = None
    volume_sd: Volume | None = None
    measured: list[Any] = field(default_factory=list)


def denoise_volume(
    volume: Volume | None,
    model: Network,
    diffusion: Process,
    sampling: Sampling = PUBLISHED_ORDER,
    preprocessing: PreprocessingConfig = PUBLISHED_GRID,
    *,
    above_cap: str = "keep",
    expected_patches: int | None = None,
    finished: FinishedPatches | None = None,
    fit_memory: bool = False,
    measure: Callable[[Volume], Any] | None = None,
) -> Denoised | None:
    """Denoise a volume over all MPI ranks; every rank calls this, rank 0 with the volume and the others with None.

    volume: in SUV, on any grid. model: in evaluation mode on this rank's device. above_cap: what becomes of uptake
    above suv_max, see `back_to_input_grid`. expected_patches: raise InputError unless the plan has as many. finished:
    where rank 0 keeps finished patches, so that an interrupted run can be continued. fit_memory: begin with patches as
    short as the free memory demands, if the noise is a field. If memory runs out in any case, all ranks begin again
    with patches of half the length, or raise InputError where the noise depends on it. measure: looks at every
    realisation (SUV, on the input's grid) on rank 0, which keeps none of them.
    Returns the result on rank 0 and None elsewhere; raises InputError for one that is not finite. Its memory does not
    grow with `sampling.realisations`.
    """
    model_input = on_root(planning.to_grid, volume, preprocessing)
    free = planning.free_bytes_per_rank(next(model.parameters()).device) if fit_memory else None
    plan = on_root(planning.make_plan, model_input, model, sampling, preprocessing, expected_patches, free)
    while True:
        try:
            if plan is None:
                _way_to_sample(sampling).join(model, diffusion, sampling)
                denoised = None
            else:
                denoised = _denoise(
                    volume, model_input, plan, model, diffusion, sampling, preprocessing, above_cap, finished, measure
                )
            on_root(_check_finite, denoised)
            return denoised
        except PatchesTooLarge:
            plan = on_root(planning.shorter_plan, plan, sampling, preprocessing, expected_patches)


def _check_finite(denoised: Denoised) -> None:
    """Raises InputError for a result with NaN or infinite voxels: nobody shall take it for an image."""
    if not np.isfinite(denoised.samples).all():
        raise InputError(
            "the denoised volume has NaN or infinite voxels: the weights do not suit this precision or this scan;"
            " try --precision float32, or other weights"
        )


def _denoise(
    volume: Volume,
    model_input: Volume,
    plan: PatchPlan,
    model: Network,
    diffusion: Process,
    sampling: Sampling,
    preprocessing: PreprocessingConfig,
    above_cap: str,
    finished: FinishedPatches | None,
    measure: Callable[[Volume], Any] | None,
) -> Denoised:
    """Rank 0's part: all realisations with this plan, each taken back to the input's grid, and their statistics."""
    linear = preprocessing.linear_transfer
    normalised = normalise(model_input.data, preprocessing.suv_max, negative=linear)
    padded = pad_in_plane(normalised, model.config.in_plane_multiple)
    batches = _batches(len(plan.starts), sampling.batch_size)
    on_model_grid, on_input_grid = RunningStatistics(), RunningStatistics()
    measured: list[Any] = []

    def take_in(realisation: np.ndarray) -> None:
        samples = realisation[: model_input.data.shape[0], : model_input.data.shape[1]]
        on_model_grid.add(samples)
        denoised = Volume(denormalise(np.maximum(samples, 0), preprocessing.suv_max), model_input.affine, "SUV")
        back = back_to_input_grid(
            denoised, model_input, volume, above_cap=above_cap, suv_max=preprocessing.suv_max, instead=linear
        )
        on_input_grid.add(back.data)
        if measure is not None:
            measured.append(measure(back))

    kept = finished.with_patches_of(plan.patch_size) if finished else None
    assembly = Assembly(plan, batches, padded.shape[:2], sampling.realisations, take_in, kept)
    timings = _way_to_sample(sampling).lead(padded, plan, batches, assembly, model, diffusion, sampling)
    deviation = on_input_grid.standard_deviation
    return Denoised(
        on_model_grid.mean,
        model_input,
        replace(volume, data=on_input_grid.mean),
        plan,
        timings,
        on_model_grid.standard_deviation,
        None if deviation is None else replace(volume, data=deviation),
        measured,
    )


def _way_to_sample(sampling: Sampling) -> ModuleType:
    """The module whose `lead` and `join` sample the patches."""
    return blend_each_step if sampling.fuse == "each_step" else blend_at_end


def _batches(patches: int, batch_size: int) -> list[range]:
    """Patch numbers in batches of at most `batch_size`."""
    return [range(first, min(first + batch_size, patches)) for first in range(0, patches, batch_size)]
