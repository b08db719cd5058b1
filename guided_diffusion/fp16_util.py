"""Half-precision helpers under their published names, for scripts written for the published code.

Training in half precision is `scripts/train.py --use_fp16 True`.
"""

import torch
from torch import nn

from guided_diffusion.errors import InputError

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def convert_module_to_f16(module: nn.Module) -> None:
    """Halve the precision of a convolution's weights, in place; other modules stay. For `Module.apply`."""
    _convert(module, torch.float16)


def convert_module_to_f32(module: nn.Module) -> None:
    """Undo `convert_module_to_f16`, up to the rounding."""
    _convert(module, torch.float32)


class MixedPrecisionTrainer:
    """Stands where the published code has its optimiser's wrapper, and says what serves instead."""

    def __init__(self, **_options: object):
        raise InputError("fp16_util.MixedPrecisionTrainer is not served: train with scripts/train.py --use_fp16 True")


def _convert(module: nn.Module, precision: torch.dtype) -> None:
    if isinstance(module, _CONVOLUTIONS):
        module.to(precision)
