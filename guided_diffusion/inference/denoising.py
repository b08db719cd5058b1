"""The Python interface to denoising: `denoise_volume`, which `scripts/test.py` uses too.

Volumes on the model's grid are arrays [X, Y, Z] = (anterior-posterior, left-right, axial); tensors are [N, C, Z, X, Y].
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from guided_diffusion.config import PreprocessingConfig
from guided_diffusion.dist_util import on_root
from guided_diffusion.errors import InputError
from guided_diffusion.inference import planning
from guided_diffusion.inference.assembly import Assembly
from guided_diffusion.inference.blend_at_end import BlendAtEnd
from guided_diffusion.inference.blend_each_step import BlendEachStep
from guided_diffusion.inference.loading import LoadedModel
from guided_diffusion.inference.patch_sampling import Blending, PatchTiming
from guided_diffusion.inference.results import Denoised, DrawnResult, Result
from guided_diffusion.inference.resume import FinishedPatches
from guided_diffusion.machine.memory import PatchesTooLarge
from guided_diffusion.pet.grid import Volume
from guided_diffusion.pet.normalisation import normalise
from guided_diffusion.pet.patches import PatchPlan, pad_in_plane

PUBLISHED_GRID = PreprocessingConfig()
# Ways to blend patches, by the names of `--fuse`.
BLENDINGS: dict[str, Callable[[LoadedModel], Blending]] = {"end": BlendAtEnd, "each_step": BlendEachStep}


def denoise_volume(
    volume: Volume | None,
    loaded: LoadedModel,
    *,
    above_cap: str = "keep",
    expected_patches: int | None = None,
    finished: FinishedPatches | None = None,
    fit_memory: bool = False,
    measure: Callable[[Volume], Any] | None = None,
) -> Denoised | None:
    """Denoise a volume over all MPI ranks; all ranks call this, rank 0 with the volume and the others with None.

    volume: in SUV, on any grid. loaded: the result of `load_model`, the same on all ranks. above_cap: how uptake above
    suv_max is treated, see `back_to_input_grid`. expected_patches: if given, raise InputError unless the plan has this
    number of patches. finished: where rank 0 keeps finished patches, so that an interrupted run can be continued.
    fit_memory: shorten the patches to the free memory beforehand, if `--noise field` allows it. measure: called on rank
    0 with each realisation (SUV, on the input's grid); realisations themselves are not kept.

    Returns the result on rank 0, None elsewhere. Memory does not grow with the number of realisations. Raises
    InputError if the result is not finite. If memory runs out, all ranks start again with patches of half the length;
    if that would change the noise, they raise InputError. A network that draws images draws several of a patch per
    call, and none if only the mean is wanted.
    """
    model_input = on_root(planning.to_grid, volume, loaded.preprocessing)
    free = planning.free_bytes_per_rank(loaded.device) if fit_memory else None
    plan = on_root(planning.make_plan, model_input, loaded, expected_patches, free)
    blending = BLENDINGS[loaded.sampling.fuse](loaded)

    def begin() -> _Work:
        kind = DrawnResult if loaded.method.noise_fields else Result
        result = kind(volume, model_input, loaded, above_cap, measure)
        return _Work(plan, loaded, result, finished.with_patches_of(plan.patch_size) if finished else None)

    while True:
        try:
            work = on_root(begin)  # what fails on rank 0 alone, is to be raised on all ranks
            timings = blending.join() if work is None else blending.lead(work.padded, plan, work.batches, work.assembly)
            return on_root(_described, work, plan, timings)
        except PatchesTooLarge:
            work = None  # whose volumes would stay in memory while the next ones are made
            plan = on_root(planning.shorter_plan, plan, loaded, expected_patches)


class _Work:
    """Rank 0's state of a run with one plan: the volume, padded in plane, the batches, and their assembly."""

    def __init__(self, plan: PatchPlan, loaded: LoadedModel, result: Result, kept: FinishedPatches | None):
        grid = loaded.preprocessing
        normalised = normalise(result.model_input.data, grid.suv_max, negative=grid.linear_transfer)
        self.result = result
        padded = pad_in_plane(normalised, loaded.model.config.in_plane_multiple)
        # A plan may be longer than the volume, which then goes on as it ends.
        self.padded = np.pad(padded, ((0, 0), (0, 0), (0, plan.length - padded.shape[2])), mode="edge")
        self.batches = _batches(len(plan.starts), loaded.sampling.batch_size)
        x, y = self.padded.shape[:2]
        self.assembly = Assembly(plan, self.batches, result.shapes((x, y)), result.add, kept)


def _described(work: _Work, plan: PatchPlan, timings: list[PatchTiming]) -> Denoised:
    """The result of finished work. Raises InputError if voxels are NaN or infinite."""
    denoised = work.result.described(plan, timings)
    if not np.isfinite(denoised.samples).all():
        raise InputError(
            "the denoised volume has NaN or infinite voxels: the weights do not suit this precision or this scan;"
            " try --precision float32, or other weights"
        )
    return denoised


def _batches(patches: int, batch_size: int) -> list[range]:
    """Patch numbers in batches of at most `batch_size`."""
    return [range(first, min(first + batch_size, patches)) for first in range(0, patches, batch_size)]
