"""A network that an objective trains: its optimiser, loss scale, and gradients over micro-batches and ranks."""

import math
from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from guided_diffusion.dist_util import SharedError
from guided_diffusion.interfaces import Examples, Objective
from guided_diffusion.training.ranks import data_parallel
from guided_diffusion.training.settings import TrainSettings

# Weights [N] of the examples at these places of the batch.
Weigh = Callable[[slice, Examples], Tensor]


class OptimisedNetwork:
    """Everything that changes the network of an objective, which is in float32 on `device`.

    All ranks build and call it alike. All start with the weights of rank 0 and keep equal weights.
    """

    def __init__(self, objective: Objective, settings: TrainSettings, device: torch.device):
        self._objective = objective
        self._settings = settings
        self._device = device
        self.network = objective.network.train()
        # Parameters that the method has frozen stay as they are.
        self._trainable = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        options = settings.optimisation
        self.optimiser = torch.optim.AdamW(
            self._trainable, lr=options.lr, weight_decay=options.weight_decay, fused=True
        )
        # The published rule: the scale's binary logarithm grows every step and falls by one at an overflow.
        self.scaler = torch.amp.GradScaler(
            device.type,
            init_scale=2.0**20,
            growth_factor=2.0**options.fp16_scale_growth,
            backoff_factor=0.5,
            growth_interval=1,
            enabled=settings.model.use_fp16,
        )
        self._parallel = data_parallel(self.network)

    @property
    def name(self) -> str:
        """Name of the objective."""
        return self._objective.name

    @property
    def _reduced(self) -> bool:
        """Whether the network computes in half precision."""
        return self._settings.model.use_fp16 or self._settings.optimisation.precision == "bfloat16"

    def let_gradients_in(self, allowed: bool) -> None:
        """Set whether losses give gradients to this network's weights."""
        for parameter in self._trainable:
            parameter.requires_grad_(allowed)

    def rehearse(self, examples: Examples) -> None:
        """A backward pass without effect, after which gradients are summed in their final order.

        DistributedDataParallel regroups the gradients after its first backward pass. Without the rehearsal, the first
        step of a continued run would be rounded differently from the same step of an uninterrupted run.
        """
        if self._parallel is not self.network:
            self._losses(examples)["loss"].sum().backward()
            self.optimiser.zero_grad(set_to_none=True)

    def refuse_wrong_gradients(self) -> None:
        """Have every rank raise InputError where PyTorch's gradients would be wrong: see `_refuse_two_slices`."""
        if self._device.type == "cpu" and self._reduced:
            for layer in self.network.modules():
                if isinstance(layer, nn.Conv3d) and layer.kernel_size[0] > 1:
                    layer.register_forward_pre_hook(_refuse_two_slices)

    def accumulate_gradients(self, examples: Examples, weigh: Weigh) -> dict[str, Tensor]:
        """Gradients of the mean weighted loss over micro-batches and ranks. Returns this rank's loss terms [N].

        Gradients are averaged over the ranks once, during the last micro-batch. The terms stay on the device, so that
        nothing waits for it here.
        """
        count = len(examples.timesteps)
        size = self._settings.optimisation.microbatch
        size = size if size > 0 else count
        collected: dict[str, list[Tensor]] = defaultdict(list)
        for first in range(0, count, size):
            part = slice(first, first + size)
            here = examples.part(part, self._device)
            with self._without_averaging() if part.stop < count else nullcontext():
                terms = self._losses(here)
                weighted = terms["loss"] * weigh(part, here)
                self.scaler.scale(weighted.sum() / count).backward()
            for name, values in terms.items():
                collected[name].append(values.detach())
        return {name: torch.cat(values) for name, values in collected.items()}

    def gradient_norm(self) -> Tensor:
        """Norm of the gradient, on the device; clips the gradient if the settings say so."""
        self.scaler.unscale_(self.optimiser)
        longest = self._settings.optimisation.grad_clip or math.inf
        return torch.nn.utils.clip_grad_norm_(self._trainable, longest)

    def advance(self, rate: float) -> None:
        """Update the weights at a learning rate and clear the gradient."""
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.optimiser.zero_grad(set_to_none=True)

    def _losses(self, examples: Examples) -> dict[str, Tensor]:
        """The terms of the loss [N], in the precision of the settings."""
        half = torch.float16 if self._settings.model.use_fp16 else torch.bfloat16
        with torch.autocast(self._device.type, half, enabled=self._reduced):
            return self._objective.losses(self._parallel, examples)

    def _without_averaging(self) -> AbstractContextManager:
        """Within the block gradients stay on their rank."""
        return nullcontext() if self._parallel is self.network else self._parallel.no_sync()

    def state_dict(self) -> dict[str, Any]:
        """State needed to continue, besides the weights."""
        return {"optimiser": self.optimiser.state_dict(), "scaler": self.scaler.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`. Current flags take precedence over the saved settings."""
        optimiser = state["optimiser"]
        # Moments saved by the plain implementation serve the fused one too.
        ours = {"fused": True, "foreach": None, "weight_decay": self._settings.optimisation.weight_decay}
        groups = [group | ours for group in optimiser["param_groups"]]
        self.optimiser.load_state_dict(optimiser | {"param_groups": groups})
        if state["scaler"]:  # empty where the run did without it until now
            self.scaler.load_state_dict(state["scaler"])


def _refuse_two_slices(_layer: nn.Conv3d, maps: tuple[Tensor]) -> None:
    """Raises InputError for maps [N, C, Z, X, Y] of two slices.

    The gradient of a 3D convolution's weights is then partly memory that nothing was written to, in bfloat16 on CPUs
    with instructions for it (PyTorch 2.13 with its oneDNN); of one slice, three and more it is right.
    """
    if maps[0].shape[2] == 2 and torch.is_grad_enabled():
        raise SharedError(
            "--precision bfloat16: on a CPU PyTorch gives wrong gradients for maps of two slices, which the network"
            " has at this --crop_size; take more slices, or --precision float32"
        )
