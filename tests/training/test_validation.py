"""Scores on fixed crops: what is compared with the reference."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from guided_diffusion.commands import train
from guided_diffusion.config import DiffusionConfig, SamplerConfig
from guided_diffusion.image_datasets import Crop, find_pairs
from guided_diffusion.methods.registry import METHODS
from guided_diffusion.training.settings import training_settings
from guided_diffusion.training.validation import Validator

RNG = np.random.default_rng(0)
CLEAN = RNG.uniform(0.2, 0.4, (1, 8, 8, 8)).astype(np.float32)
SCAN = (CLEAN + RNG.normal(0, 0.05, CLEAN.shape)).astype(np.float32)


class Clean(torch.nn.Module):
    """A network that knows the noise-free image."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x, timesteps, low_res):  # noqa: ARG002
        return torch.from_numpy(CLEAN)[None]


def score(dose, noise, kept, *, noise_free):
    """PSNR against a reference that keeps a share of the scan's noise."""
    reference = (CLEAN + kept * (SCAN - CLEAN)).astype(np.float32)
    crop = Crop(SCAN, reference, np.zeros_like(SCAN), np.array([dose, noise], np.float32))
    source = SimpleNamespace(crop=lambda step, item: crop, seed=0)  # noqa: ARG005
    process = METHODS["local3d"].create_process(DiffusionConfig())
    validator = Validator(source, 2, process, SamplerConfig(), noise_free=noise_free)
    return validator.score(Clean()).psnr_denoised


@pytest.mark.parametrize(
    ("dose", "noise", "kept"), [(0.25, 1, 0.25), (0.25, 0.5, 0.125), (0.25, 0, 0), (math.nan, 1, 0)]
)
def test_an_estimate_of_the_noise_free_image_is_compared_by_what_follows_for_the_reference(dose, noise, kept):
    assert score(dose, noise, kept, noise_free=True) > 120


def test_values_below_zero_count_for_networks_that_are_given_them():
    crop = Crop(SCAN, CLEAN - 0.5, np.zeros_like(SCAN), np.array([math.nan, 1], np.float32))
    source = SimpleNamespace(crop=lambda step, item: crop, seed=0)  # noqa: ARG005
    process = METHODS["local3d"].create_process(DiffusionConfig())
    cut, whole = (Validator(source, 1, process, SamplerConfig(), least=least) for least in (0.0, -1.0))

    class Lower(Clean):
        def forward(self, *given, **named):
            return super().forward(*given, **named) - 0.5

    assert whole.score(Lower()).psnr_denoised > 120
    assert cut.score(Lower()).psnr_denoised < 20


def test_other_estimates_are_compared_as_they_are():
    expected = 10 * np.log10(1 / np.mean((0.25 * (SCAN - CLEAN)) ** 2))
    assert score(0.25, 1, 0.25, noise_free=False) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize(("method", "is_reference"), [("local3d", True), ("unet3d", False)])
def test_training_compares_what_its_method_estimates(tmp_path, monkeypatch, method, is_reference):
    asked = []
    monkeypatch.setattr(train, "Validator", lambda *_, **options: asked.append(options["noise_free"]))
    np.savez(tmp_path / "pair.npz", arr_0=np.stack([SCAN, CLEAN])[:, 0] * 10)
    sizes = {"crop_size": "8,8,8", "voxel_mm": "3,3,3", "channel_mult": "1,1", "num_channels": 32}
    settings = training_settings({"method": method, "data_dir": str(tmp_path), **sizes})
    train.make_validator(settings, find_pairs(tmp_path, "train", (3, 3, 3)))
    assert asked == [is_reference]
