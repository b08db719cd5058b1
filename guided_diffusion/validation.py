"""How good the moving average is, on fixed crops of subjects that it is not trained on."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from guided_diffusion import samplers
from guided_diffusion.config import SamplerConfig
from guided_diffusion.image_datasets import CropSource
from guided_diffusion.methods import Process

# Names the random numbers of sampling, apart from those of the crops.
SAMPLING_STREAM = 2


@dataclass(frozen=True)
class Score:
    """PSNR in dB, peak suv_max, over all voxels of the validation crops: of the low dose and of the denoised images."""

    low_dose: float
    denoised: float


def psnr(image: Tensor, truth: Tensor) -> float:
    """PSNR in dB of normalised images, whose peak is 1, over all their voxels."""
    return -10.0 * torch.log10((image - truth).square().mean()).item()


class Validator:
    """Denoises `count` fixed crops of a source as the checkpoint's recommended sampler would.

    process: shortened to the sampler's steps.
    """

    def __init__(self, source: CropSource, count: int, process: Process, sampler: SamplerConfig):
        crops = [source.crop(0, item) for item in range(count)]
        self._low_dose = torch.from_numpy(np.stack([crop.low_dose for crop in crops]))
        self._normal_dose = torch.from_numpy(np.stack([crop.normal_dose for crop in crops]))
        self._noise = torch.from_numpy(np.stack([crop.noise for crop in crops]))
        self._seed = source.seed
        self._process = process
        self._sampler = sampler

    @torch.no_grad()
    def score(self, model: nn.Module) -> Score:
        """Denoise every crop, one after the other, with a model in evaluation mode on any device."""
        device = next(model.parameters()).device
        denoised = torch.cat([self._denoise(model, item, device) for item in range(len(self._noise))])
        return Score(
            low_dose=psnr(self._low_dose, self._normal_dose),
            denoised=psnr(denoised, self._normal_dose),
        )

    def _denoise(self, model: nn.Module, item: int, device: torch.device) -> Tensor:
        """One crop [1, 1, Z, X, Y], clipped to [0, 1]."""
        low_res = self._low_dose[item : item + 1].to(device)
        predict = samplers.Predictor(self._process, model, {"low_res": low_res}, clip_denoised=True)
        noise = self._noise[item : item + 1].to(device)
        start = samplers.STARTS[self._sampler.start_from](self._process, noise, low_res)

        def noise_at(step: int) -> Tensor:
            rng = np.random.default_rng([self._seed, SAMPLING_STREAM, step, item])
            return torch.from_numpy(rng.standard_normal(start.shape, dtype=np.float32)).to(device)

        walk = samplers.SAMPLERS[self._sampler.sampler]
        return walk(predict, start, noise_at=noise_at).clamp(0, 1).cpu()
