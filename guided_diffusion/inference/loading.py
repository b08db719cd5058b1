"""Loading a checkpoint for inference: the network in its precision on its device, and the sampling settings."""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from guided_diffusion.checkpoints import Checkpoint, load_weights, parse_checkpoint
from guided_diffusion.config import PreprocessingConfig
from guided_diffusion.config.inference_flags import Sampling
from guided_diffusion.dist_util import bfloat16_of_all, device, device_of_all, read_once, root_first
from guided_diffusion.fast.compiled import compiled_norm_silu
from guided_diffusion.fast.layers import NormSilu, norm_silu
from guided_diffusion.inference.presets import Settings, inference_settings, model_flags
from guided_diffusion.interfaces import Method, Network, Process, without_margin
from guided_diffusion.machine.gpus import unused_gpu
from guided_diffusion.methods.registry import METHODS


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to denoise: a network in evaluation mode on this rank's device, its process, and the settings.

    compile_seconds: time for compilation, if requested. sha256: of the file of the weights.
    """

    model: Network
    diffusion: Process
    settings: Settings
    sha256: str = ""
    compile_seconds: float | None = None

    @property
    def sampling(self) -> Sampling:
        """Settings for sampling patches."""
        return self.settings.sampling

    @property
    def preprocessing(self) -> PreprocessingConfig:
        """The grid and the scale that the network was trained on, and the size of patches."""
        return self.settings.preprocessing

    @property
    def method(self) -> Method:
        """The method of the network."""
        return METHODS[self.settings.method]

    @property
    def margin(self) -> int:
        """Number of additional slices that the network needs at both ends of a patch."""
        return self.method.margin(self.settings.model)

    @property
    def device(self) -> torch.device:
        """The device that holds the network."""
        return next(self.model.parameters()).device

    def at_dose(self, dose: float | None) -> "LoadedModel":
        """The same model for a scan of this dose: see `Sampling.at_dose`."""
        return replace(self, settings=replace(self.settings, sampling=self.sampling.at_dose(dose)))

    def patch_bytes(self, slices: int, in_plane: tuple[int, int]) -> int:
        """Estimated memory in bytes of a network call on a patch. in_plane: its X and Y as padded for the network."""
        return self.method.call_bytes(self.model.config, (slices, *in_plane), self.model.dtype)


def load_model(path: str | Path, flags: dict[str, Any] | None = None) -> LoadedModel:
    """Load weights on every rank; all ranks call this together.

    flags: those flags of `scripts/test.py` that are given, such as {"preset": "paper"}, out of `presets.MODEL_FLAGS`;
    their values may be texts or numbers, and flags of the network are needed only for weights without a header. Raises
    InputError on all ranks for an unusable file, for other flags, and for values that the command line refuses.
    """
    path = str(path)
    flags = root_first(model_flags, flags or {})
    checkpoint = root_first(parse_checkpoint, read_once(path), path)
    place = device_of_all()
    reduced = bfloat16_of_all(place)
    settings = root_first(inference_settings, flags, checkpoint.header, place.type == "cuda", reduced)
    method = METHODS[settings.method]
    compiles = flags.get("compile", False)
    notices = [*checkpoint.notices, *settings.notices, *filter(None, [unused_gpu()])]
    if compiles and not method.compiles:
        compiles = False
        notices.append(f"--compile has no effect: {method.name} has no layers that it compiles")
    settings = replace(settings, notices=tuple(notices))
    diffusion = root_first(method.create_process, settings.diffusion, settings.sampling.start_step)
    model = root_first(_fill, checkpoint, settings, path, root_first(compiled_norm_silu) if compiles else norm_silu)
    seconds = warm_up(model, method.margin(settings.model)) if compiles else None
    return LoadedModel(model, diffusion, settings, checkpoint.sha256, seconds)


def _fill(checkpoint: Checkpoint, settings: Settings, path: str, norm: NormSilu) -> nn.Module:
    """The network with its weights, in the form that is made for inference."""
    method = METHODS[settings.method]
    with torch.device("meta"):
        model = method.create_model(settings.model, settings.diffusion)
    load_weights(model, checkpoint.state_dict, "; ".join([*checkpoint.notices, path]))
    return method.make_fast(model.to(device()).eval(), settings.dtype, norm).eval()


def warm_up(model: Network, margin: int = 0) -> float:
    """Call the network on a small patch, which compiles what is to be compiled; returns the seconds it took."""
    began = time.perf_counter()
    size = 8 * model.config.in_plane_multiple
    shown = torch.zeros(1, 1, 8 + 2 * margin, size, size, device=device())
    model(without_margin(shown, margin), torch.zeros(1, device=device()), low_res=shown)
    return time.perf_counter() - began
