"""Interfaces between the parts of this package: a network, a process, and a method.

Tensors are [N, C, Z, X, Y], images in them normalised.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from guided_diffusion.config import DiffusionConfig, ModelConfig
from guided_diffusion.network_memory import network_bytes


class Network(Protocol):
    """The interface of every network.

    x: [N, 1, Z, X, Y]; of a network that draws images, white noise [N, noise_fields x images, Z, X, Y]. timesteps: [N].
    low_res: [N, 1, Z + 2 x the method's margin, X, Y]. Returns float32 [N, channels, Z, X, Y].
    """

    config: ModelConfig

    @property
    def dtype(self) -> torch.dtype:
        """Data type in which the network computes."""

    def __call__(self, x: Tensor, timesteps: Tensor, low_res: Tensor) -> Tensor:
        """The network's output."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Its weights, all on one device."""


class Process(Protocol):
    """The steps at which a network is called: 0 to num_timesteps - 1, from the least to the most noisy.

    original_timesteps: int64 [num_timesteps], the timesteps of the full process that these are.
    """

    config: DiffusionConfig
    num_timesteps: int
    original_timesteps: np.ndarray

    def p_mean_variance(
        self,
        model: Callable[..., Tensor],
        x: Tensor,
        t: Tensor,
        clip_denoised: bool = True,
        model_kwargs: dict[str, Any] | None = None,
    ) -> dict[str, Tensor]:
        """The network's estimate of the step before: "mean", "variance", "log_variance", and "pred_xstart", like x."""

    def training_losses(
        self,
        model: Callable[..., Tensor],
        x_start: Tensor,
        t: Tensor,
        model_kwargs: dict[str, Any] | None = None,
        noise: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Loss per batch element, each [N]: "loss", and the terms that it is made of."""


class NoisingProcess(Process, Protocol):
    """A process that adds noise, with what samplers need that work in terms of signal and noise.

    alphas_cumprod: float64 [num_timesteps]. alphas_cumprod_prev: the same one step before, starting with 1.
    """

    alphas_cumprod: np.ndarray
    alphas_cumprod_prev: np.ndarray

    def q_sample(self, x_start: Tensor, t: Tensor, noise: Tensor | None = None) -> Tensor:
        """x_t for given x_0 and noise."""

    def predict_eps_from_xstart(self, x_t: Tensor, t: Tensor, x_start: Tensor) -> Tensor:
        """The noise that x_t and x_0 imply."""


@dataclass(frozen=True)
class Examples:
    """Input of a training step: crops [N, 1, Z, X, Y], noise of the same shape, and timesteps [N].

    low_dose has the method's margin of additional slices at both ends. noise: None for methods that use none.
    reference: [N, 2], the low dose's counts as a fraction of the normal dose's, and the fraction of its noise that the
    normal dose has (0: it is noise-free).
    """

    low_dose: Tensor
    normal_dose: Tensor
    noise: Tensor | None
    timesteps: Tensor
    reference: Tensor

    def part(self, wanted: slice, device: torch.device) -> "Examples":
        """Some of the examples, on a device; pinned memory is copied while the device computes."""
        values = vars(self).values()
        return Examples(*(v if v is None else v[wanted].to(device, non_blocking=True) for v in values))


@dataclass(frozen=True)
class Objective:
    """A network to train with an optimiser of its own, and its loss.

    losses: function of the network (whose gradients are averaged over ranks) and examples; returns the terms [N], with
    the total as "loss".
    """

    name: str
    network: nn.Module
    losses: Callable[[nn.Module, Examples], dict[str, Tensor]]


class Method(ABC):
    """A kind of denoiser that can be trained and run: everything that is specific to it.

    name: as in flags and headers. sampled: whether an image takes a chain of network calls instead of a single one.
    dims: of the network. terms: terms that the objectives report besides the loss of the first; those of further
    objectives begin with their names. begins_with: the method whose trained weights its training starts from, None for
    no particular one. uses_noise: whether the objectives use the noise of the examples. noise_free: whether the
    network's answer is the noise-free image, from which those of all doses follow (`references`). noise_fields: for a
    network that draws images about a predicted mean, the number of white-noise fields per image; else 0. alignment:
    patches begin at multiples of this many slices; more than 1 if the effect of noise depends on the position in the
    patch. crop_multiple: sizes of training crops are multiples of it along every axis.
    compiles: whether `make_fast` has layers for `norm_silu`, which `--compile` compiles.
    """

    name: str
    begins_with: str | None = None
    sampled = True
    uses_noise = True
    noise_free = False
    dims = 3
    terms: tuple[str, ...] = ("mse", "vb")
    noise_fields = 0
    alignment = 1
    crop_multiple = 1
    compiles = True

    @abstractmethod
    def create_model(self, model: ModelConfig, diffusion: DiffusionConfig) -> nn.Module:
        """The untrained network that denoises: the one in checkpoints and moving averages."""

    @abstractmethod
    def create_process(self, diffusion: DiffusionConfig, start_step: int | None = None) -> Process:
        """The process in which the network is called, from `start_step` on (None: from the last step)."""

    def model_config(self, model: ModelConfig) -> ModelConfig:
        """The flags of the network, completed by the method. Raises InputError for unsupported flags."""
        return model

    def begun_part(self, network: nn.Module) -> nn.Module:
        """The part of a network that is initialised with the weights of `begins_with`."""
        return network

    def objectives(self, network: nn.Module, diffusion: DiffusionConfig) -> tuple[Objective, ...]:
        """The objectives of a training step, in order; the first is that of `network`."""
        return (Objective(self.name, network, process_losses(self.create_process(diffusion))),)

    def draws(
        self,
        network: nn.Module,
        low_dose: Tensor,
        noises: Iterable[Tensor],
    ) -> Iterator[Tensor]:
        """For methods with noise fields: yields the mean [N, 1, Z, X, Y], then one image per noise, all noise-free.

        low_dose: [N, 1, Z, X, Y]. noises: white, [N, noise_fields, Z, X, Y] each.
        """
        raise NotImplementedError(f"{self.name} draws no images")

    def make_fast(
        self,
        network: nn.Module,
        dtype: torch.dtype,
        norm_silu: Callable[..., Tensor],  # noqa: ARG002
    ) -> nn.Module:
        """The form of a trained network for inference, in a precision; by default the network itself.

        norm_silu: the function to use for normalisation followed by SiLU, for forms that allow a choice.
        """
        return network.to(dtype)

    def margin(self, model: ModelConfig) -> int:  # noqa: ARG002
        """Number of additional axial slices of the low dose that the network needs at both ends of a patch."""
        return 0

    def call_bytes(self, model: ModelConfig, patch: tuple[int, int, int], dtype: torch.dtype) -> int:
        """Estimated memory in bytes of a network call on a patch (Z, X, Y), without the weights."""
        return network_bytes(model, patch, dtype)


def process_losses(process: Process) -> Callable[[nn.Module, Examples], dict[str, Tensor]]:
    """The loss function of an objective that uses the losses of a process."""

    def losses(network: nn.Module, examples: Examples) -> dict[str, Tensor]:
        given = {"low_res": examples.low_dose}
        return process.training_losses(network, examples.normal_dose, examples.timesteps, given, examples.noise)

    return losses


def without_margin(slices: Tensor, margin: int) -> Tensor:
    """A tensor [N, C, Z, X, Y] without `margin` slices at both ends."""
    return slices[:, :, margin : slices.shape[2] - margin]
