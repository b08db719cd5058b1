"""The implementation of `scripts/export.py`: writes training checkpoints, or the mean of several, in float16."""

from collections.abc import Sequence
from dataclasses import MISSING, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from guided_diffusion.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from guided_diffusion.config import Header, Role, flag, flags_with
from guided_diffusion.config.flags import FIXED_BY_HEADER
from guided_diffusion.config.parser import Parser, add_flags, read_flags
from guided_diffusion.config.training_presets import TRAINING_PRESETS
from guided_diffusion.errors import InputError
from guided_diffusion.methods.registry import method_named


@dataclass(frozen=True)
class ExportFlags:
    """Flags that choose the weights, and the file to write."""

    checkpoint: tuple[str, ...] = flag(
        MISSING,
        "an ema_<rate>_######.pt or model######.pt of training; of several, each with a --checkpoint of its own, the "
        "mean of the weights is written",
        Role.FILES,
        metavar="FILE",
    )
    out: Path = flag(MISSING, "the file to write", Role.FILES, metavar="FILE")
    preset: str | None = flag(
        None, "recommend this preset's patches and sampler", Role.SAMPLING, choices=tuple(TRAINING_PRESETS)
    )


def create_parser(description: str) -> Parser:
    """All flags of an export."""
    parser = Parser(description)
    add_flags(parser, ExportFlags)
    return parser


def export(parser: Parser, arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and write the exported weights. arguments: instead of the process's own."""
    flags = read_flags(ExportFlags, vars(parser.parse_args(arguments)))
    change = export_half(flags.checkpoint, flags.out, recommended=flags.preset)
    print(f"wrote {flags.out}; weights changed by at most {change:.1e} of the largest of their tensor")


def export_half(checkpoints: Sequence[str], out: Path, recommended: str | None = None) -> float:
    """Write the mean weights of checkpoints of this program, of one network, as float16, see `_header_of_mean`.

    The mean of runs that began with the same weights is often better on unfamiliar images than each of them (Wortsman
    et al., Model soups, ICML 2022). recommended: a preset whose patches and sampler the new header recommends, instead
    of those stated when the run began. Returns the largest rounding of a weight, relative to the largest weight of its
    tensor. Raises InputError for weights without a header, of different networks, or outside the range of float16, and
    where a checkpoint would be replaced.
    """
    for path in checkpoints:
        if Path(path).exists() and out.exists() and out.samefile(path):
            raise InputError(f"--out {out}: would replace this checkpoint of training; choose another name")
    header, weights = _mean_of(checkpoints)
    halves = {name: value.to(torch.float16) for name, value in weights.items()}
    beyond = [name for name, value in halves.items() if not value.isfinite().all()]
    if beyond:
        raise InputError(f"{checkpoints[-1]}: {beyond[0]} has weights beyond the range of float16")
    save_checkpoint(out, halves, _recommending(header, recommended) if recommended else header)
    return max(
        ((halves[name].float() - value).abs().max() / value.abs().max().clamp(min=1e-30)).item()
        for name, value in weights.items()
    )


def _mean_of(checkpoints: Sequence[str]) -> tuple[Header, dict[str, Tensor]]:
    """The header of the mean, and the mean of all weights in float32."""
    loaded = [load_checkpoint(path) for path in checkpoints]
    for path, one in zip(checkpoints, loaded, strict=True):
        if one.header is None:
            raise InputError(f"{path}: has no header, so nobody could use the exported weights; give an ema_*.pt")
        _check_same_network(path, one, checkpoints[0], loaded[0])
    mean = {name: sum(one.state_dict[name].float() for one in loaded) / len(loaded) for name in loaded[0].state_dict}
    header = loaded[0].header if len(loaded) == 1 else _header_of_mean(checkpoints, loaded)
    return header, mean


def _header_of_mean(checkpoints: Sequence[str], loaded: Sequence[Checkpoint]) -> Header:
    """The last checkpoint's header, with the files of the mean by name and SHA-256.

    Of its provenance only what is true of every run stays, and nothing of how far a run was and how well it did then.
    """
    last, others = loaded[-1].header, [one.header.training for one in loaded[:-1]]
    shared = {
        name: value
        for name, value in last.training.items()
        if name not in ("step", "history")
        and not name.startswith("validation_")
        and all(name in training and training[name] == value for training in others)
    }
    files = [{"file": Path(path).name, "sha256": one.sha256} for path, one in zip(checkpoints, loaded, strict=True)]
    return replace(last, training=shared | {"mean_of": files})


def _check_same_network(path: str, one: Checkpoint, first_path: str, first: Checkpoint) -> None:
    """Raises InputError where weights are of another network than the first, or trained on another process or grid."""
    shapes, expected = ({name: value.shape for name, value in each.state_dict.items()} for each in (one, first))
    ours, theirs = _trained_with(one.header), _trained_with(first.header)
    different = next((name for name in theirs if ours[name] != theirs[name]), None)
    if different is None and shapes == expected:
        return
    why = f"{different} {ours[different]!r} instead of {theirs[different]!r}" if different else "other tensors"
    raise InputError(f"{path}: is another network than {first_path} ({why}); a mean needs weights of one network")


def _trained_with(header: Header) -> dict[str, object]:
    """The method, and every flag that a header fixes, by their names."""
    configs = (header.model, header.diffusion, header.preprocessing)
    fixed = {name: getattr(config, name) for config in configs for name in flags_with(FIXED_BY_HEADER, type(config))}
    return {"method": header.method} | fixed


def _recommending(header: Header, preset: str) -> Header:
    """The header with a preset's patches, and its sampler if the method samples at all."""
    method, recommended = method_named(header.method, "the header's method"), TRAINING_PRESETS[preset]
    grid = recommended.patches
    # A slice is whole wherever a patch ends.
    patches = {"patch_size": grid.patch_size, "overlap": 0 if method.dims == 2 else grid.overlap}
    sampler = recommended.sampler if method.sampled else header.sampler
    return replace(header, preprocessing=replace(header.preprocessing, **patches), sampler=sampler)
