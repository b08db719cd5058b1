"""Regression in units of the scan's own noise, for scans of any scanner: see `local_unet`.

Trained by errors of voxels, means of blocks and peaks of blocks.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from guided_diffusion.config import DiffusionConfig, ModelConfig
from guided_diffusion.gaussian_diffusion import mean_flat
from guided_diffusion.interfaces import Examples, Method, Objective
from guided_diffusion.local_unet import SUB_IMAGES, LocalUNet, local_scale, sub_images
from guided_diffusion.methods.unet3d import Regression
from guided_diffusion.references import Reference

MEAN_BLOCKS = {2: 1.0, 4: 2.0, 8: 4.0}
"""Sides in voxels of the blocks whose means are compared besides the voxels, and their weights: what a reader measures
are means, and an error of a mean is small in the sum over voxels."""
PEAK_BLOCKS = {4: 0.1, 8: 0.1}
"""The same for the highest voxels of blocks."""
# Memory of a call, the most that was measured for widths of 32, 64 and 96: copies of its widest map, and bytes per
# position beside them.
LOCAL_COPIES, LOCAL_BYTES = 8.0, 300.0


def local_losses(network: nn.Module, examples: Examples) -> dict[str, Tensor]:
    """Errors of the reference that follows from the network's answer: in units of the local noise as "loss", and the
    mean squared error as "mse", each [N].

    The answer is the noise-free image, so that references of all doses, noisy or not, have the network learn the same.
    A reference of unknown dose is taken for noise-free.
    """
    low_dose, target = examples.low_dose, examples.normal_dose
    answer = network(low_dose, examples.timesteps, low_res=low_dose)
    image = Reference.of_pairs(examples.reference).expected(answer, low_dose)
    unit = getattr(network, "module", network).config.low_res_scale
    return {
        "loss": local_error(unit * image, unit * target, unit * low_dose),
        "mse": mean_flat((target - image).square()),
    }


def local_error(image: Tensor, target: Tensor, low_dose: Tensor) -> Tensor:
    """Squared errors in units of the low dose's local noise, [N], for volumes in SUV [N, 1, Z, X, Y] of sizes
    divisible by 8.

    Means over a volume weighted by that noise: hot tissue counts for more, but not alone, and every dose alike.
    """
    noise = local_scale(sub_images(low_dose.float())).noise
    error = image - target
    loss = _weighted_mean(sub_images(error).square().mean(dim=1, keepdim=True), noise)
    for side, weight in MEAN_BLOCKS.items():
        loss = loss + weight * _weighted_mean(F.avg_pool3d(error, side).square(), _over_blocks(noise, side))
    for side, weight in PEAK_BLOCKS.items():
        peaks = F.max_pool3d(image, side) - F.max_pool3d(target, side)
        loss = loss + weight * _weighted_mean(peaks.square(), _over_blocks(noise, side))
    return loss


def _weighted_mean(squares: Tensor, noise: Tensor) -> Tensor:
    """Mean of squared errors over squared noise, weighted by the noise; both [N, 1, Z, X, Y], the result [N]."""
    return mean_flat(squares / noise) / mean_flat(noise)


def _over_blocks(noise: Tensor, side: int) -> Tensor:
    """The noise of positions as a mean over blocks of `side` voxels."""
    return F.avg_pool3d(noise, side // 2)


class Local3D(Method):
    """A regression whose layers already are as fast as they get: inference calls the network as it is."""

    name = "local3d"
    sampled = False
    uses_noise = False
    noise_free = True
    crop_multiple = max(MEAN_BLOCKS)
    compiles = False

    def create_model(self, model: ModelConfig, diffusion: DiffusionConfig) -> LocalUNet:  # noqa: ARG002
        """The network."""
        return LocalUNet(model)

    def create_process(self, diffusion: DiffusionConfig, start_step: int | None = None) -> Regression:
        """A process of one step."""
        return Regression(diffusion, start_step)

    def objectives(self, network: nn.Module, diffusion: DiffusionConfig) -> tuple[Objective, ...]:  # noqa: ARG002
        """One: errors of the reference."""
        return (Objective(self.name, network, local_losses),)

    def call_bytes(self, model: ModelConfig, patch: tuple[int, int, int], dtype: torch.dtype) -> int:
        """The memory of a call, which works on an eighth of the positions (see `tests/test_network_memory.py`)."""
        depth, x, y = patch
        return round((LOCAL_COPIES * model.num_channels * dtype.itemsize + LOCAL_BYTES) * depth * x * y / SUB_IMAGES)


METHOD = Local3D()
