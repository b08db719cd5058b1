"""Network, schedules and diffusion against the numbers of the published implementation."""

import json

import numpy as np
import pytest
import torch

from guided_diffusion.config import DiffusionConfig
from guided_diffusion.gaussian_diffusion import GaussianDiffusion
from guided_diffusion.respace import space_timesteps
from guided_diffusion.script_util import sr_create_model_and_diffusion
from tests.golden_weights import CASES, GOLDEN, LAYOUTS, fill

RESPACINGS = json.loads((GOLDEN / "respacing.json").read_text())
SAMPLES = [name for name in CASES["diffusion"] if name.startswith("sample")]
LOSSES = [name for name in CASES["diffusion"] if name.startswith("loss")]


@pytest.fixture(scope="module")
def unet_numbers():
    return np.load(GOLDEN / "unet_forward.npz")


@pytest.fixture(scope="module")
def diffusion_numbers():
    return np.load(GOLDEN / "diffusion.npz")


@pytest.mark.parametrize("name", LAYOUTS)
def test_parameter_names_shapes_and_order(name):
    with torch.device("meta"):
        model, _ = sr_create_model_and_diffusion(**LAYOUTS[name]["flags"])
    ours = [(key, list(value.shape)) for key, value in model.state_dict().items()]
    assert ours == list(LAYOUTS[name]["state_dict"].items())
    assert sum(parameter.numel() for parameter in model.parameters()) == LAYOUTS[name]["parameters"]


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("steps", [100, 1000])
def test_schedules(schedule, steps):
    diffusion = GaussianDiffusion(DiffusionConfig(noise_schedule=schedule, diffusion_steps=steps))
    numbers = np.load(GOLDEN / "schedules.npz")
    prefix = f"{schedule}_{steps}_"
    quantities = [key.removeprefix(prefix) for key in numbers.files if key.startswith(prefix)]
    assert len(quantities) == 6
    for quantity in quantities:
        np.testing.assert_allclose(getattr(diffusion, quantity), numbers[prefix + quantity], rtol=1e-12, atol=0)


@pytest.mark.parametrize("case", RESPACINGS, ids=lambda case: case["respacing"])
def test_respacing_keeps_the_published_timesteps(case):
    assert space_timesteps(case["num_timesteps"], case["respacing"]) == case["timesteps"]


@pytest.mark.parametrize("name", CASES["unet"])
def test_forward_pass(name, unet_numbers):
    case = CASES["unet"][name]
    model, _ = sr_create_model_and_diffusion(**case["flags"])
    x, low_res, expected = (torch.from_numpy(unet_numbers[f"{name}_{key}"]) for key in ("x", "low_res", "output"))
    with torch.no_grad():
        output = fill(model)(x, torch.full((len(x),), case["timestep"]), low_res=low_res)
    torch.testing.assert_close(output, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", SAMPLES)
def test_sampling_loop(name, diffusion_numbers):
    case = CASES["diffusion"][name]
    model, diffusion = sr_create_model_and_diffusion(**case["flags"])
    low_res, noise, expected = (
        torch.from_numpy(diffusion_numbers[f"{name}_{key}"]) for key in ("low_res", "noise", "output")
    )
    torch.manual_seed(case["seed"])
    # Processors without AVX round normal numbers otherwise, by up to 1.4e-6.
    torch.testing.assert_close(torch.randn(noise.shape), noise, rtol=0, atol=1e-5)
    loop = getattr(diffusion, case["sampler"])
    output = loop(fill(model), noise.shape, noise=noise, model_kwargs={"low_res": low_res})
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", LOSSES)
def test_training_losses(name, diffusion_numbers):
    model, diffusion = sr_create_model_and_diffusion(**CASES["diffusion"][name]["flags"])
    numbers = {
        key.removeprefix(f"{name}_"): torch.from_numpy(diffusion_numbers[key])
        for key in diffusion_numbers.files
        if key.startswith(f"{name}_")
    }
    inputs = [numbers.pop(key) for key in ("x_start", "t", "low_res", "noise")]
    x_start, t, low_res, noise = inputs
    with torch.no_grad():
        terms = diffusion.training_losses(fill(model), x_start, t, {"low_res": low_res}, noise)
    assert terms.keys() == numbers.keys()
    for term, expected in numbers.items():
        torch.testing.assert_close(terms[term], expected, rtol=0, atol=2e-5)
