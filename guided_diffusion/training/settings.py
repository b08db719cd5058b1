"""The flags of training, their presets, and the settings that follow from them."""

from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from guided_diffusion.config import (
    DEMO_DIFFUSION,
    DEMO_MODEL,
    DEMO_PREPROCESSING,
    DEMO_SAMPLER,
    FAST_SAMPLER,
    RELEASED_DIFFUSION,
    RELEASED_MODEL,
    DiffusionConfig,
    ModelConfig,
    PreprocessingConfig,
    SamplerConfig,
    field_names,
    flag,
)
from guided_diffusion.errors import InputError
from guided_diffusion.losses import WEIGHTINGS
from guided_diffusion.methods.registry import METHODS, method_named
from guided_diffusion.resample import TIMESTEP_SAMPLERS
from guided_diffusion.script_util import configs_from_flags


@dataclass(frozen=True)
class DataFlags:
    """What is trained on."""

    data_dir: str = flag("", "folder of .npz pairs, nested or not, or of a virtual trial with its manifest.csv")
    validation_dir: str = flag("", "folder of validation pairs; empty: the manifest's validation subjects, if any")
    voxel_mm: str = flag("1.65,1.65,1.65", "voxel size X,Y,Z of the pairs, kept in the checkpoint's header")
    suv_max: float = flag(16.0, "SUV are clipped to 0 and this, and divided by it, as inference does")
    crop_size: str = flag("96,96,96", "random crops X,Y,Z in voxels")


@dataclass(frozen=True)
class OptimisationFlags:
    """How the weights are found. The published flags have their published defaults."""

    method: str = flag("ddpm3d", f"what is trained: {' or '.join(METHODS)}")
    schedule_sampler: str = flag("uniform", f"which timesteps are drawn: {' or '.join(TIMESTEP_SAMPLERS)}")
    loss_weighting: str = flag(
        "uniform",
        f"how crops count: {' or '.join(WEIGHTINGS)}; balanced divides a loss by the root of the low dose's error",
    )
    batch_size: int = flag(1, "crops per step on each rank")
    microbatch: int = flag(-1, "crops that go through the network together, to save memory; -1: all of a rank's batch")
    lr: float = flag(1e-4, "learning rate of AdamW")
    weight_decay: float = flag(0.0, "weight decay of AdamW")
    lr_anneal_steps: int = flag(0, "the learning rate falls linearly to 0 at this step, which ends the run; 0: no")
    lr_warmup_steps: int = flag(0, "the learning rate rises linearly over these first steps")
    grad_clip: float = flag(0.0, "gradients longer than this are shortened to it; 0: no")
    ema_rate: str = flag("0.9999", "comma list of rates of the moving averages of the weights")
    precision: str = flag("float32", "float32 or bfloat16; the weights and their averages are float32 in any case")
    fp16_scale_growth: float = flag(1e-3, "use_fp16 on a GPU: growth per step of the loss scale's binary logarithm")
    seed: int = flag(0, "names the first weights and every random number of the run")


@dataclass(frozen=True)
class RunFlags:
    """Files, reports and limits of a run."""

    save_dir: str = flag("runs/train", "folder of checkpoints and logs; a run that it holds is continued")
    resume_checkpoint: str = flag(
        "",
        "model######.pt to continue, with its ema_* and opt* beside it; any other weights begin a new run."
        " Empty: begin anew, or continue the run in save_dir",
    )
    log_interval: int = flag(10, "steps per row of progress.csv")
    save_interval: int = flag(10000, "steps between checkpoints; the last step is always saved")
    validation_interval: int = flag(1000, "steps between validations of the first moving average; 0: none")
    validation_crops: int = flag(8, "fixed crops that validation denoises")
    max_steps: int = flag(0, "end, saving, once this many steps are done in all; 0: no limit")
    max_minutes: float = flag(0.0, "end, saving, after this long; the same command then continues; 0: no limit")
    threads: int = flag(0, "CPU threads per rank; 0: the ranks of a node share its cores")


FLAG_GROUPS = {
    "data": DataFlags,
    "optimisation": OptimisationFlags,
    "run": RunFlags,
    "network": ModelConfig,
    "diffusion": DiffusionConfig,
}


def _differences(config: Any) -> dict[str, Any]:
    """The fields of a configuration that are not at their defaults."""
    return {name: value for name, value in asdict(config).items() if value != getattr(type(config)(), name)}


