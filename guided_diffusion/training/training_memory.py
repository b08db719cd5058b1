"""Estimate of the GPU memory that training takes, made without a GPU and without allocating the memory.

One forward and backward pass runs on PyTorch's fake tensors, which have shapes but no data, while the size of every
storage is counted. The estimate leaves out the workspace of convolution kernels, fragmentation, and the GPU's own
context.
"""

import weakref
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from guided_diffusion.config import DiffusionConfig, ModelConfig
from guided_diffusion.nn import GroupNorm32
from guided_diffusion.script_util import create_model


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes. `passes` is the most that activations, gradients and intermediates take together."""

    weights: int
    optimiser: int
    averages: int
    passes: int

    @property
    def total(self) -> int:
        """At the worst moment of a step."""
        return self.weights + self.optimiser + self.averages + self.passes


class StorageCounter(TorchDispatchMode):
    """Within the block, counts the bytes of all storages that operations make: those alive, and the most so far."""

    def __init__(self) -> None:
        super().__init__()
        self.alive = 0
        self.peak = 0
        self._known: weakref.WeakSet = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        before = {id(leaf.untyped_storage()) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)}
        result = func(*args, **kwargs)
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and id(leaf.untyped_storage()) not in before:
                self._add(leaf.untyped_storage())
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        if storage in self._known:
            return
        self._known.add(storage)
        size = storage.nbytes()
        weakref.finalize(storage, self._remove, size)
        self.alive += size
        self.peak = max(self.peak, self.alive)

    def _remove(self, size: int) -> None:
        self.alive -= size


def training_memory(
    model: ModelConfig,
    diffusion: DiffusionConfig,
    crop_size: tuple[int, int, int],
    precision: torch.dtype,
    use_checkpoint: bool,
    averages: int = 1,
) -> TrainingMemory:
    """Estimated memory of training on one rank, with crops [X, Y, Z] processed one at a time.

    Weights, gradients, AdamW's two moments and the moving averages are float32; `precision` is that of autocast.
    """
    x, y, z = crop_size
    with FakeTensorMode():
        network = create_model(replace(model, use_checkpoint=use_checkpoint), diffusion)
        for module in network.modules():
            if isinstance(module, GroupNorm32):
                _normalise_like_a_gpu(module, precision)
        image = torch.empty(1, 1, z, x, y)
        with StorageCounter() as counter:
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
                output = network(image, torch.zeros(1), low_res=image)
            output.square().mean().backward()
        weights = sum(parameter.numel() * parameter.element_size() for parameter in network.parameters())
    return TrainingMemory(weights, 2 * weights, averages * weights, counter.peak)


def _normalise_like_a_gpu(norm: nn.Module, precision: torch.dtype) -> None:
    """There the normalisation takes a float32 copy of its input and returns the network's precision."""
    norm.register_forward_pre_hook(lambda _module, inputs: (inputs[0].float(),))
    norm.register_forward_hook(lambda _module, _inputs, output: output.to(precision))
