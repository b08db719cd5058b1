"""The paper's method: a 3D diffusion model, conditioned on the low-dose patch."""

from collections.abc import Callable

import torch
from torch import Tensor

from guided_diffusion.config import DiffusionConfig, ModelConfig
from guided_diffusion.fast.fast_unet import FastSuperResModel
from guided_diffusion.gaussian_diffusion import GaussianDiffusion
from guided_diffusion.interfaces import Method
from guided_diffusion.script_util import create_model
from guided_diffusion.unet import SuperResModel


class DDPM3D(Method):
    """The conditional UNet and the Gaussian diffusion that the published weights belong to."""

    name = "ddpm3d"

    def create_model(self, model: ModelConfig, diffusion: DiffusionConfig) -> SuperResModel:
        """The conditional network."""
        return create_model(model, diffusion)

    def create_process(self, diffusion: DiffusionConfig, start_step: int | None = None) -> GaussianDiffusion:
        """The diffusion process."""
        return GaussianDiffusion(diffusion, start_step)

    def make_fast(
        self, network: SuperResModel, dtype: torch.dtype, norm_silu: Callable[..., Tensor]
    ) -> FastSuperResModel:
        """The network rearranged for inference."""
        return FastSuperResModel(network, dtype, norm_silu)


METHOD = DDPM3D()
