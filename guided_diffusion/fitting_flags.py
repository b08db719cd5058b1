"""The flags of the network that weights are of, by the names and shapes of their tensors."""

import re

from guided_diffusion.config import ModelConfig
from guided_diffusion.wrapped_weights import StateDict

OPTIONAL_PARTS = ("label_emb",)
"""Parts of a network that only some flags give it, by the names of their modules."""


def advice_on_flags(state_dict: StateDict) -> str:
    """The flags of the network that weights are of, as text for a message."""
    try:
        flags = fitting_flags(state_dict)
    except (KeyError, IndexError, ZeroDivisionError):
        return "they belong to another kind of network"
    return "flags that would fit: " + " ".join(f"--{name} {value}" for name, value in flags.items())


def fitting_flags(state_dict: StateDict) -> dict[str, object]:
    """The model flags that the names and shapes of a state dict imply.

    Raises KeyError or IndexError for weights of another kind of network. Heads of attention leave no trace in the
    shapes and are not part of the result.
    """
    width = state_dict["time_embed.0.weight"].shape[1]
    widths = _encoder_widths(state_dict)
    ups = [name for name in state_dict if name.startswith("output_blocks.") and _is_upsampling(name)]
    levels = len(ups) + 1
    blocks_per_level = len(widths) // levels
    multipliers = tuple(widths[level * blocks_per_level + 1] // width for level in range(levels))
    first_block = "input_blocks.1.0"
    flags: dict[str, object] = {
        "num_channels": width,
        "num_res_blocks": blocks_per_level - 1,
        "learn_sigma": {1: False, 2: True}[state_dict["out.2.weight"].shape[0]],  # more: of images in colours
        "resblock_updown": not any(name.endswith("op.weight") for name in state_dict),
        "use_scale_shift_norm": state_dict[f"{first_block}.emb_layers.1.weight"].shape[0]
        == 2 * state_dict[f"{first_block}.in_layers.2.weight"].shape[0],
        "class_cond": "label_emb.weight" in state_dict,
        "dims": state_dict["input_blocks.0.0.weight"].ndim - 2,
    }
    large_size = next((size for size in (96, 64, 256) if ModelConfig(large_size=size).multipliers == multipliers), None)
    if large_size is None:
        large_size = 96
        flags["channel_mult"] = ",".join(str(mult) for mult in multipliers)
    return flags | {
        "large_size": large_size,
        "attention_resolutions": _attention(state_dict, blocks_per_level, large_size),
    }


def _attention(state_dict: StateDict, blocks_per_level: int, large_size: int) -> str:
    """The `attention_resolutions` under which the encoder has the attention layers that a state dict has."""
    blocks = [
        int(name.split(".")[1]) for name in state_dict if re.fullmatch(r"input_blocks\.\d+\.1\.qkv\.weight", name)
    ]
    levels = sorted({(block - 1) // blocks_per_level for block in blocks})
    return ",".join(str(large_size // 2**level) for level in levels) or "1000"


def _encoder_widths(state_dict: StateDict) -> list[int]:
    """Output channels of every block of the encoder."""
    widths = [state_dict["input_blocks.0.0.bias"].shape[0]]
    while (prefix := f"input_blocks.{len(widths)}.0.") and any(name.startswith(prefix) for name in state_dict):
        last = "op.bias" if f"{prefix}op.bias" in state_dict else "out_layers.3.bias"
        widths.append(state_dict[prefix + last].shape[0])
    return widths


def _is_upsampling(name: str) -> bool:
    """Whether a parameter is the one that marks an upsampling layer: a second convolution or block of its place."""
    block = name.split(".")[1]
    if name.endswith(".conv.bias"):
        return True
    return name.endswith(".out_layers.3.bias") and name != f"output_blocks.{block}.0.out_layers.3.bias"
