"""Settings of an inference run: from the preset, then the checkpoint's header, then the flags.

`paper` follows the published protocol exactly; `fast` uses what the checkpoint's header recommends. Every flag that is
given overrides its preset. A header describes its network: flags that contradict it are reported and ignored, so that a
launcher with the published flags also runs other checkpoints.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from guided_diffusion.config import (
    FAST_SAMPLER,
    DiffusionConfig,
    Header,
    ModelConfig,
    PreprocessingConfig,
    Role,
    SamplerConfig,
    field_names,
    flags_with,
)
from guided_diffusion.config.flags import FIXED_BY_HEADER
from guided_diffusion.config.inference_flags import (
    INFERENCE_PRESETS,
    PRECISIONS,
    PrecisionFlags,
    PresetFlags,
    Sampling,
)
from guided_diffusion.config.parser import read_flags, values_of
from guided_diffusion.errors import InputError
from guided_diffusion.interfaces import Method
from guided_diffusion.machine.half_precision import SLOW_BFLOAT16, fp16_on_cpu
from guided_diffusion.methods.registry import METHODS, method_named
from guided_diffusion.samplers import SAMPLERS, STARTS
from guided_diffusion.script_util import configs_from_flags

# These say how a chain of steps is walked.
_CHAIN_FLAGS = frozenset(flags_with([Role.STEPS], PresetFlags, Sampling, DiffusionConfig))
# How many images are sampled.
_REALISATION_FLAGS = frozenset(flags_with([Role.REALISATIONS], Sampling))
# These say which image a network of the noise-free one estimates.
_REFERENCE_FLAGS = frozenset(flags_with([Role.REFERENCE], Sampling))
# These say which image of a network that draws is written, of which it can draw several.
_DRAWING_FLAGS = frozenset(flags_with([Role.DRAWING], Sampling))
# What such a network has no use for besides steps: its noise is a field, and the images belong to the answer of a
# single call.
_OF_PATCHES = frozenset({"fuse", "noise", "mirrored"})
# Networks of one answer are given no noise at all.
_OF_NOISE = frozenset({"fuse", "noise", "seed"})

_MODEL_CONFIGS = (PresetFlags, Sampling, PreprocessingConfig, PrecisionFlags, ModelConfig, DiffusionConfig)

# All that decide how a checkpoint is run; the other flags of `scripts/test.py` are about files and the machine.
MODEL_FLAGS = frozenset(
    flags_with(
        [Role.STEPS, Role.REALISATIONS, Role.REFERENCE, Role.DRAWING, Role.SAMPLING, Role.ARITHMETIC],
        PresetFlags,
        Sampling,
        PreprocessingConfig,
        PrecisionFlags,
    )
) | frozenset(field_names(ModelConfig) + field_names(DiffusionConfig))


def model_flags(given: Mapping[str, Any]) -> dict[str, Any]:
    """Flags of `MODEL_FLAGS` from Python code, see `values_of`. Raises InputError for others too."""
    unknown = sorted(set(given) - MODEL_FLAGS)
    if unknown:
        raise InputError(f"load_model knows no flag {unknown[0]!r}: choose from {', '.join(sorted(MODEL_FLAGS))}")
    return values_of(given, *_MODEL_CONFIGS)


@dataclass(frozen=True)
class Settings:
    """All settings that determine the result of a run, and notes for the user on where they come from."""

    preset: str
    method: str
    model: ModelConfig
    diffusion: DiffusionConfig
    preprocessing: PreprocessingConfig
    sampling: Sampling
    precision: str
    notices: tuple[str, ...]

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the network."""
        return getattr(torch, self.precision)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for the run's manifest."""
        return asdict(self)


def inference_settings(
    flags: dict[str, Any], header: Header | None, on_gpu: bool, has_bfloat16: bool = True
) -> Settings:
    """Settings from the flags that were given (only those), for devices that calculate in bfloat16 at speed or not.

    Raises InputError for contradictory or impossible flags.
    """
    preset = flags.get("preset", "fast" if header else "paper")
    if preset not in INFERENCE_PRESETS:
        raise InputError(f"--preset {preset!r} is unknown: choose {' or '.join(INFERENCE_PRESETS)}")
    notices: list[str] = []
    method = header.method if header else "ddpm3d"
    flags = _applicable(flags, method, notices)
    model, diffusion, preprocessing = _network(flags, header, notices)
    published = preset == "paper"
    recommended = _recommended(published, method, header)
    start_from, start_step = _start(flags, recommended)
    decided = {"sampler": _sampler(flags, recommended), "start_from": start_from, "start_step": start_step}
    by_preset = {"noise": "per_patch" if published else "field"}
    if not METHODS[method].noise_free:
        by_preset["dose_fraction"] = "0"
    sampling = read_flags(Sampling, by_preset | flags | decided)
    if not 0 <= sampling.seed < 2**63:
        raise InputError(f"--seed {sampling.seed}: from 0 to below 2^63")
    dims = METHODS[method].dims
    if model.dims != dims or model.class_cond:
        raise InputError(
            f"volumes are denoised by {dims}D networks without class labels: --dims {dims} --class_cond False"
        )
    if sampling.batch_size < 1:
        raise InputError(f"--batch_size {sampling.batch_size}: at least one patch is computed at a time")
    sizes = {name: flags[name] for name in ("patch_size", "overlap") if name in flags}
    return Settings(
        preset=preset,
        method=method,
        model=model,
        diffusion=replace(diffusion, timestep_respacing=_respacing(flags, recommended, start_from, notices)),
        preprocessing=replace(preprocessing, **sizes),
        sampling=sampling,
        precision=_precision(flags, "bfloat16" if recommended.bfloat16 else "float32", on_gpu, has_bfloat16, notices),
        notices=tuple(notices),
    )


