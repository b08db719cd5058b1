"""Denoising a low-dose volume: patches, ranks, blending, and the files of a subject."""

from guided_diffusion.inference.denoising import Denoised, denoise_volume
from guided_diffusion.inference.loading import LoadedModel, load_model

__all__ = ["Denoised", "LoadedModel", "denoise_volume", "load_model"]
