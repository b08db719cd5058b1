"""The presets of training: each is one name for the flags of a known network."""

from dataclasses import asdict, dataclass, field
from typing import Any

from guided_diffusion.config.header import SamplerConfig
from guided_diffusion.config.known_models import (
    DEMO_DIFFUSION,
    DEMO_MODEL,
    DEMO_PREPROCESSING,
    DEMO_SAMPLER,
    FAST_SAMPLER,
    LOCAL_MODEL,
    LOCAL_PREPROCESSING,
    RELEASED_DIFFUSION,
    RELEASED_MODEL,
    SMALL_MODEL,
    SMALL_SLICE_MODEL,
)
from guided_diffusion.config.model import ModelConfig, PreprocessingConfig


@dataclass(frozen=True)
class TrainingPreset:
    """A preset. meaning: what it trains. flags: those that it sets; all others keep their defaults, and flags given
    explicitly take precedence.

    patches, sampler: what the headers of its checkpoints recommend for inference; the sampler counts for networks that
    are called in a chain of steps.
    """

    meaning: str
    flags: dict[str, Any]
    patches: PreprocessingConfig = field(default_factory=PreprocessingConfig)
    sampler: SamplerConfig = FAST_SAMPLER


NO_PRESET = TrainingPreset("only flags that are given", {})


def _differences(config: Any) -> dict[str, Any]:
    """The fields of a configuration that are not at their defaults."""
    return {name: value for name, value in asdict(config).items() if value != getattr(type(config)(), name)}


def _voxel(grid: PreprocessingConfig) -> str:
    """A grid's voxel size as its flag."""
    return ",".join(f"{size:g}" for size in grid.voxel_mm)


def _small(method: str, model: ModelConfig) -> TrainingPreset:
    """A comparison of methods, which differ in the network but share pairs, crops, steps and optimiser."""
    flags = (
        _differences(model)
        | _differences(DEMO_DIFFUSION)
        | {
            "method": method,
            "voxel_mm": _voxel(DEMO_PREPROCESSING),
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
    meaning = f"{method} of the comparison of methods (checkpoint/small.md)"
    return TrainingPreset(meaning, flags, DEMO_PREPROCESSING, DEMO_SAMPLER)


_LOCAL = _differences(LOCAL_MODEL) | {
    "method": "local3d",
    "voxel_mm": _voxel(LOCAL_PREPROCESSING),
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
}

TRAINING_PRESETS: dict[str, TrainingPreset] = {
    "released": TrainingPreset(
        "the network and process of the published weights",
        _differences(RELEASED_MODEL) | _differences(RELEASED_DIFFUSION),
    ),
    "demo": TrainingPreset(
        "the small diffusion network of checkpoint/demo_ddpm3d.pt",
        _differences(DEMO_MODEL)
        | _differences(DEMO_DIFFUSION)
        | {
            "voxel_mm": _voxel(DEMO_PREPROCESSING),
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
        DEMO_PREPROCESSING,
        DEMO_SAMPLER,
    ),
    "local": TrainingPreset("the regression of checkpoint/local3d.pt, for any scanner", _LOCAL, LOCAL_PREPROCESSING),
    "local_draws": TrainingPreset(
        "the network of checkpoint/local3d_draws.pt, about the weights of a trained local, which stay as they are",
        _LOCAL | {"method": "local3d_draws", "lr": 1e-3, "ema_rate": "0.99", "validation_interval": 0},
        LOCAL_PREPROCESSING,
    ),
    "small_ddpm2d": _small("ddpm2d", SMALL_SLICE_MODEL),
    "small_ddpm3d": _small("ddpm3d", SMALL_MODEL),
    "small_gan3d": _small("gan3d", SMALL_MODEL),
    "small_unet3d": _small("unet3d", SMALL_MODEL),
}
