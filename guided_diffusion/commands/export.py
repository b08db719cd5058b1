"""The implementation of `scripts/export.py`: writes a training checkpoint in float16, half the size."""

from collections.abc import Sequence
from dataclasses import MISSING, dataclass, replace
from pathlib import Path

import torch

from guided_diffusion.checkpoints import load_checkpoint, save_checkpoint
from guided_diffusion.config import (
    DEMO_PREPROCESSING,
    DEMO_SAMPLER,
    LOCAL_PREPROCESSING,
    Header,
    PreprocessingConfig,
    Role,
    flag,
)
from guided_diffusion.config.parser import Parser, add_flags, read_flags
from guided_diffusion.errors import InputError
from guided_diffusion.methods.registry import method_named

_LOCAL = ("local", "local_draws")
_PATCHES = {"demo": DEMO_PREPROCESSING} | dict.fromkeys(_LOCAL, LOCAL_PREPROCESSING)


@dataclass(frozen=True)
class ExportFlags:
    """Flags that choose the weights, and the file to write."""

    checkpoint: str = flag(MISSING, "an ema_<rate>_######.pt or model######.pt of training", Role.FILES, metavar="FILE")
    out: Path = flag(MISSING, "the file to write", Role.FILES, metavar="FILE")
    preset: str | None = flag(
        None, "recommend this preset's patches and sampler", Role.SAMPLING, choices=tuple(_PATCHES)
    )


def create_parser(description: str) -> Parser:
    """All flags of an export."""
    parser = Parser(description)
    add_flags(parser, ExportFlags)
    return parser


def export(parser: Parser, arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and export one checkpoint. arguments: instead of the process's own."""
    flags = read_flags(ExportFlags, vars(parser.parse_args(arguments)))
    change = export_half(flags.checkpoint, flags.out, recommended=flags.preset)
    print(f"wrote {flags.out}; weights changed by at most {change:.1e} of the largest of their tensor")


def export_half(checkpoint: str, out: Path, recommended: str | None = None) -> float:
    """Write a checkpoint of ours with float16 weights and the same header.

    recommended: a preset whose patches and sampler the header shall recommend, whatever was known when the run began.
    Returns the largest change of a weight, relative to the largest weight of its tensor. Raises InputError for weights
    without a header, or beyond float16's range.
    """
    loaded = load_checkpoint(checkpoint)
    if loaded.header is None:
        raise InputError(f"{checkpoint}: has no header, so nobody could use the exported weights; give an ema_*.pt")
    halves = {name: value.to(torch.float16) for name, value in loaded.state_dict.items()}
    beyond = [name for name, value in halves.items() if not value.isfinite().all()]
    if beyond:
        raise InputError(f"{checkpoint}: {beyond[0]} has weights beyond the range of float16")
    save_checkpoint(out, halves, _recommending(loaded.header, _PATCHES[recommended]) if recommended else loaded.header)
    return max(
        ((halves[name].float() - value).abs().max() / value.abs().max().clamp(min=1e-30)).item()
        for name, value in loaded.state_dict.items()
    )


def _recommending(header: Header, grid: PreprocessingConfig) -> Header:
    """The header with a preset's patches, and the demo's sampler if the method samples at all."""
    patches = {"patch_size": grid.patch_size, "overlap": grid.overlap}
    sampler = DEMO_SAMPLER if method_named(header.method, "the header's method").sampled else header.sampler
    return replace(header, preprocessing=replace(header.preprocessing, **patches), sampler=sampler)
