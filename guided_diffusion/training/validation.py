"""Validation of the moving average on fixed crops of subjects not used for training."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from guided_diffusion import samplers
from guided_diffusion.config import SamplerConfig
from guided_diffusion.image_datasets import CropSource
from guided_diffusion.interfaces import Process, without_margin
from guided_diffusion.noise import Stream, generator
from guided_diffusion.pet.image_quality import SSIM_WINDOW, psnr, ssim
from guided_diffusion.references import Reference


@dataclass(frozen=True)
class Score:
    """Similarity of the low dose and the denoised images to the normal dose, on the validation crops.

    Means over the crops, so that all doses count alike. psnr_*: in dB, peak suv_max. example: the middle axial slice of
    the first crop: low dose, denoised and normal dose, normalised float32 [3, X, Y].
    """

    psnr_low_dose: float
    psnr_denoised: float
    ssim_low_dose: float
    ssim_denoised: float
    example: np.ndarray


def mean_psnr(truth: Tensor, images: Tensor) -> float:
    """Mean over the crops of the PSNR in dB of normalised images [N, 1, Z, X, Y], peak 1."""
    pairs = zip(truth.numpy(), images.numpy(), strict=True)
    return float(np.mean([psnr(reference, image, peak=1.0) for reference, image in pairs]))


def mean_ssim(truth: Tensor, images: Tensor) -> float:
    """Mean over the crops of the SSIM of normalised images [N, 1, Z, X, Y].

    For crops thinner than the window of 7 voxels, the window is the largest odd size that fits.
    """
    shortest = min(truth.shape[2:])
    window = min(SSIM_WINDOW, shortest - 1 + shortest % 2)
    pairs = zip(truth[:, 0].numpy(), images[:, 0].numpy(), strict=True)
    return float(np.mean([ssim(reference, image, data_range=1.0, window=window) for reference, image in pairs]))


class Validator:
    """Denoises `count` fixed crops of a source with the sampler that the checkpoint will recommend.

    process: shortened to the sampler's steps. margin: slices at both ends of a crop that are only context for the
    network. least: below this, denoised values are cut off: 0, or -1 for a network that is given negative values.
    noise_free: the network estimates the noise-free image; what is compared is what follows for the reference.
    """

    def __init__(
        self,
        source: CropSource,
        count: int,
        process: Process,
        sampler: SamplerConfig,
        *,
        margin: int = 0,
        least: float = 0.0,
        noise_free: bool = False,
    ):
        crops = [source.crop(0, item) for item in range(count)]
        described = torch.from_numpy(np.stack([crop.reference for crop in crops]))
        self._reference = Reference.of_pairs(described) if noise_free else None
        self._shown, normal_dose, noise = (
            torch.from_numpy(np.stack([getattr(crop, name) for crop in crops]))
            for name in ("low_dose", "normal_dose", "noise")
        )
        self._low_dose, self._normal_dose, self._noise = (
            without_margin(images, margin) for images in (self._shown, normal_dose, noise)
        )
        self._seed = source.seed
        self._least = least
        self._process = process
        self._sampler = sampler

    @torch.no_grad()
    def score(self, model: nn.Module) -> Score:
        """Denoise all crops one by one with a model in evaluation mode on any device."""
        device = next(model.parameters()).device
        images = torch.cat([self._denoise(model, item, device) for item in range(len(self._noise))])
        denoised = images
        if self._reference is not None:
            denoised = self._reference.expected(images, self._low_dose).clamp(self._least, 1)
        middle = self._normal_dose.shape[2] // 2
        return Score(
            psnr_low_dose=mean_psnr(self._normal_dose, self._low_dose),
            psnr_denoised=mean_psnr(self._normal_dose, denoised),
            ssim_low_dose=mean_ssim(self._normal_dose, self._low_dose),
            ssim_denoised=mean_ssim(self._normal_dose, denoised),
            example=torch.cat([self._low_dose[0], denoised[0], self._normal_dose[0]])[:, middle].numpy(),
        )

    def _denoise(self, model: nn.Module, item: int, device: torch.device) -> Tensor:
        """One crop [1, 1, Z, X, Y], clipped to the values that the network is given."""
        low_dose, shown = (images[item : item + 1].to(device) for images in (self._low_dose, self._shown))
        predict = samplers.Predictor(self._process, model, {"low_res": shown}, clip_denoised=True)
        noise = self._noise[item : item + 1].to(device)
        start = samplers.STARTS[self._sampler.start_from](self._process, noise, low_dose)

        def noise_at(step: int) -> Tensor:
            rng = generator(self._seed, Stream.VALIDATION, step, item)
            return torch.from_numpy(rng.standard_normal(start.shape, dtype=np.float32)).to(device)

        walk = samplers.SAMPLERS[self._sampler.sampler]
        return walk(predict, start, noise_at=noise_at).clamp(self._least, 1).cpu()
