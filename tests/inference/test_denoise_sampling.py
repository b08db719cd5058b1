"""What `scripts/test.py` samples: by value, and which flags change it."""

import json
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from tqdm import tqdm

from guided_diffusion.gaussian_diffusion import GaussianDiffusion
from guided_diffusion.inference import blend_at_end
from guided_diffusion.noise import axial_noise
from guided_diffusion.pet.patches import plan_axial_patches
from guided_diffusion.script_util import (
    create_model,
)
from tests.denoising import (
    SMALL_HEADER,
    denoise,
    samples_in,
)
from tests.golden_weights import fill
from tests.processors import needs_bfloat16


def test_sampler_seed_and_noise_change_the_sample_and_batches_do_not(small, tmp_path):
    variants = {
        "plain": (),
        "ddim": ("--use_ddim", True),
        "named": ("--sampler", "ddim"),
        "dpmpp_2m": ("--sampler", "dpmpp_2m"),
        "dpmpp_2m_sde": ("--sampler", "dpmpp_2m_sde"),
        "seed": ("--seed", 4),
        "noise": ("--noise", "per_patch"),
        "batches": ("--batch_size", 4),
    }
    volumes = {
        name: samples_in(denoise(small / "scan.npz", small / "small.pt", tmp_path / name, *more))
        for name, more in variants.items()
    }
    np.testing.assert_allclose(volumes["batches"], volumes["plain"], atol=1e-5)
    np.testing.assert_array_equal(volumes["named"], volumes["ddim"])
    different = ("plain", "ddim", "dpmpp_2m", "dpmpp_2m_sde", "seed", "noise")
    for one, other in combinations(different, 2):
        assert np.abs(volumes[one] - volumes[other]).mean() > 1e-3, (one, other)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_walk_from_the_low_dose_image_takes_the_steps_that_are_left(small, tmp_path, monkeypatch, batch_size):
    """By value: DDIM by hand from the named noise, over the two of five timesteps that lie below 400. The progress bar
    and the manifest count them."""
    bars = []

    def shown(**options):
        bars.append(tqdm(**options | {"disable": False}))
        return bars[0]

    monkeypatch.setattr(blend_at_end, "tqdm", shown)
    start = ("--start_from", "low_dose", "--start_step", 400, "--timestep_respacing", 5, "--sampler", "ddim")
    ours = samples_in(denoise(small / "scan.npz", small / "small.pt", tmp_path, *start, "--batch_size", batch_size))
    low_dose = np.pad(np.clip(np.load(small / "scan.npz")["arr_0"][0], 0, 16) / 16, ((0, 0), (0, 1), (0, 0)))
    plan = plan_axial_patches(73, 16, 4)
    model = fill(create_model(SMALL_HEADER.model, SMALL_HEADER.diffusion)).eval()
    signal = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    patches = []
    for number, first in enumerate(plan.starts):
        low_res = torch.from_numpy(low_dose[..., plan.slab(number)]).permute(2, 0, 1)[None, None].contiguous()
        noise = axial_noise(10, 0, 1000, range(first, first + 16), low_res.shape[-2:])
        x = signal[250] ** 0.5 * low_res + (1 - signal[250]) ** 0.5 * noise
        with torch.no_grad():
            image = model(x, torch.tensor([250]), low_res=low_res).clamp(-1, 1)
            noise = (x - signal[250] ** 0.5 * image) / (1 - signal[250]) ** 0.5
            x = signal[0] ** 0.5 * image + (1 - signal[0]) ** 0.5 * noise
            image = model(x, torch.tensor([0]), low_res=low_res).clamp(-1, 1)
        patches.append(image[0, 0].permute(1, 2, 0).numpy())
    # Twice the rounding of the network for inference against the plain one, 1e-5 a call.
    np.testing.assert_allclose(ours, plan.stitch(np.stack(patches))[:, :21], atol=2e-5)
    manifest = json.loads((tmp_path / "run.json").read_text())
    assert manifest["nfe_per_patch_and_realisation"] == 2
    assert manifest["settings"]["sampling"]["start_from"] == "low_dose"
    assert manifest["settings"]["sampling"]["start_step"] == 400
    assert bars[0].n == bars[0].total == 2 * len(manifest["patches"])


def test_the_paper_preset_draws_as_published(small, tmp_path):
    """Every patch by itself, from the generator's seed 10, through the published sampling loop."""
    arguments = ("--preset", "paper", "--timestep_respacing", "3", "--precision", "float32")
    ours = samples_in(denoise(small / "scan.npz", small / "small.pt", tmp_path, *arguments))
    low_dose = np.pad(np.clip(np.load(small / "scan.npz")["arr_0"][0], 0, 16) / 16, ((0, 0), (0, 1), (0, 0)))
    plan = plan_axial_patches(73, 16, 4)
    model = fill(create_model(SMALL_HEADER.model, SMALL_HEADER.diffusion))
    diffusion = GaussianDiffusion(replace(SMALL_HEADER.diffusion, timestep_respacing="3"))
    patches = []
    for number in range(len(plan.starts)):
        low_res = torch.from_numpy(low_dose[..., plan.slab(number)]).permute(2, 0, 1)[None, None].contiguous()
        torch.manual_seed(10)
        sample = diffusion.p_sample_loop(model, low_res.shape, model_kwargs={"low_res": low_res})
        patches.append(sample[0, 0].permute(1, 2, 0).numpy())
    # Twice the rounding of the network for inference against the plain one, 1e-5 a call.
    np.testing.assert_allclose(ours, plan.stitch(np.stack(patches))[:, :21], atol=2e-5)


@needs_bfloat16
def test_half_precision_on_a_cpu_is_bfloat16_with_a_notice(small, tmp_path):
    exact = samples_in(denoise(small / "scan.npz", small / "small.pt", tmp_path / "full"))
    reduced = samples_in(denoise(small / "scan.npz", small / "small.pt", tmp_path / "half", "--use_fp16", True))
    assert "bfloat16" in (tmp_path / "half" / "log.txt").read_text()
    assert "bfloat16" not in (tmp_path / "full" / "log.txt").read_text()
    assert 0 < np.abs(reduced - exact).mean() < 0.02
