"""A checkpoint made ready to run: the network in the right precision on the right device, and how to sample it."""

from dataclasses import dataclass
from typing import Any

import torch

from guided_diffusion.checkpoints import Checkpoint, load_checkpoint, load_weights
from guided_diffusion.dist_util import device, root_first
from guided_diffusion.fast_unet import FastSuperResModel
from guided_diffusion.gaussian_diffusion import GaussianDiffusion
from guided_diffusion.presets import Settings, settle
from guided_diffusion.script_util import create_model


@dataclass(frozen=True)
class LoadedModel:
    """A network in evaluation mode on this rank's device, its (shortened) process, and the settings behind both."""

    model: FastSuperResModel
    diffusion: GaussianDiffusion
    settings: Settings


def load_model(path: str, flags: dict[str, Any] | None = None) -> LoadedModel:
    """Load weights on every rank; all ranks call this together.

    flags: those of `scripts/test.py` that are given, such as {"preset": "paper"}; the network's own are needed only for
    weights without a header. Raises InputError for a file that cannot be used, on all ranks alike.
    """
    checkpoint = root_first(load_checkpoint, path)
    settings = root_first(settle, flags or {}, checkpoint.header, device().type == "cuda")
    diffusion = root_first(GaussianDiffusion, settings.diffusion)
    return LoadedModel(root_first(_fill, checkpoint, settings, path), diffusion, settings)


def _fill(checkpoint: Checkpoint, settings: Settings, path: str) -> FastSuperResModel:
    """The network with its weights, in the form that is made for inference."""
    with torch.device("meta"):
        model = create_model(settings.model, settings.diffusion)
    load_weights(model, checkpoint.state_dict, path)
    return FastSuperResModel(model.to(device()).eval(), settings.dtype).eval()
