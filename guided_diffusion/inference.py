"""From a low-dose volume to a denoised one: patches, ranks, and back to one volume.

`denoise_volume` is the Python door; `scripts/test.py` goes through it too. Volumes on the model's grid are arrays
[X, Y, Z] = (anterior-posterior, left-right, axial); tensors are [N, C, Z, X, Y].
"""

from dataclasses import dataclass, replace

import numpy as np

from guided_diffusion import fused, independent
from guided_diffusion.assembly import Assembly
from guided_diffusion.config import PreprocessingConfig
from guided_diffusion.dist_util import on_root
from guided_diffusion.errors import InputError
from guided_diffusion.gaussian_diffusion import GaussianDiffusion
from guided_diffusion.normalisation import denormalise, normalise
from guided_diffusion.patch_sampling import PUBLISHED_ORDER, Sampling
from guided_diffusion.pet.geometry import back_to_input_grid, to_model_grid
from guided_diffusion.pet.patches import PatchPlan, pad_in_plane, plan_axial_patches
from guided_diffusion.pet.volume import Volume
from guided_diffusion.resume import FinishedPatches
from guided_diffusion.unet import SuperResModel
from guided_diffusion.welford import RunningStatistics

PUBLISHED_GRID = PreprocessingConfig()


@dataclass(frozen=True)
class Denoised:
    """What rank 0 has after `denoise_volume`.

    samples: normalised, on the model's grid, as sampled. model_input: the low-dose volume (SUV) on the model's grid.
    volume: SUV on the input's own grid. timings: one entry per batch of patches. After several realisations, samples
    and volume are their means, and samples_sd and volume_sd their standard deviations, voxel by voxel.
    """

    samples: np.ndarray
    model_input: Volume
    volume: Volume
    plan: PatchPlan
    timings: list[dict]
    samples_sd: np.ndarray | None = None
    volume_sd: Volume | None = None


def denoise_volume(
    volume: Volume | None,
    model: SuperResModel,
    diffusion: GaussianDiffusion,
    sampling: Sampling = PUBLISHED_ORDER,
    preprocessing: PreprocessingConfig = PUBLISHED_GRID,
    *,
    above_cap: str = "keep",
    expected_patches: int | None = None,
    finished: FinishedPatches | None = None,
) -> Denoised | None:
    """Denoise a volume over all MPI ranks; every rank calls this, rank 0 with the volume and the others with None.

    volume: in SUV, on any grid. model: in evaluation mode on this rank's device. above_cap: what becomes of uptake
    above suv_max, see `back_to_input_grid`. expected_patches: raise InputError unless the plan has as many. finished:
    where rank 0 keeps finished patches, so that an interrupted run can be continued.
    Returns the result on rank 0 and None elsewhere. Its memory does not grow with `sampling.realisations`.
    """
    ranks = fused if sampling.fuse == "each_step" else independent
    prepared = on_root(_prepare, volume, preprocessing, expected_patches)
    if prepared is None:
        ranks.join(model, diffusion, sampling)
        return None
    model_input, plan = prepared
    padded = pad_in_plane(normalise(model_input.data, preprocessing.suv_max), model.config.in_plane_multiple)
    batches = _batches(len(plan.starts), sampling.batch_size)
    on_model_grid, on_input_grid = RunningStatistics(), RunningStatistics()

    def take_in(realisation: np.ndarray) -> None:
        samples = realisation[: model_input.data.shape[0], : model_input.data.shape[1]]
        on_model_grid.add(samples)
        denoised = Volume(denormalise(np.maximum(samples, 0), preprocessing.suv_max), model_input.affine, "SUV")
        back = back_to_input_grid(denoised, model_input, volume, above_cap=above_cap, suv_max=preprocessing.suv_max)
        on_input_grid.add(back.data)

    assembly = Assembly(plan, batches, padded.shape[:2], sampling.realisations, take_in, finished)
    timings = ranks.lead(padded, plan, batches, assembly, model, diffusion, sampling)
    deviation = on_input_grid.standard_deviation
    return Denoised(
        on_model_grid.mean,
        model_input,
        replace(volume, data=on_input_grid.mean),
        plan,
        timings,
        on_model_grid.standard_deviation,
        None if deviation is None else replace(volume, data=deviation),
    )


def _prepare(
    volume: Volume, preprocessing: PreprocessingConfig, expected_patches: int | None
) -> tuple[Volume, PatchPlan]:
    """The volume on the model's grid and the plan of its patches."""
    if volume.unit != "SUV":
        raise InputError(f"the scan is in {volume.unit}, but the network knows SUV by body weight only")
    on_grid = to_model_grid(volume, voxel_mm=preprocessing.voxel_mm, axis_codes=preprocessing.axis_codes)
    plan = plan_axial_patches(on_grid.data.shape[2], preprocessing.patch_size, preprocessing.overlap)
    if expected_patches not in (None, len(plan.starts)):
        raise InputError(
            f"--num_samples {expected_patches} contradicts the plan: {plan.length} slices take"
            f" {len(plan.starts)} patches of {plan.patch_size}; leave the flag out"
        )
    return on_grid, plan


def _batches(patches: int, batch_size: int) -> list[range]:
    """Patch numbers in batches of at most `batch_size`."""
    return [range(first, min(first + batch_size, patches)) for first in range(0, patches, batch_size)]
