"""The implementation of `scripts/export.py`: writes a training checkpoint in float16, half the size."""

from collections.abc import Sequence
from dataclasses import MISSING, dataclass, replace
from pathlib import Path

import torch

from guided_diffusion.checkpoints import load_checkpoint, save_checkpoint
from guided_diffusion.config import Header, Role, flag
from guided_diffusion.config.parser import Parser, add_flags, read_flags
from guided_diffusion.config.training_flags import RECOMMENDED_PATCHES, RECOMMENDED_SAMPLERS
from guided_diffusion.errors import InputError
from guided_diffusion.methods.registry import method_named


@dataclass(frozen=True)
class ExportFlags:
    """Flags that choose the weights, and the file to write."""

    checkpoint: str = flag(MISSING, "an ema_<rate>_######.pt or model######.pt of training", Role.FILES, metavar="FILE")
    out: Path = flag(MISSING, "the file to write", Role.FILES, metavar="FILE")
    preset: str | None = flag(
        None, "recommend this preset's patches and sampler", Role.SAMPLING, choices=tuple(RECOMMENDED_PATCHES)
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
    """Write a checkpoint of this program with float16 weights and the same header.

    recommended: a preset whose patches and sampler the new header recommends, instead of those stated when the run
    began. Returns the largest change of a weight, relative to the largest weight of its tensor. Raises InputError for
    weights without a header, or outside the range of float16.
    """
    loaded = load_checkpoint(checkpoint)
    if loaded.header is None:
        raise InputError(f"{checkpoint}: has no header, so nobody could use the exported weights; give an ema_*.pt")
    halves = {name: value.to(torch.float16) for name, value in loaded.state_dict.items()}
    beyond = [name for name, value in halves.items() if not value.isfinite().all()]
    if beyond:
        raise InputError(f"{checkpoint}: {beyond[0]} has weights beyond the range of float16")
    save_checkpoint(out, halves, _recommending(loaded.header, recommended) if recommended else loaded.header)
    return max(
        ((halves[name].float() - value).abs().max() / value.abs().max().clamp(min=1e-30)).item()
        for name, value in loaded.state_dict.items()
    )


def _recommending(header: Header, preset: str) -> Header:
    """The header with a preset's patches, and its sampler if the method samples at all."""
    method, grid = method_named(header.method, "the header's method"), RECOMMENDED_PATCHES[preset]
    # A slice is whole wherever a patch ends.
    patches = {"patch_size": grid.patch_size, "overlap": 0 if method.dims == 2 else grid.overlap}
    sampler = RECOMMENDED_SAMPLERS.get(preset, header.sampler) if method.sampled else header.sampler
    return replace(header, preprocessing=replace(header.preprocessing, **patches), sampler=sampler)
