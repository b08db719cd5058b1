"""The flags of training. Those of network and process are declared in `config.model`, presets in `training_presets`."""

from dataclasses import dataclass

from guided_diffusion.config.flags import Role, flag, stall_flag, threads_flag
from guided_diffusion.config.model import DiffusionConfig, ModelConfig, PreprocessingConfig
from guided_diffusion.config.training_presets import TRAINING_PRESETS

TRAINING_PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class TrainingPresetFlag:
    """The preset: one name for many flags."""

    preset: str | None = flag(
        None,
        "set the flags of a known network, which the log lists; flags given explicitly take precedence",
        Role.NETWORK,
        choices={name: preset.meaning for name, preset in TRAINING_PRESETS.items()},
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
        may_be_empty=True,
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
        "runs/train",
        "folder for checkpoints and logs; a run already in it is continued",
        Role.FILES,
        metavar="DIR",
        shown="OPENAI_LOGDIR of the environment, else runs/train",
    )
    resume_checkpoint: str = flag(
        "",
        "model######.pt to continue from, with its ema_* and opt* beside it; other weights initialise a new run."
        " Empty: continue the run in --save_dir, or start a new one",
        Role.FILES,
        metavar="FILE",
        may_be_empty=True,
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
