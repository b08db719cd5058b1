"""The flags of training, and its presets. Those of network and process are declared in `config.model`."""

from dataclasses import asdict, dataclass
from typing import Any

from guided_diffusion.config.flags import Role, flag, stall_flag, threads_flag
from guided_diffusion.config.known_models import (
    DEMO_DIFFUSION,
    DEMO_MODEL,
    DEMO_PREPROCESSING,
    DEMO_SAMPLER,
    LOCAL_MODEL,
    LOCAL_PREPROCESSING,
    RELEASED_DIFFUSION,
    RELEASED_MODEL,
    SMALL_MODEL,
    SMALL_SLICE_MODEL,
)
from guided_diffusion.config.model import DiffusionConfig, ModelConfig, PreprocessingConfig

TRAINING_PRECISIONS = ("float32", "bfloat16")


def _differences(config: Any) -> dict[str, Any]:
    """The fields of a configuration that are not at their defaults."""
    return {name: value for name, value in asdict(config).items() if value != getattr(type(config)(), name)}


def _small(method: str, model: ModelConfig) -> dict[str, Any]:
    """Flags of a comparison of methods, which differ in the network but share pairs, crops, steps and optimiser."""
    return (
        _differences(model)
        | _differences(DEMO_DIFFUSION)
        | {
            "method": method,
            "voxel_mm": ",".join(f"{size:g}" for size in DEMO_PREPROCESSING.voxel_mm),
            # Most of a body's planes, and slices enough for the 3D networks.
            "crop_size": "64,96,16",
            "loss_weighting": "balanced",
            "lr": 1e-3,
            "lr_warmup_steps": 30,
            "lr_anneal_steps": 300,
            "grad_clip": 1.0,
            "ema_rate": "0.98",
            "precision": "bfloat16",
            "save_interval": 60,
            "validation_interval": 60,
        }
    )


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
    "local": _differences(LOCAL_MODEL)
    | {
        "method": "local3d",
        "voxel_mm": ",".join(f"{size:g}" for size in LOCAL_PREPROCESSING.voxel_mm),
        "suv_max": LOCAL_PREPROCESSING.suv_max,
        "linear_transfer": LOCAL_PREPROCESSING.linear_transfer,
        # Nothing depends on the air of a crop, so small ones from inside the body suffice.
        "crop_size": "40,40,40",
        "batch_size": 2,
        "lr": 5e-4,
        "lr_warmup_steps": 50,
        "grad_clip": 1.0,
        "ema_rate": "0.995",
        "precision": "bfloat16",
        "save_interval": 250,
        "validation_interval": 50,
    },
    "small_ddpm2d": _small("ddpm2d", SMALL_SLICE_MODEL),
    "small_ddpm3d": _small("ddpm3d", SMALL_MODEL),
    "small_gan3d": _small("gan3d", SMALL_MODEL),
    "small_unet3d": _small("unet3d", SMALL_MODEL),
}
"""Flags that a preset sets; all others keep their defaults, and flags given explicitly take precedence."""
# From the weights of `local`, which stay as they are.
TRAINING_PRESETS["local_draws"] = TRAINING_PRESETS["local"] | {
    "method": "local3d_draws",
    "lr": 1e-3,
    "ema_rate": "0.99",
}

_LIKE_DEMO = ("demo", "small_ddpm2d", "small_ddpm3d", "small_gan3d", "small_unet3d")
RECOMMENDED_PATCHES = dict.fromkeys(_LIKE_DEMO, DEMO_PREPROCESSING) | dict.fromkeys(
    ("local", "local_draws"), LOCAL_PREPROCESSING
)
"""Per preset the patches that headers recommend for inference; other presets have those of `PreprocessingConfig`."""
RECOMMENDED_SAMPLERS = dict.fromkeys(_LIKE_DEMO, DEMO_SAMPLER)
"""Per preset the sampler that headers recommend for networks that are called in a chain of steps."""


@dataclass(frozen=True)
class TrainingPreset:
    """The preset: one name for many flags."""

    preset: str | None = flag(
        None,
        "set these flags for a known network; flags given explicitly take precedence",
        Role.NETWORK,
        choices={
            name: " ".join(f"--{flag} {value}" for flag, value in flags.items())
            for name, flags in TRAINING_PRESETS.items()
        },
    )


