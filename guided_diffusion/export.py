"""Weights of half the size, to be shipped."""

from dataclasses import replace
from pathlib import Path

import torch

from guided_diffusion.checkpoints import load_checkpoint, save_checkpoint
from guided_diffusion.config import SamplerConfig
from guided_diffusion.errors import InputError


def export_half(checkpoint: str, out: Path, sampler: SamplerConfig | None = None) -> float:
    """Write a checkpoint of ours with float16 weights and the same header, or with another recommended sampler in it.

    Returns the largest change of a weight, relative to the largest weight of its tensor. Raises InputError for weights
    without a header, or beyond float16's range.
    """
    loaded = load_checkpoint(checkpoint)
    if loaded.header is None:
        raise InputError(f"{checkpoint}: has no header, so nobody could use the exported weights; give an ema_*.pt")
    halves = {name: value.to(torch.float16) for name, value in loaded.state_dict.items()}
    beyond = [name for name, value in halves.items() if not value.isfinite().all()]
    if beyond:
        raise InputError(f"{checkpoint}: {beyond[0]} has weights beyond the range of float16")
    save_checkpoint(out, halves, replace(loaded.header, sampler=sampler or loaded.header.sampler))
    return max(
        ((halves[name].float() - value).abs().max() / value.abs().max().clamp(min=1e-30)).item()
        for name, value in loaded.state_dict.items()
    )
