"""Between flags and configurations: argument parsing, and models and processes made from flags."""

import argparse
from dataclasses import asdict, fields, replace
from typing import Any, NoReturn

from guided_diffusion.config import DiffusionConfig, ModelConfig, field_names
from guided_diffusion.errors import InputError
from guided_diffusion.gaussian_diffusion import GaussianDiffusion
from guided_diffusion.unet import SuperResModel


class Parser(argparse.ArgumentParser):
    """An argument parser whose mistakes are one line, like every other mistake of the user's."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see --help")


def str2bool(text: str | bool) -> bool:
    """True or False as the published flags write them, in any case."""
    if isinstance(text, bool):
        return text
    if text.lower() in ("true", "t", "yes", "y", "1"):
        return True
    if text.lower() in ("false", "f", "no", "n", "0"):
        return False
    raise argparse.ArgumentTypeError(f"{text!r} is neither True nor False")


def sr_model_and_diffusion_defaults() -> dict[str, Any]:
    """Every flag of the conditional model and its diffusion with the published default."""
    return asdict(ModelConfig()) | asdict(DiffusionConfig())


def configs_from_flags(flags: dict[str, Any]) -> tuple[ModelConfig, DiffusionConfig]:
    """Configurations from flags; those missing keep their defaults."""
    model = {name: flags[name] for name in field_names(ModelConfig) if name in flags}
    diffusion = {name: flags[name] for name in field_names(DiffusionConfig) if name in flags}
    return replace(ModelConfig(), **model), replace(DiffusionConfig(), **diffusion)


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


def add_dict_to_argparser(parser: argparse._ActionsContainer, defaults: dict[str, Any]) -> None:
    """A flag per entry, typed like its default: booleans as True/False, None as text."""
    for name, value in defaults.items():
        _add_flag(parser, name, str if value is None else type(value), default=value)


def add_config_flags(parser: argparse._ActionsContainer, config: type) -> None:
    """A flag per field of a configuration, explained; one that is not given stays out of the parsed arguments."""
    for item in fields(config):
        text = f"{item.metadata['help']} (default: {item.default!r})"
        _add_flag(parser, item.name, type(item.default), default=argparse.SUPPRESS, help=text)


def _add_flag(parser: argparse._ActionsContainer, name: str, kind: type, **options: Any) -> None:
    metavar = {bool: "True|False", int: "N", float: "X", str: "TEXT"}[kind]
    parser.add_argument(f"--{name}", type=str2bool if kind is bool else kind, metavar=metavar, **options)


def args_to_dict(args: argparse.Namespace, keys: list[str]) -> dict[str, Any]:
    """The named arguments as a dictionary."""
    return {key: getattr(args, key) for key in keys}