def _applicable(flags: dict[str, Any], method: str, notices: list[str]) -> dict[str, Any]:
    """The flags without those that have no effect on a method of a single call, or on one that draws no images."""
    for why, names in _meaningless(method_named(method, "the header's method")).items():
        ignored = sorted(names & set(flags))
        if ignored:
            notices.append(f"{method} {why}; ignored: {' '.join(f'--{name}' for name in ignored)}")
        flags = {name: value for name, value in flags.items() if name not in names}
    return flags


def without_effect(method: Method) -> frozenset[str]:
    """Names of the settings that have no effect on a method."""
    names = frozenset().union(*_meaningless(method).values())
    return names if method.sampled or method.noise_fields else names | _OF_NOISE


def _meaningless(method: Method) -> dict[str, frozenset[str]]:
    """Names of flags without effect on a method, by the reason."""
    if method.noise_fields:
        return {"answers in one call": _CHAIN_FLAGS | _OF_PATCHES}
    return {
        "answers in one call": frozenset() if method.sampled else _CHAIN_FLAGS | _REALISATION_FLAGS,
        "estimates no noise-free image": frozenset() if method.noise_free else _REFERENCE_FLAGS,
        "draws no images about a mean": _DRAWING_FLAGS,
    }


def _recommended(published: bool, method: str, header: Header | None) -> SamplerConfig:
    """The preset's sampler; for a method of a single call, only the precision in the header matters."""
    if published:
        return SamplerConfig()
    sampler = header.sampler if header else FAST_SAMPLER
    return sampler if METHODS[method].sampled else SamplerConfig(bfloat16=sampler.bfloat16)


def _network(
    flags: dict[str, Any], header: Header | None, notices: list[str]
) -> tuple[ModelConfig, DiffusionConfig, PreprocessingConfig]:
    """Configurations of the network, the process and the preprocessing: the header's, or else the flags'."""
    model, diffusion = configs_from_flags(flags)
    if header is None:
        return model, diffusion, PreprocessingConfig()
    known = asdict(header.model) | asdict(header.diffusion)
    fixed = flags_with(FIXED_BY_HEADER, ModelConfig, DiffusionConfig)
    contradicting = [f"--{name} {flags[name]}" for name in fixed if name in flags and flags[name] != known[name]]
    if contradicting:
        notices.append(f"the checkpoint's header describes its network; ignored: {' '.join(contradicting)}")
    return header.model, header.diffusion, header.preprocessing


def _sampler(flags: dict[str, Any], recommended: SamplerConfig) -> str:
    """--sampler if given, else the published --use_ddim if given, else the preset's."""
    by_boolean = ("ddim" if flags["use_ddim"] else "ddpm") if "use_ddim" in flags else recommended.sampler
    sampler = flags.get("sampler", by_boolean)
    if sampler not in SAMPLERS:
        source = "--sampler" if "sampler" in flags else "the header's sampler"
        raise InputError(f"{source} {sampler!r} is unknown: choose {', '.join(SAMPLERS)}")
    if flags.get("use_ddim", sampler == "ddim") != (sampler == "ddim"):
        raise InputError(f"--use_ddim {flags['use_ddim']} contradicts --sampler {sampler}: leave --use_ddim out")
    return sampler


def _start(flags: dict[str, Any], recommended: SamplerConfig) -> tuple[str, int | None]:
    """Start of sampling and its timestep: pure noise at the last (None), or the low-dose image at any."""
    start_from = flags.get("start_from", recommended.start_from)
    if start_from not in STARTS:
        source = "--start_from" if "start_from" in flags else "the header's start_from"
        raise InputError(f"{source} {start_from!r} is unknown: choose {' or '.join(STARTS)}")
    if start_from == "noise":
        if "start_step" in flags:
            raise InputError(f"--start_step {flags['start_step']} needs --start_from low_dose")
        return start_from, None
    start_step = flags.get("start_step", recommended.start_step)
    if start_step is None:
        raise InputError("--start_from low_dose needs --start_step, the timestep whose noise the low-dose image gets")
    return start_from, start_step


def _respacing(flags: dict[str, Any], recommended: SamplerConfig, start_from: str, notices: list[str]) -> str:
    """--timestep_respacing if given, else the preset's, with a note if that is meant for another start."""
    if "timestep_respacing" in flags:
        return flags["timestep_respacing"]
    respacing = recommended.timestep_respacing
    if respacing and start_from != recommended.start_from:
        notices.append(
            f"--timestep_respacing {respacing} is recommended for --start_from {recommended.start_from}: give another"
            f" for --start_from {start_from}"
        )
    return respacing


def _precision(flags: dict[str, Any], recommended: str, on_gpu: bool, has_bfloat16: bool, notices: list[str]) -> str:
    """--precision if given, else --use_fp16 if given, else the recommended one; float32 where the last two mean a
    bfloat16 that the devices do not have.
    """
    if "precision" in flags:
        chosen = flags["precision"]
        if chosen not in PRECISIONS:
            raise InputError(f"--precision {chosen!r} is unknown: choose {', '.join(PRECISIONS)}")
        if chosen == "bfloat16" and not has_bfloat16:
            notices.append(SLOW_BFLOAT16)
        return chosen
    if "use_fp16" not in flags:
        return recommended if has_bfloat16 else "float32"
    if flags["use_fp16"] and not on_gpu:
        chosen, notice = fp16_on_cpu(has_bfloat16)
        notices.append(notice)
        return chosen
    return "float16" if flags["use_fp16"] else "float32"
