"""Models and processes made from flags, and the published helpers for command lines."""

from dataclasses import asdict
from typing import Any

from guided_diffusion.config import DiffusionConfig, ModelConfig
from guided_diffusion.config.parser import add_dict_to_argparser, args_to_dict, read_flags, str2bool
from guided_diffusion.gaussian_diffusion import GaussianDiffusion
from guided_diffusion.unet import SuperResModel

__all__ = [
    "add_dict_to_argparser",
    "args_to_dict",
    "configs_from_flags",
    "create_model",
    "sr_create_model_and_diffusion",
    "sr_model_and_diffusion_defaults",
    "str2bool",
]


def sr_model_and_diffusion_defaults() -> dict[str, Any]:
    """Every flag of the conditional model and its diffusion with the published default."""
    return asdict(ModelConfig()) | asdict(DiffusionConfig())


def configs_from_flags(flags: dict[str, Any]) -> tuple[ModelConfig, DiffusionConfig]:
    """Configurations from flags; those missing keep their defaults."""
    return read_flags(ModelConfig, flags), read_flags(DiffusionConfig, flags)


def create_model(model: ModelConfig, diffusion: DiffusionConfig) -> SuperResModel:
    """The conditional network: one output channel, or two where it also predicts the variance."""
    return SuperResModel(model, in_channels=1, out_channels=2 if diffusion.learn_sigma else 1)


def sr_create_model_and_diffusion(**flags: Any) -> tuple[SuperResModel, GaussianDiffusion]:
    """The conditional network and its diffusion process from published flags. Raises TypeError for an unknown flag."""
    unknown = sorted(set(flags) - set(sr_model_and_diffusion_defaults()))
    if unknown:
        raise TypeError(f"unknown flags: {', '.join(unknown)}")
    model_config, diffusion_config = configs_from_flags(flags)
    return create_model(model_config, diffusion_config), GaussianDiffusion(diffusion_config)
