"""Checks that a checkpoint's header is plausible, made before anything is built from it.

Without them a network of a million blocks would be built for minutes before its weights are found not to fit, and an
impossible SUV scale would make every result wrong without an error.
"""

from dataclasses import MISSING, fields
from typing import Any

from guided_diffusion.config import DiffusionConfig, ModelConfig, PreprocessingConfig, SamplerConfig
from guided_diffusion.errors import InputError
from guided_diffusion.pet.text import printable

# A header is a few nested dictionaries; one with more entries, deeper ones or longer texts is none of ours.
_LARGEST, _DEEPEST, _LONGEST_TEXT = 10_000, 8, 10_000
_LONGEST_SETTING = 100

_PARTS = {
    "model": ModelConfig,
    "diffusion": DiffusionConfig,
    "preprocessing": PreprocessingConfig,
    "sampler": SamplerConfig,
}
_FROM_TO = {
    "large_size": (1, 4096),
    "small_size": (1, 4096),
    "num_channels": (32, 2048),
    "num_res_blocks": (1, 16),
    "num_heads": (1, 512),
    "num_heads_upsample": (-1, 512),
    "num_head_channels": (-1, 2048),
    "low_res_scale": (1e-3, 1e3),
    "neighbours": (0, 64),
    "diffusion_steps": (1, 100_000),
    "voxel_mm": (0.1, 50.0),
    "suv_max": (0.1, 1000.0),
    "patch_size": (1, 4096),
    "overlap": (0, 2048),
    "start_step": (0, 100_000),
}
_LEVELS, _WIDEST_LEVEL = 8, 64


def check_header(header: object, path: str) -> None:
    """Raises InputError unless a header consists of a few plain values of the right types and plausible sizes.

    Missing and unknown entries are left to `Header.from_dict`.
    """
    _check_plain(header, path)
    if not isinstance(header, dict):
        raise InputError(f"{path}: the checkpoint's header cannot be read (it is no dictionary)")
    for part, config in _PARTS.items():
        entries = header.get(part)
        if entries is not None and not isinstance(entries, dict):
            raise InputError(f"{path}: the checkpoint's header cannot be read ({part} is no dictionary)")
        defaults = {item.name: item.default for item in fields(config) if item.default is not MISSING}
        for name, value in (entries or {}).items():
            if name in defaults and not _is_plausible(name, value, defaults[name]):
                raise InputError(
                    f"{path}: the checkpoint's header cannot be read ({printable(name)} {printable(value)} is"
                    f" {_expected(name, defaults[name])}); the file is damaged, or was made by another program"
                )


def _check_plain(header: object, path: str) -> None:
    """Few plain values: dictionaries that share their entries can be walked through for ever."""
    waiting, seen = [(header, 0)], 0
    while waiting:
        value, depth = waiting.pop()
        seen += 1
        inner = [*value.keys(), *value.values()] if isinstance(value, dict) else value
        if isinstance(inner, list | tuple):
            fits = depth < _DEEPEST and seen + len(waiting) + len(inner) <= _LARGEST
            waiting += [(entry, depth + 1) for entry in inner] if fits else []
        elif isinstance(value, str):
            fits = len(value) <= _LONGEST_TEXT
        elif isinstance(value, int):
            fits = abs(value) < 2**63
        else:
            fits = value is None or isinstance(value, float)
        if not fits:
            raise InputError(f"{path}: the checkpoint's header cannot be read (it is no small set of plain values)")


def _is_plausible(name: str, value: Any, default: Any) -> bool:
    """Whether a setting has its default's type and lies within its bounds."""
    if name == "voxel_mm":
        return isinstance(value, list | tuple) and all(_is_number(size) and _within(name, size) for size in value)
    if default is None:
        return value is None or (_is_number(value, whole=True) and _within(name, value))
    if isinstance(default, bool):
        return isinstance(value, bool)
    if isinstance(default, int | float):
        return _is_number(value, whole=isinstance(default, int)) and _within(name, value)
    if not isinstance(value, str) or len(value) > _LONGEST_SETTING:
        return False
    return name != "channel_mult" or _are_levels(value)


def _is_number(value: Any, whole: bool = False) -> bool:
    return isinstance(value, int if whole else int | float) and not isinstance(value, bool)


def _within(name: str, value: float) -> bool:
    low, high = _FROM_TO.get(name, (float("-inf"), float("inf")))
    return low <= value <= high


def _are_levels(text: str) -> bool:
    """Whether a list of channel multipliers is short and of small numbers; what is no list is refused elsewhere."""
    parts = [part for part in text.split(",") if part.isdecimal()]
    return len(parts) <= _LEVELS and all(int(part) <= _WIDEST_LEVEL for part in parts)


def _expected(name: str, default: Any) -> str:
    if name in _FROM_TO:
        low, high = _FROM_TO[name]
        return f"no {'whole number' if isinstance(low, int) else 'number'} from {low:g} to {high:g}"
    return "out of bounds" if name == "channel_mult" else f"no {type(default).__name__}, or too long"
