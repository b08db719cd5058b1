"""The 2D diffusion model that the paper compares with: axial slices, each conditioned on its own low dose.

With `--neighbours n` the network also sees the low dose of the n slices on either side of a slice ("2.5D"). Volumes are
sampled as a whole, so patches, ranks and noise work as for 3D methods; only the network splits them into slices.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from guided_diffusion.config import DiffusionConfig, ModelConfig
from guided_diffusion.gaussian_diffusion import GaussianDiffusion
from guided_diffusion.interfaces import Method
from guided_diffusion.network_memory import network_bytes
from guided_diffusion.unet import UNetModel, corrected


def with_neighbours(low_res: Tensor, neighbours: int) -> Tensor:
    """Every slice of [N, 1, Z + 2n, X, Y] but the n outermost, with its neighbours: [N, 2n + 1, Z, X, Y], inferior
    to superior."""
    length = low_res.shape[2] - 2 * neighbours
    return torch.cat([low_res[:, :, first : first + length] for first in range(2 * neighbours + 1)], dim=1)


class SliceModel(UNetModel):
    """The conditional network on slices.

    forward: x [N, 1, Z, X, Y] and low_res [N, 1, Z + 2n, X, Y] normalised, timesteps [N] -> float32 [N, out, Z, X, Y].
    Without neighbours it has the weights and the function of a `SuperResModel` for slices.
    """

    def __init__(self, config: ModelConfig, out_channels: int):
        super().__init__(config, in_channels=2 + 2 * config.neighbours, out_channels=out_channels)

    def forward(self, x: Tensor, timesteps: Tensor, low_res: Tensor) -> Tensor:
        count, _, length = x.shape[:3]
        neighbours, scale = self.config.neighbours, self.config.low_res_scale
        slices, shown = (volume.transpose(1, 2).flatten(0, 1) for volume in (x, with_neighbours(low_res, neighbours)))
        entering = torch.cat([slices, scale * shown.to(slices)], dim=1)
        output = super().forward(entering, timesteps.repeat_interleave(length))
        if self.config.add_low_res:
            output = corrected(self.config, output, shown[:, neighbours : neighbours + 1])
        return output.unflatten(0, (count, length)).transpose(1, 2)


class SliceBySlice(nn.Module):
    """A trained `SliceModel` that takes one slice after the other: in the memory of one, and with results of which no
    bit depends on the slices that come with it."""

    def __init__(self, network: SliceModel):
        super().__init__()
        self.config = network.config
        self._network = network

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights."""
        return self._network.dtype

    @torch.no_grad()
    def forward(self, x: Tensor, timesteps: Tensor, low_res: Tensor) -> Tensor:
        volumes = zip(x.split(1), timesteps.split(1), low_res.split(1), strict=True)
        return torch.cat([self._of_volume(*volume) for volume in volumes])

    def _of_volume(self, x: Tensor, timestep: Tensor, low_res: Tensor) -> Tensor:
        """The output for one volume."""
        shown = 1 + 2 * self.config.neighbours
        slices = [
            self._network(x[:, :, first : first + 1], timestep, low_res[:, :, first : first + shown])
            for first in range(x.shape[2])
        ]
        return torch.cat(slices, dim=2)


class DDPM2D(Method):
    """Gaussian diffusion of volumes with a 2D network.

    Training uses all slices of a crop at one timestep.
    """

    name = "ddpm2d"
    compiles = False
    dims = 2

    def model_config(self, model: ModelConfig) -> ModelConfig:
        """The network's flags, for slices."""
        return replace(model, dims=2)

    def create_model(self, model: ModelConfig, diffusion: DiffusionConfig) -> SliceModel:
        """The conditional network."""
        return SliceModel(model, out_channels=2 if diffusion.learn_sigma else 1)

    def create_process(self, diffusion: DiffusionConfig, start_step: int | None = None) -> GaussianDiffusion:
        """The diffusion process."""
        return GaussianDiffusion(diffusion, start_step)

    def make_fast(
        self,
        network: SliceModel,
        dtype: torch.dtype,
        norm_silu: Callable[..., Tensor],  # noqa: ARG002
    ) -> SliceBySlice:
        """The network for inference; the rearranged layers of 3D networks gain nothing here."""
        return SliceBySlice(network.to(dtype))

    def margin(self, model: ModelConfig) -> int:
        """Number of neighbouring slices on each side, which the network sees beside its own."""
        return model.neighbours

    def call_bytes(self, model: ModelConfig, patch: tuple[int, int, int], dtype: torch.dtype) -> int:
        """The memory of a call, which holds the maps of one slice, and single values of all."""
        length, x, y = patch
        values = 4 + 2 * model.neighbours  # x, low dose and neighbours, at most two outputs
        return network_bytes(model, (1, x, y), dtype) + values * length * x * y * torch.float32.itemsize


METHOD = DDPM2D()
