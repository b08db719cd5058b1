"""The paper's 3D UNet: the network of the diffusion model, trained as plain regression from low to normal dose."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from guided_diffusion.config import DiffusionConfig, ModelConfig
from guided_diffusion.fast.fast_unet import FastUNet
from guided_diffusion.gaussian_diffusion import mean_flat
from guided_diffusion.interfaces import Method
from guided_diffusion.unet import UNetModel, corrected


def _regressed(backbone: Callable[[Tensor], Tensor], config: ModelConfig, low_res: Tensor) -> Tensor:
    """The regression's function around a backbone, which takes the low-dose patch and returns the network's units."""
    output = backbone(config.low_res_scale * low_res)
    return corrected(config, output, low_res) if config.add_low_res else output / config.low_res_scale


class UNet3D(UNetModel):
    """A network whose only input is the low-dose patch.

    forward: x (ignored), timesteps (ignored) and low_res [N, 1, (Z,) X, Y] normalised -> the normal-dose patch, float32
    of the same shape. `add_low_res` and `low_res_scale` have the same meaning as for the diffusion model.
    """

    def __init__(self, config: ModelConfig):
        super().__init__(config, in_channels=1, out_channels=1)

    def forward(self, x: Tensor, timesteps: Tensor, low_res: Tensor) -> Tensor:  # noqa: ARG002
        return _regressed(
            lambda image: UNetModel.forward(self, image, torch.zeros_like(timesteps)), self.config, low_res
        )


class FastUNet3D(FastUNet):
    """The function of a `UNet3D`, made for inference."""

    def _one(self, x: Tensor, timestep: float, low_res: Tensor) -> Tensor:  # noqa: ARG002
        return _regressed(lambda image: self._unet(image, 0.0), self.config, low_res)


class Regression:
    """One network call, in the place of a diffusion process: a process of a single step whose x_0 is the output."""

    num_timesteps = 1

    def __init__(self, config: DiffusionConfig, start_step: int | None = None):  # noqa: ARG002
        self.config = config
        self.original_timesteps = np.zeros(1, dtype=np.int64)

    def p_mean_variance(
        self,
        model: Callable[..., Tensor],
        x: Tensor,
        t: Tensor,
        clip_denoised: bool = True,
        model_kwargs: dict[str, Any] | None = None,
    ) -> dict[str, Tensor]:
        """The network's output as "mean" and "pred_xstart", both [N, 1, (Z,) X, Y]; its variance is 0."""
        image = model(x, t, **(model_kwargs or {}))
        if clip_denoised:
            image = image.clamp(-1, 1)
        nothing = torch.zeros_like(image)
        return {"mean": image, "variance": nothing, "log_variance": nothing, "pred_xstart": image}

    def training_losses(
        self,
        model: Callable[..., Tensor],
        x_start: Tensor,
        t: Tensor,
        model_kwargs: dict[str, Any] | None = None,
        noise: Tensor | None = None,  # noqa: ARG002
    ) -> dict[str, Tensor]:
        """Mean squared error of the network's output, [N], as "loss" and "mse". The noise is not used."""
        image = model(x_start, t, **(model_kwargs or {}))
        mse = mean_flat((x_start - image).square())
        return {"loss": mse, "mse": mse}


class UNet3DRegression(Method):
    """The backbone as regression: one call, trained by the mean squared error."""

    name = "unet3d"
    sampled = False
    uses_noise = False

    def create_model(self, model: ModelConfig, diffusion: DiffusionConfig) -> UNet3D:  # noqa: ARG002
        """The network."""
        return UNet3D(model)

    def create_process(self, diffusion: DiffusionConfig, start_step: int | None = None) -> Regression:
        """A process of one step."""
        return Regression(diffusion, start_step)

    def make_fast(self, network: UNet3D, dtype: torch.dtype, norm_silu: Callable[..., Tensor]) -> FastUNet3D:
        """The network rearranged for inference."""
        return FastUNet3D(network, dtype, norm_silu)


METHOD = UNet3DRegression()
