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

    x: [N, 1, Z, X, Y]. timesteps: [N]. low_res: [N, 1, Z + 2 x the method's margin, X, Y]. Returns float32
    [N, channels, Z, X, Y].
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
    """The steps at which a network is called: 0 to num_timesteps - 1, 0 being the least noisy.

    original_timesteps: int64 [num_timesteps], which timesteps of the whole process these are.
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
    """A process that adds noise: what samplers that walk in terms of signal and noise need besides.

    alphas_cumprod: float64 [num_timesteps]. alphas_cumprod_prev: the same one step before, 1 at first.
    """

    alphas_cumprod: np.ndarray
    alphas_cumprod_prev: np.ndarray

    def q_sample(self, x_start: Tensor, t: Tensor, noise: Tensor | None = None) -> Tensor:
        """x_t for given x_0 and noise."""

    def predict_eps_from_xstart(self, x_t: Tensor, t: Tensor, x_start: Tensor) -> Tensor:
        """The noise that x_t and x_0 imply."""


@dataclass(frozen=True)
class Examples:
    """Input of a training step: crops [N, 1, Z, X, Y], noise of their shape, and timesteps [N].

    low_dose has the method's margin of further slices at both ends. noise: None for methods that use none. reference:
    [N, 2], the low dose's share of the normal dose's counts, and the share of its noise that the normal dose has (0: it
    is free of noise).
    """

    low_dose: Tensor
    normal_dose: Tensor
    noise: Tensor | None
    timesteps: Tensor
    reference: Tensor

    def part(self, wanted: slice, device: torch.device) -> "Examples":
        """Some of them, on a device, to which pinned memory is copied while the device computes."""
        values = vars(self).values()
        return Examples(*(v if v is None else v[wanted].to(device, non_blocking=True) for v in values))


@dataclass(frozen=True)
class Objective:
    """A network that is trained, by an optimiser of its own, and the loss that it is trained by.

    losses: of (the network, with its gradients averaged over ranks; examples): the terms [N], "loss" among them.
    """

    name: str
    network: nn.Module
    losses: Callable[[nn.Module, Examples], dict[str, Tensor]]


class Method(ABC):
    """A kind of denoiser that can be trained and run: all that is its own.

    name: in flags and headers. sampled: whether it is a chain of steps, not a single call. dims: of its network. terms:
    what its objectives report besides the first one's loss; those of further objectives begin with their names.
    begins_with: the method whose weights its training begins with, None for none in particular. uses_noise: whether
    its objectives use the noise of examples. noise_fields: how many fields of white noise an image is made of, where
    the network draws images about its answer; else 0. alignment: patches begin at multiples of so many slices; more
    than 1 where what a network makes of noise depends on the place in a patch.
    """

    name: str
    begins_with: str | None = None
    sampled = True
    uses_noise = True
    dims = 3
    terms: tuple[str, ...] = ("mse", "vb")
    noise_fields = 0
    alignment = 1

    @abstractmethod
    def create_model(self, model: ModelConfig, diffusion: DiffusionConfig) -> nn.Module:
        """The network that denoises, to be trained: what a checkpoint holds and moving averages follow."""

    @abstractmethod
    def create_process(self, diffusion: DiffusionConfig, start_step: int | None = None) -> Process:
        """The process that the network is walked through, from `start_step` on (None: the last)."""

    def model_config(self, model: ModelConfig) -> ModelConfig:
        """The network's flags with what the method fixes. Raises InputError for flags that it cannot serve."""
        return model

    def begun_part(self, network: nn.Module) -> nn.Module:
        """The part of a network that takes the weights of the method that it begins with."""
        return network

    def objectives(self, network: nn.Module, diffusion: DiffusionConfig) -> tuple[Objective, ...]:
        """The objectives of a step of training, in their order; the first one is `network`'s."""
        return (Objective(self.name, network, process_losses(self.create_process(diffusion))),)

    def draws(
        self,
        network: nn.Module,
        low_dose: Tensor,
        noises: Iterable[Tensor],
        dose: float,
    ) -> Iterator[Tensor]:
        """Of a method with noise fields: the mean [N, 1, Z, X, Y], then an image for each noise as it comes.

        low_dose: [N, 1, Z, X, Y]. noises: white, [N, noise_fields, Z, X, Y] each. dose: the share of the counts of the
        estimated image that the scan has; 0: it is the noise-free image.
        """
        raise NotImplementedError(f"{self.name} draws no images")

    def make_fast(
        self,
        network: nn.Module,
        dtype: torch.dtype,
        norm_silu: Callable[..., Tensor],  # noqa: ARG002
    ) -> nn.Module:
        """A trained network's form for inference, in a precision; by default the same network.

        norm_silu: the function of its norms, for forms that have a choice of it.
        """
        return network.to(dtype)

    def margin(self, model: ModelConfig) -> int:  # noqa: ARG002
        """Number of additional axial slices of the low dose that the network needs at both ends of a patch."""
        return 0

    def call_bytes(self, model: ModelConfig, patch: tuple[int, int, int], dtype: torch.dtype) -> int:
        """Estimated memory in bytes of a network call on a patch (Z, X, Y), without the weights."""
        return network_bytes(model, patch, dtype)


def process_losses(process: Process) -> Callable[[nn.Module, Examples], dict[str, Tensor]]:
    """The losses of an objective that are those of a process."""

    def losses(network: nn.Module, examples: Examples) -> dict[str, Tensor]:
        given = {"low_res": examples.low_dose}
        return process.training_losses(network, examples.normal_dose, examples.timesteps, given, examples.noise)

    return losses


def without_margin(slices: Tensor, margin: int) -> Tensor:
    """A tensor [N, C, Z, X, Y] without so many slices at both ends."""
    return slices[:, :, margin : slices.shape[2] - margin]
