"""Settings of a training run, derived from its flags."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from guided_diffusion.config import (
    DiffusionConfig,
    ModelConfig,
    PreprocessingConfig,
    Role,
    SamplerConfig,
    flags_with,
)
from guided_diffusion.config.parser import read_flags
from guided_diffusion.config.training_flags import (
    TRAINING_PRECISIONS,
    DataFlags,
    OptimisationFlags,
    RunFlags,
)
from guided_diffusion.config.training_presets import NO_PRESET, TRAINING_PRESETS
from guided_diffusion.errors import InputError
from guided_diffusion.losses import WEIGHTINGS
from guided_diffusion.machine.half_precision import SLOW_BFLOAT16, fp16_on_cpu
from guided_diffusion.methods.registry import METHODS, method_named
from guided_diffusion.script_util import configs_from_flags

MOST_LOADER_THREADS = 1024
# Binary logarithm of what the loss scale grows by in a step; the published default is 0.001.
MOST_SCALE_GROWTH = 10.0
"""More than any machine has cores; a system that can start no more threads ends the process."""

_ONE_CALL = SamplerConfig(bfloat16=True)


@dataclass(frozen=True)
class TrainSettings:
    """All settings of a training run. `given`: the flags on the command line, for the record."""

    data: DataFlags
    optimisation: OptimisationFlags
    run: RunFlags
    model: ModelConfig
    diffusion: DiffusionConfig
    preprocessing: PreprocessingConfig
    sampler: SamplerConfig
    crop_size: tuple[int, int, int]
    ema_rates: tuple[str, ...]
    given: dict[str, Any]


def training_settings(given: dict[str, Any]) -> TrainSettings:
    """Settings from the flags that were given (only those). Raises InputError for contradictory or impossible flags."""
    preset = TRAINING_PRESETS[given["preset"]] if given.get("preset") else NO_PRESET
    flags = preset.flags | given
    data, optimisation, run = (read_flags(kind, flags) for kind in (DataFlags, OptimisationFlags, RunFlags))
    model, diffusion = configs_from_flags(flags)
    method = method_named(optimisation.method, "--method")
    preprocessing = _preprocessing(preset.patches, flags)
    if method.dims == 2:
        preprocessing = replace(preprocessing, overlap=0)  # a slice is whole wherever a patch ends
    rates = _rates(optimisation.ema_rate)
    settings = TrainSettings(
        data=data,
        optimisation=replace(optimisation, ema_rate=",".join(rates)),
        run=run,
        model=method.model_config(model),
        diffusion=diffusion,
        preprocessing=preprocessing,
        sampler=preset.sampler if method.sampled else _ONE_CALL,
        crop_size=_three(data.crop_size, int, "crop_size"),
        ema_rates=rates,
        given=given,
    )
    _check(settings)
    return settings


def settings_for_device(
    settings: TrainSettings, on_gpu: bool, has_bfloat16: bool
) -> tuple[TrainSettings, tuple[str, ...]]:
    """Settings that a device can train with, and notices of what was changed.

    On a CPU bfloat16 takes the place of `use_fp16`: it needs no loss scaling. Where the device has none, float32 takes
    the place of a bfloat16 that was not asked for by name.
    """
    notices = []
    chosen = settings.optimisation.precision
    if settings.model.use_fp16 and not on_gpu:
        chosen, notice = fp16_on_cpu(has_bfloat16)
        notices.append(notice)
        settings = replace(settings, model=replace(settings.model, use_fp16=False))
    elif chosen == "bfloat16" and not has_bfloat16:
        if "precision" in settings.given:
            notices.append(SLOW_BFLOAT16)
        else:
            chosen = "float32"
            notices.append("float32 instead of the preset's bfloat16, for which this device has no kernels")
    return replace(settings, optimisation=replace(settings.optimisation, precision=chosen)), tuple(notices)


def _preprocessing(recommended: PreprocessingConfig, flags: dict[str, Any]) -> PreprocessingConfig:
    """The grid and scale of the pairs, and the recommended patches."""
    given = {name: flags[name] for name in flags_with([Role.NETWORK], PreprocessingConfig) if name in flags}
    if "voxel_mm" in given:
        given["voxel_mm"] = _three(given["voxel_mm"], float, "voxel_mm")
    return replace(recommended, **given)


def _three(text: str | Sequence[float], kind: type, flag: str) -> tuple:
    """Three positive numbers, or from a comma list of them."""
    try:
        numbers = tuple(kind(part) for part in (text.split(",") if isinstance(text, str) else text))
    except ValueError:
        numbers = ()
    if len(numbers) != 3 or not all(number > 0 for number in numbers):
        raise InputError(f"--{flag} {text!r} is not a comma list of three positive numbers X,Y,Z")
    return numbers


def _check(settings: TrainSettings) -> None:
    if not settings.data.data_dir:
        raise InputError("--data_dir is missing: give a folder of .npz pairs or of a virtual trial")
    for group, positive in (
        (settings.optimisation, ("batch_size", "lr")),
        (settings.run, ("log_interval", "save_interval", "validation_crops")),
    ):
        for name in positive:
            if not getattr(group, name) > 0:
                raise InputError(f"--{name} {getattr(group, name)}: must be positive")
    for group in (settings.optimisation, settings.run):
        for item in fields(group):
            value = getattr(group, item.name)
            if item.name != "microbatch" and isinstance(value, int | float) and not value >= 0:  # NaN included
                raise InputError(f"--{item.name} {value}: must be 0 or more")
    if not 0 < settings.optimisation.fp16_scale_growth <= MOST_SCALE_GROWTH:
        raise InputError(
            f"--fp16_scale_growth {settings.optimisation.fp16_scale_growth}: above 0, at most {MOST_SCALE_GROWTH:g}"
        )
    if settings.optimisation.seed >= 2**63:
        raise InputError(f"--seed {settings.optimisation.seed}: from 0 to below 2^63")
    if settings.run.loader_threads > MOST_LOADER_THREADS:
        raise InputError(f"--loader_threads {settings.run.loader_threads}: at most {MOST_LOADER_THREADS}")
    for name in ("hot_crop_share", "coarse_crop_share"):
        if not 0 <= getattr(settings.data, name) <= 1:
            raise InputError(f"--{name} {getattr(settings.data, name):g}: from 0 to 1")
    if settings.optimisation.precision not in TRAINING_PRECISIONS:
        raise InputError(
            f"--precision {settings.optimisation.precision!r} is unknown: choose {' or '.join(TRAINING_PRECISIONS)}"
        )
    if settings.optimisation.loss_weighting not in WEIGHTINGS:
        raise InputError(
            f"--loss_weighting {settings.optimisation.loss_weighting!r} is unknown: choose {' or '.join(WEIGHTINGS)}"
        )
    if settings.model.class_cond:
        raise InputError("--class_cond True: pairs have no class labels; leave it out")
    method = METHODS[settings.optimisation.method]
    margin = method.margin(settings.model)
    if settings.crop_size[2] <= 2 * margin:
        raise InputError(
            f"--crop_size {settings.data.crop_size}: Z must be more than {2 * margin} slices, which are only shown"
        )
    multiple = settings.model.in_plane_multiple
    if any(size % multiple for size in settings.crop_size[:2]):
        raise InputError(
            f"--crop_size {settings.data.crop_size}: X and Y must be multiples of {multiple} for this network"
        )
    if any(size % method.crop_multiple for size in settings.crop_size):
        raise InputError(
            f"--crop_size {settings.data.crop_size}: all three must be multiples of {method.crop_multiple} for"
            f" --method {method.name}"
        )


def _rates(text: str) -> tuple[str, ...]:
    """The rates of a comma list, each written as the published code writes it into names of files: 0.90 as 0.9."""
    try:
        rates = [float(rate) for rate in text.split(",")]
    except ValueError:
        rates = []
    if not rates or not all(0 <= rate < 1 for rate in rates):
        raise InputError(
            f"--ema_rate {text!r} is not a comma list of rates from 0 to below 1, with decimal points (0.9,0.99)"
        )
    return tuple(map(str, rates))
