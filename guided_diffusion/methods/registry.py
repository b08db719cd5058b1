"""The kinds of denoisers that can be trained and run, by the name that a checkpoint's header gives.

A method is a network and the process that it is walked through. All networks are called
`model(x, timesteps, low_res=...)`; all processes have `num_timesteps`, `original_timesteps`, `p_mean_variance` and
`training_losses`, so that training and inference need not know which one they work for.
"""

from collections.abc import Callable
from dataclasses import dataclass

from guided_diffusion.config import DiffusionConfig, ModelConfig
from guided_diffusion.errors import InputError
from guided_diffusion.fast.fast_unet import FastSuperResModel, FastUNet
from guided_diffusion.gaussian_diffusion import GaussianDiffusion
from guided_diffusion.local_unet import LocalUNet
from guided_diffusion.methods import local3d
from guided_diffusion.methods.unet3d import FastUNet3D, Regression, UNet3D
from guided_diffusion.script_util import create_model
from guided_diffusion.unet import UNetModel

Network = UNetModel | FastUNet | LocalUNet
Process = GaussianDiffusion | Regression


@dataclass(frozen=True)
class Method:
    """How a method's network and process are made.

    make_fast: turns a trained network into its form for inference, in a precision, with a function for its norms.
    sampled: whether the method is a chain of steps at all.
    """

    create_model: Callable[[ModelConfig, DiffusionConfig], UNetModel | LocalUNet]
    make_fast: Callable[..., FastUNet | LocalUNet]
    create_process: Callable[[DiffusionConfig, int | None], Process]
    sampled: bool


METHODS = {
    "ddpm3d": Method(create_model, FastSuperResModel, GaussianDiffusion, sampled=True),
    "unet3d": Method(lambda model, _diffusion: UNet3D(model), FastUNet3D, Regression, sampled=False),
    "local3d": Method(
        lambda model, _diffusion: LocalUNet(model), local3d.make_fast, local3d.LocalRegression, sampled=False
    ),
}


def method_named(name: str, where: str) -> Method:
    """A method by its name. Raises InputError, saying `where` the name stands, for an unknown one."""
    if name not in METHODS:
        raise InputError(f"{where} {name!r} is unknown: this version knows {' and '.join(METHODS)}")
    return METHODS[name]