TRAINING_PRESETS: dict[str, dict[str, Any]] = {
    "released": _differences(RELEASED_MODEL) | _differences(RELEASED_DIFFUSION),
    "demo": _differences(DEMO_MODEL)
    | _differences(DEMO_DIFFUSION)
    | {
        "voxel_mm": ",".join(f"{size:g}" for size in DEMO_PREPROCESSING.voxel_mm),
        # Whole planes, as in inference: the statistics of the norms depend on how much of a crop is air.
        "crop_size": "96,144,16",
        "loss_weighting": "balanced",
        "lr": 1e-3,
        "lr_warmup_steps": 100,
        "lr_anneal_steps": 1000,
        "grad_clip": 1.0,
        "ema_rate": "0.995",
        "precision": "bfloat16",
        "save_interval": 200,
        "validation_interval": 100,
    },
}
"""Flags that a preset sets; everything else keeps its default, and flags that are given go first."""

# What checkpoints of a chain of steps recommend for sampling, where it is not what all recommend.
_RECOMMENDED_SAMPLERS = {"demo": DEMO_SAMPLER}
_RECOMMENDED_PATCHES = {"demo": DEMO_PREPROCESSING}
_ONE_CALL = SamplerConfig(bfloat16=True)


@dataclass(frozen=True)
class TrainSettings:
    """Everything that a run of training is. `given` are the flags of the command line, for the record."""

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
    """Settings for the flags that were given (and only those). Raises InputError for flags that make no sense."""
    preset = given.get("preset", "")
    flags = TRAINING_PRESETS.get(preset, {}) | given
    data, optimisation, run = (
        kind(**{name: flags[name] for name in field_names(kind) if name in flags})
        for kind in (DataFlags, OptimisationFlags, RunFlags)
    )
    model, diffusion = configs_from_flags(flags)
    sampled = method_named(optimisation.method, "--method").sampled
    preprocessing = replace(
        _RECOMMENDED_PATCHES.get(preset, PreprocessingConfig()),
        voxel_mm=_three(data.voxel_mm, float, "voxel_mm"),
        suv_max=data.suv_max,
    )
    settings = TrainSettings(
        data=data,
        optimisation=optimisation,
        run=run,
        model=model,
        diffusion=diffusion,
        preprocessing=preprocessing,
        sampler=_RECOMMENDED_SAMPLERS.get(preset, FAST_SAMPLER) if sampled else _ONE_CALL,
        crop_size=_three(data.crop_size, int, "crop_size"),
        ema_rates=tuple(rate.strip() for rate in optimisation.ema_rate.split(",")),
        given=given,
    )
    _check(settings)
    return settings


def without_half_precision(settings: TrainSettings) -> TrainSettings:
    """The same with `use_fp16` replaced by bfloat16, which needs no loss scaling and runs on CPUs."""
    return replace(
        settings,
        model=replace(settings.model, use_fp16=False),
        optimisation=replace(settings.optimisation, precision="bfloat16"),
    )


def _three(text: str, kind: type, flag: str) -> tuple:
    """Three positive numbers from a comma list."""
    try:
        numbers = tuple(kind(part) for part in text.split(","))
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
        (settings.data, ("suv_max",)),
    ):
        for name in positive:
            if not getattr(group, name) > 0:
                raise InputError(f"--{name} {getattr(group, name)}: must be positive")
    for group in (settings.optimisation, settings.run):
        for item in fields(group):
            value = getattr(group, item.name)
            if item.name != "microbatch" and isinstance(value, int | float) and value < 0:
                raise InputError(f"--{item.name} {value}: must not be negative")
    if settings.optimisation.precision not in ("float32", "bfloat16"):
        raise InputError(f"--precision {settings.optimisation.precision!r} is unknown: choose float32 or bfloat16")
    if settings.optimisation.loss_weighting not in WEIGHTINGS:
        raise InputError(
            f"--loss_weighting {settings.optimisation.loss_weighting!r} is unknown: choose {' or '.join(WEIGHTINGS)}"
        )
    multiple = settings.model.in_plane_multiple
    if any(size % multiple for size in settings.crop_size[:2]):
        raise InputError(
            f"--crop_size {settings.data.crop_size}: X and Y must be multiples of {multiple} for this network"
        )
    for rate in settings.ema_rates:
        _check_rate(rate)


def _check_rate(rate: str) -> None:
    try:
        fits = 0 <= float(rate) < 1
    except ValueError:
        fits = False
    if not fits:
        raise InputError(f"--ema_rate {rate!r} is not a comma list of rates from 0 to below 1")
