"""The networks that are measured, and their variants."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from guided_diffusion.config import (
    DEMO_DIFFUSION,
    DEMO_MODEL,
    RELEASED_DIFFUSION,
    RELEASED_MODEL,
    DiffusionConfig,
    ModelConfig,
)
from guided_diffusion.fast.compiled import compiled_norm_silu
from guided_diffusion.fast.fast_unet import FastSuperResModel
from guided_diffusion.machine.half_precision import has_bfloat16
from guided_diffusion.script_util import create_model
from guided_diffusion.unet import SuperResModel

Size = tuple[int, int, int]

CONFIGS = {
    "published layout, width 32": (replace(RELEASED_MODEL, num_channels=32), RELEASED_DIFFUSION),
    "shipped network": (DEMO_MODEL, DEMO_DIFFUSION),
}

# The precision in which this CPU runs networks that may run in bfloat16.
REDUCED = torch.bfloat16 if has_bfloat16(torch.device("cpu")) else torch.float32

EAGER, EXACT = "float32 eager", "float32 fast"
FAST = f"{str(REDUCED).removeprefix('torch.')} fast"
COMPILED = f"{FAST}, compiled"
VARIANTS: dict[str, Callable[[SuperResModel], nn.Module]] = {
    EAGER: lambda model: model,
    EXACT: lambda model: FastSuperResModel(model, torch.float32),
    FAST: lambda model: FastSuperResModel(model, REDUCED),
    COMPILED: lambda model: FastSuperResModel(model, REDUCED, compiled_norm_silu()),
}


def build(network: str) -> SuperResModel:
    """A plain network with random weights; those that start as zeros too, so that no product is by zero."""
    torch.manual_seed(0)
    model = create_model(*CONFIGS[network]).eval()
    for parameter in model.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    return model


def one_call(model: nn.Module, size: Size, device: str = "cpu") -> Callable[[], Tensor]:
    """A function that calls the network on one patch of [Z, X, Y]."""
    x, low_res = torch.randn(2, 1, 1, *size, generator=torch.Generator().manual_seed(0)).to(device)
    t = torch.tensor([500], device=device)

    def call() -> Tensor:
        with torch.no_grad():
            return model(x, t, low_res=low_res)

    return call


def gigaflop(model_config: ModelConfig, diffusion: DiffusionConfig, size: Size) -> float:
    """Floating-point operations of one call of the plain network, in 1e9; a multiplication and an addition are two."""
    with torch.device("meta"):
        model = create_model(model_config, diffusion)
        x, t = torch.empty(1, 1, *size), torch.empty(1)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(x, t, low_res=x)
    return counter.get_total_flops() / 1e9