@dataclass(frozen=True)
class DataFlags:
    """The pairs to train on."""

    data_dir: str = flag(
        "",
        "folder of .npz pairs, searched recursively, or of a virtual trial with its manifest.csv",
        Role.TRAINING,
        metavar="DIR",
    )
    validation_dir: str = flag(
        "",
        "folder of validation pairs; empty: the manifest's validation subjects, if any",
        Role.TRAINING,
        metavar="DIR",
    )
    crop_size: str = flag("96,96,96", "size X,Y,Z of the random crops in voxels", Role.TRAINING)
    hot_crop_share: float = flag(
        0.0,
        "share of crops placed on small hot spots of the normal dose, such as lesions; random crops rarely hold one",
        Role.TRAINING,
    )
    coarse_crop_share: float = flag(
        0.0,
        "share of crops that take every second voxel along randomly chosen axes, which makes the noise of neighbouring"
        " voxels less correlated than in the data",
        Role.TRAINING,
    )


@dataclass(frozen=True)
class OptimisationFlags:
    """Flags of the optimisation. Flags of the published program keep their defaults."""

    method: str = flag("ddpm3d", "the method to train", Role.NETWORK)
    schedule_sampler: str = flag(
        "uniform",
        "how timesteps are drawn",
        Role.TRAINING,
        choices={
            "uniform": "all equally often",
            "loss-second-moment": "in proportion to the root mean square of their losses",
        },
    )
    loss_weighting: str = flag(
        "uniform",
        "weights of crops in the loss",
        Role.TRAINING,
        choices={"uniform": "equal", "balanced": "inversely to the root-mean-square error of their low dose"},
    )
    batch_size: int = flag(1, "crops per step on each rank", Role.TRAINING)
    microbatch: int = flag(
        -1, "crops per pass through the network, fewer to save memory; -1: the rank's whole batch", Role.ARITHMETIC
    )
    lr: float = flag(1e-4, "learning rate of AdamW", Role.TRAINING)
    weight_decay: float = flag(0.0, "weight decay of AdamW", Role.TRAINING)
    lr_anneal_steps: int = flag(
        0, "lower the learning rate linearly to 0 at this step, which ends the run; 0: constant", Role.TRAINING
    )
    lr_warmup_steps: int = flag(0, "raise the learning rate linearly over this many first steps", Role.TRAINING)
    grad_clip: float = flag(0.0, "clip the norm of the gradient to this; 0: no clipping", Role.TRAINING)
    ema_rate: str = flag(
        "0.9999", "comma list of decay rates of the exponential moving averages of the weights", Role.TRAINING
    )
    precision: str = flag(
        "float32",
        "precision of the network's arithmetic; weights and their averages are always float32",
        Role.ARITHMETIC,
        choices=TRAINING_PRECISIONS,
    )
    fp16_scale_growth: float = flag(
        1e-3, "with --use_fp16 on a GPU: increase of log2 of the loss scale per step", Role.TRAINING
    )
    seed: int = flag(0, "seed of the initial weights and of all random numbers of the run", Role.TRAINING)


@dataclass(frozen=True)
class RunFlags:
    """Files, logging and limits of a run."""

    save_dir: str = flag(
        "runs/train", "folder for checkpoints and logs; a run already in it is continued", Role.FILES, metavar="DIR"
    )
    resume_checkpoint: str = flag(
        "",
        "model######.pt to continue from, with its ema_* and opt* beside it; other weights initialise a new run."
        " Empty: continue the run in --save_dir, or start a new one",
        Role.FILES,
        metavar="FILE",
    )
    log_interval: int = flag(10, "steps per row of progress.csv", Role.FILES)
    save_interval: int = flag(10000, "steps between checkpoints; the last step is always saved", Role.FILES)
    keep_sets: int = flag(
        10, "number of checkpoint sets to keep; older ones of the run are deleted; 0: keep all", Role.FILES
    )
    validation_interval: int = flag(1000, "steps between validations of the first moving average; 0: none", Role.FILES)
    validation_crops: int = flag(8, "number of fixed crops that validation denoises", Role.FILES)
    max_steps: int = flag(0, "save and stop after this many steps in total; 0: no limit", Role.MACHINE)
    max_minutes: float = flag(
        0.0, "save and stop after this many minutes; the same command continues; 0: no limit", Role.MACHINE
    )
    threads: int = threads_flag()
    loader_threads: int = flag(
        0,
        "threads per rank for checking pairs and preparing crops; 0: the rank's share of the cores if it has a GPU,"
        " else 1, since the network itself then uses the cores",
        Role.MACHINE,
    )
    stall_seconds: float | None = stall_flag()


TRAINING_GROUPS = {
    "data": DataFlags,
    "grid and scale of the pairs": PreprocessingConfig,
    "optimisation": OptimisationFlags,
    "run": RunFlags,
    "network": ModelConfig,
    "diffusion": DiffusionConfig,
}
"""The flags of `scripts/train.py` by the titles of their groups in its help. Flags of sampling are not among them."""
