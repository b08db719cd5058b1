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
    """Flags that are the same for every method but for its network: equal pairs, crops, steps and optimisers."""
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
        # Nothing depends on the air of a crop, so that small ones from inside the body will do.
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
"""Flags that a preset sets; everything else keeps its default, and flags that are given go first."""
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
    """A name for many flags."""

    preset: str | None = flag(
        None,
        "flags for a known network; what is given besides goes first",
        Role.NETWORK,
        choices={
            name: " ".join(f"--{flag} {value}" for flag, value in flags.items())
            for name, flags in TRAINING_PRESETS.items()
        },
    )


@dataclass(frozen=True)
class DataFlags:
    """The pairs that are trained on."""

    data_dir: str = flag(
        "",
        "folder of .npz pairs, nested or not, or of a virtual trial with its manifest.csv",
        Role.TRAINING,
        metavar="DIR",
    )
    validation_dir: str = flag(
        "",
        "folder of validation pairs; empty: the manifest's validation subjects, if any",
        Role.TRAINING,
        metavar="DIR",
    )
    crop_size: str = flag("96,96,96", "random crops X,Y,Z in voxels", Role.TRAINING)
    hot_crop_share: float = flag(
        0.0,
        "share of the crops that lie about small hot spots of the normal dose, as lesions are; chance hardly meets one",
        Role.TRAINING,
    )
    coarse_crop_share: float = flag(
        0.0,
        "share of the crops that take every second voxel along axes that chance names: neighbours then share less noise"
        " than in any of the data",
        Role.TRAINING,
    )


@dataclass(frozen=True)
class OptimisationFlags:
    """Flags of the optimisation. The published ones have their published defaults."""

    method: str = flag("ddpm3d", "what is trained", Role.NETWORK)
    schedule_sampler: str = flag(
        "uniform",
        "which timesteps are drawn",
        Role.TRAINING,
        choices={"uniform": "all equally often", "loss-second-moment": "in proportion to the size of their losses"},
    )
    loss_weighting: str = flag(
        "uniform",
        "how crops count",
        Role.TRAINING,
        choices={"uniform": "all equally", "balanced": "over the root mean squared error of their low dose"},
    )
    batch_size: int = flag(1, "crops per step on each rank", Role.TRAINING)
    microbatch: int = flag(
        -1, "crops that go through the network together, to save memory; -1: all of a rank's batch", Role.ARITHMETIC
    )
    lr: float = flag(1e-4, "learning rate of AdamW", Role.TRAINING)
    weight_decay: float = flag(0.0, "weight decay of AdamW", Role.TRAINING)
    lr_anneal_steps: int = flag(
        0, "the learning rate falls linearly to 0 at this step, which ends the run; 0: no", Role.TRAINING
    )
    lr_warmup_steps: int = flag(0, "the learning rate rises linearly over these first steps", Role.TRAINING)
    grad_clip: float = flag(0.0, "gradients longer than this are shortened to it; 0: no", Role.TRAINING)
    ema_rate: str = flag("0.9999", "comma list of rates of the moving averages of the weights", Role.TRAINING)
    precision: str = flag(
        "float32",
        "precision of the network; the weights and their averages are float32 in any case",
        Role.ARITHMETIC,
        choices=TRAINING_PRECISIONS,
    )
    fp16_scale_growth: float = flag(
        1e-3, "use_fp16 on a GPU: growth per step of the loss scale's binary logarithm", Role.TRAINING
    )
    seed: int = flag(0, "names the first weights and every random number of the run", Role.TRAINING)


@dataclass(frozen=True)
class RunFlags:
    """Files, reports and limits of a run."""

    save_dir: str = flag(
        "runs/train", "folder of checkpoints and logs; a run that it holds is continued", Role.FILES, metavar="DIR"
    )
    resume_checkpoint: str = flag(
        "",
        "model######.pt to continue, with its ema_* and opt* beside it; any other weights begin a new run."
        " Empty: begin anew, or continue the run in save_dir",
        Role.FILES,
        metavar="FILE",
    )
    log_interval: int = flag(10, "steps per row of progress.csv", Role.FILES)
    save_interval: int = flag(10000, "steps between checkpoints; the last step is always saved", Role.FILES)
    keep_sets: int = flag(10, "sets of checkpoints to keep: older ones of the run are removed; 0: all", Role.FILES)
    validation_interval: int = flag(1000, "steps between validations of the first moving average; 0: none", Role.FILES)
    validation_crops: int = flag(8, "fixed crops that validation denoises", Role.FILES)
    max_steps: int = flag(0, "end, saving, once this many steps are done in all; 0: no limit", Role.MACHINE)
    max_minutes: float = flag(
        0.0, "end, saving, after this long; the same command then continues; 0: no limit", Role.MACHINE
    )
    threads: int = threads_flag()
    loader_threads: int = flag(
        0,
        "threads per rank that check pairs and prepare crops; 0: the rank's share of the cores where it has a GPU, else"
        " 1, since the network then keeps the cores busy",
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
"""The groups of flags of `scripts/train.py`, by their titles in its help; those of sampling are none of its own."""
