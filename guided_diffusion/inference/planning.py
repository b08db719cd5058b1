"""Before denoising: the volume on the model's grid, its patches, and whether they fit into memory.

Patches can be shortened only if the noise is a field. The result is then that of a run with that `--patch_size`: the
same noise everywhere, with the borders between patches in other places.
"""

import math

import torch

from guided_diffusion import logger
from guided_diffusion.config import PreprocessingConfig
from guided_diffusion.dist_util import communicator, ranks_per_device
from guided_diffusion.errors import InputError
from guided_diffusion.inference.loading import LoadedModel
from guided_diffusion.inference.patch_sampling import groups_of_draws
from guided_diffusion.interfaces import Network
from guided_diffusion.machine.memory import free_bytes
from guided_diffusion.network_memory import fitting_patch_size, shorter
from guided_diffusion.pet.geometry import to_model_grid
from guided_diffusion.pet.grid import Volume
from guided_diffusion.pet.orientation import turned
from guided_diffusion.pet.patches import PatchPlan, plan_aligned_patches

# Of the network's voxels in plane. Scans of patients are coarser, also at 1.65 mm; those of mice have voxels of 0.5 mm.
FINE_VOXELS = 0.4


def to_grid(volume: Volume, preprocessing: PreprocessingConfig) -> Volume:
    """The volume on the model's grid. Raises InputError unless it is in SUV by body weight."""
    if volume.unit != "SUV":
        raise InputError(f"the scan is in {volume.unit}, but the network knows SUV by body weight only")
    return to_model_grid(
        volume,
        voxel_mm=preprocessing.voxel_mm,
        axis_codes=preprocessing.axis_codes,
        linear=preprocessing.linear_transfer,
    )


def doubt_of_fine_voxels(volume: Volume, preprocessing: PreprocessingConfig) -> str:
    """A notice on a scan, as of a mouse, whose voxels in plane are much smaller than the network's; else ""."""
    sizes = zip(turned(volume, preprocessing.axis_codes).voxel_mm[:2], preprocessing.voxel_mm, strict=False)
    own, network = min(sizes, key=lambda pair: pair[0] / pair[1])
    if own >= FINE_VOXELS * network:
        return ""
    fate = (
        "is lost but for the scan's share of the result (--dose_fraction)"
        if preprocessing.linear_transfer
        else "stays as it is, noise too"
    )
    return (
        f"the scan's voxels of {own:.3g} mm are much finer than the network's of {network:.3g} mm: what is smaller than"
        f" those {fate}"
    )


def free_bytes_per_rank(device: torch.device) -> float | None:
    """Free bytes of the rank with the fewest, or None where it is unknown on a rank. All ranks call this together."""
    free, sharing = free_bytes(device), ranks_per_device()
    everywhere = communicator().allgather(None if free is None else free / sharing)
    return None if None in everywhere else min(everywhere)


def make_plan(model_input: Volume, loaded: LoadedModel, expected_patches: int | None, free: float | None) -> PatchPlan:
    """The patches of a volume on the model's grid.

    free: memory in bytes available to a network call; patches are shortened to it if the noise allows. None: unlimited.
    Raises InputError if the plan does not have `expected_patches`, if given; patches are then not shortened.
    """
    preprocessing = loaded.preprocessing
    length = model_input.data.shape[2]
    plan = _plan(length, preprocessing.patch_size, loaded)
    if expected_patches not in (None, len(plan.starts)):
        raise InputError(
            f"--num_samples {expected_patches} contradicts the plan: {plan.length} slices take"
            f" {len(plan.starts)} patches of {plan.patch_size}; give that number, or none to scripts/test.py"
        )
    if free is None or loaded.sampling.noise != "field" or expected_patches is not None:
        return plan
    in_plane = network_plane(model_input, loaded.model)
    size = fitting_patch_size(
        lambda slices: loaded.patch_bytes(slices, in_plane), free, plan.patch_size, preprocessing.overlap
    )
    return plan if size == plan.patch_size else _shortened(length, size, loaded)


def shorter_plan(plan: PatchPlan, loaded: LoadedModel, expected_patches: int | None) -> PatchPlan:
    """A plan with patches of half the length. Raises InputError where that is impossible or would change the noise."""
    size = shorter(plan.patch_size, loaded.preprocessing.overlap)
    if loaded.sampling.noise != "field" or expected_patches is not None or size is None:
        raise InputError(
            f"patches of {plan.patch_size} slices do not fit the memory and may not be shortened here; use --noise"
            " field without --num_samples, a smaller --overlap, fewer ranks or a larger machine"
        )
    return _shortened(plan.length, size, loaded)


def bytes_on_disk(volume: Volume, loaded: LoadedModel) -> int:
    """Upper bound in bytes of the files of denoising a volume: results, and finished patches until completion.

    All are float32; the volume on the model's grid is assumed not to be cropped.
    """
    preprocessing, realisations = loaded.preprocessing, loaded.sampling.realisations
    on_grid = volume.data.size * volume.voxel_ml * 1000 / math.prod(preprocessing.voxel_mm)
    overlapping = on_grid * preprocessing.patch_size / (preprocessing.patch_size - preprocessing.overlap)
    images = 2 if realisations > 1 else 1
    kept = realisations
    if loaded.method.noise_fields:
        kept = loaded.sampling.drawn + len(groups_of_draws(loaded.sampling))
    return int(4 * (images * (on_grid + volume.data.size) + kept * overlapping))


def describe(model_input: Volume, plan: PatchPlan, loaded: LoadedModel, free: float | None) -> str:
    """One line for the user: the memory that a network call is expected to need, and the free memory."""
    together = min(loaded.sampling.batch_size, len(plan.starts))
    x, y = network_plane(model_input, loaded.model)
    needed = loaded.patch_bytes(plan.patch_size, (x, y))
    left = "unknown" if free is None else f"{free / 2**30:.1f} GiB"
    return (
        f"{len(plan.starts)} patches of {plan.patch_size} x {x} x {y}, {together} at a time: a network call takes about"
        f" {needed / 2**30:.2f} GiB; free for each rank: {left}"
    )


def network_plane(model_input: Volume, model: Network) -> tuple[int, int]:
    """X and Y of a patch, padded for the network."""
    multiple = model.config.in_plane_multiple
    x, y = (size + -size % multiple for size in model_input.data.shape[:2])
    return x, y


def _plan(length: int, size: int, loaded: LoadedModel) -> PatchPlan:
    """Patches of that many slices, which begin where the method wants them to."""
    return plan_aligned_patches(length, size, loaded.preprocessing.overlap, loaded.method.alignment)


def _shortened(length: int, size: int, loaded: LoadedModel) -> PatchPlan:
    logger.log(f"notice: memory is short: patches of {size} slices, which moves the borders between them")
    return _plan(length, size, loaded)
