"""The regression `local3d` with the distribution about its answer, to draw from: see `local_spread`."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from guided_diffusion.config import DiffusionConfig, ModelConfig
from guided_diffusion.gaussian_diffusion import mean_flat
from guided_diffusion.interfaces import Examples, Objective
from guided_diffusion.local_spread import LENGTHS, LocalSpread, Reference, block_variance, kernel, predictive
from guided_diffusion.local_unet import from_sub_images, local_scale, sub_images
from guided_diffusion.methods.local3d import Local3D, LocalRegression

BLOCKS = (1, 2, 4, 8)
"""Sides in voxels of the blocks whose means are predicted: what single voxels tell nothing of is how noise correlates,
on which the error bars of regions and the texture of samples depend."""
VOXEL_BYTES = 160
"""Memory of a call for each voxel beside the regression's: measured for the shipped network (157)."""
FURTHEST = 6.0
"""Errors beyond so many standard deviations count as these: else a few voxels decide over all others."""
_BLOCK_VARIANCES = {side: [block_variance(length, side) for length in LENGTHS] for side in BLOCKS}


class Answer(LocalRegression):
    """The regression's answer alone, as a process of one step."""

    def p_mean_variance(
        self,
        model: Callable[..., Tensor],
        x: Tensor,
        t: Tensor,
        clip_denoised: bool = True,
        model_kwargs: dict[str, Any] | None = None,
    ) -> dict[str, Tensor]:
        """As the regression's, of the first of the network's channels."""

        def answer(*given: Tensor, **named: Tensor) -> Tensor:
            return model(*given, **named)[:, :1]

        return super().p_mean_variance(answer, x, t, clip_denoised, model_kwargs)


def spread_losses(network: nn.Module, examples: Examples) -> dict[str, Tensor]:
    """Negative logarithm of the Gaussian likelihood of voxels and of means over blocks, each [N], as "loss", and their
    squared errors over the predicted variances as "ratio", which is 1 where the spread is right.

    Means over a volume weighted by the local noise, as the regression's loss.
    """
    low_dose, target = examples.low_dose, examples.normal_dose
    unit = getattr(network, "module", network).config.low_res_scale
    output = network(target, examples.timesteps, low_res=low_dose)
    mean, amplitudes = predictive(output, low_dose, Reference(*examples.reference.unbind(dim=1)))
    noise = from_sub_images(local_scale(sub_images(unit * low_dose.float())).noise.expand(-1, 8, -1, -1, -1))
    loss, ratio = 0.0, 0.0
    for side in BLOCKS:
        variances = torch.tensor(_BLOCK_VARIANCES[side]).to(mean.device, non_blocking=True).view(1, -1, 1, 1, 1)
        variance = (F.avg_pool3d(amplitudes, side).square() * variances).sum(dim=1, keepdim=True)
        squares = F.avg_pool3d(target - mean, side).square() / variance
        weights = F.avg_pool3d(noise, side)
        weights = weights / mean_flat(weights).view(-1, 1, 1, 1, 1)
        loss = loss + mean_flat(weights * 0.5 * (squares.clamp(max=FURTHEST**2) + variance.log()))
        ratio = ratio + mean_flat(weights * squares) / len(BLOCKS)
    return {"loss": loss, "ratio": ratio}


class Local3DSamples(Local3D):
    """A frozen `local3d`, whose weights it begins with, and a head that is trained."""

    name = "local3d_samples"
    begins_with = Local3D.name
    kernels = tuple(kernel(length).numpy() for length in LENGTHS)
    terms = ("ratio",)

    def create_model(self, model: ModelConfig, diffusion: DiffusionConfig) -> LocalSpread:  # noqa: ARG002
        """The network."""
        return LocalSpread(model)

    def begun_part(self, network: LocalSpread) -> nn.Module:
        """The regression."""
        return network.regression

    def create_process(self, diffusion: DiffusionConfig, start_step: int | None = None) -> Answer:
        """A process of one step."""
        return Answer(diffusion, start_step)

    def distribution(self, output: Tensor, low_dose: Tensor, dose: float) -> Tensor:
        """Mean and amplitudes of the image of which the scan has that share of the counts; 0: the noise-free one."""
        ones = torch.ones(len(output), device=output.device)
        reference = Reference(dose * ones, ones)
        return torch.cat(predictive(output, low_dose, reference), dim=1)

    def call_bytes(self, model: ModelConfig, patch: tuple[int, int, int], dtype: torch.dtype) -> int:
        """The regression's memory and that of the volumes that leave the head."""
        depth, x, y = patch
        return super().call_bytes(model, patch, dtype) + VOXEL_BYTES * depth * x * y

    def objectives(self, network: nn.Module, diffusion: DiffusionConfig) -> tuple[Objective, ...]:  # noqa: ARG002
        """One: the likelihood of references."""
        return (Objective(self.name, network, spread_losses),)


METHOD = Local3DSamples()
