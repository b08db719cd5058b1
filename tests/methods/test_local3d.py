"""The regression in units of the scan's noise: sub-images, equivariance, sizes, and what its loss measures."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from guided_diffusion.config import ModelConfig
from guided_diffusion.interfaces import Examples
from guided_diffusion.local_unet import LocalUNet, from_sub_images, local_scale, sub_images
from guided_diffusion.methods.local3d import local_error
from guided_diffusion.methods.registry import METHODS

CONFIG = ModelConfig(num_channels=32, num_res_blocks=1, channel_mult="1,2", low_res_scale=16.0)


def network(seed: int = 0) -> LocalUNet:
    """With random weights in the layers that begin at zero too."""
    torch.manual_seed(seed)
    model = LocalUNet(CONFIG).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model


def scan(*size: int, seed: int = 1) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy((1 + 0.3 * rng.standard_normal((1, 1, *size))).astype(np.float32)) / 16


@settings(deadline=None)
@given(st.tuples(*[st.integers(1, 6)] * 3))
def test_sub_images_are_undone(half):
    volume = torch.rand(2, 1, *(2 * n for n in half))
    parts = sub_images(volume)
    assert parts.shape == (2, 8, *half)
    assert torch.equal(from_sub_images(parts), volume)
    torch.testing.assert_close(parts.mean(1), torch.nn.functional.avg_pool3d(volume, 2)[:, 0])


def test_noise_is_measured_in_units_of_the_scan():
    rng = np.random.default_rng(0)
    white = torch.from_numpy(rng.standard_normal((1, 1, 40, 40, 40)).astype(np.float32))
    scale = local_scale(sub_images(5 + 0.5 * white))
    inside = (..., slice(4, -4), slice(4, -4), slice(4, -4))
    # White noise: 7/8 of its variance lie within positions, and 26/27 of the rest differ from the neighbours' mean.
    assert scale.noise[inside].square().mean().item() == pytest.approx(0.25 * (7 / 8 + 26 / 27 / 8), rel=0.02)
    assert scale.mean[inside].mean().item() == pytest.approx(5, rel=0.005)
    assert scale.fine_share[inside].mean().item() == pytest.approx(7 / 8, abs=0.02)


@torch.no_grad()
def test_a_scan_of_twice_the_uptake_gives_twice_the_image():
    model, low_dose = network(), 20 * scan(16, 16, 24)
    once, twice = (model(x, torch.zeros(1), low_res=x) for x in (low_dose, 2 * low_dose))
    assert (once - low_dose).abs().mean() > 0.05 * low_dose.mean()
    torch.testing.assert_close(twice, 2 * once, rtol=0.02, atol=1e-3)


@torch.no_grad()
def test_far_air_changes_nothing():
    model, body = network(), scan(16, 64, 64)
    beside_air = torch.cat([body, torch.zeros(1, 1, 16, 64, 64)], dim=3)
    near = model(body, torch.zeros(1), low_res=body)[..., :16, :]
    torch.testing.assert_close(
        model(beside_air, torch.zeros(1), low_res=beside_air)[..., :16, :], near, atol=1e-5, rtol=0
    )


@torch.no_grad()
@settings(max_examples=8, deadline=None)
@given(st.tuples(*[st.integers(1, 13)] * 3))
def test_any_size_is_taken(size):
    low_dose = scan(*size)
    answer = network()(low_dose, torch.zeros(1), low_res=low_dose)
    assert answer.shape == low_dose.shape
    assert answer.dtype == torch.float32
    assert answer.isfinite().all()


def test_the_loss_is_zero_at_the_target_and_sees_a_bias_more_than_noise_of_its_size():
    low_dose = 16 * scan(16, 16, 16)
    target = low_dose - 0.05
    bias = 0.1 * torch.ones_like(target)
    noise = 0.1 * torch.sign(torch.randn_like(target))
    assert local_error(target, target, low_dose).tolist() == [0]
    assert local_error(target + bias, target, low_dose) > 3 * local_error(target + noise, target, low_dose)


def test_training_lowers_the_loss_and_the_method_is_known():
    method = METHODS["local3d"]
    torch.manual_seed(0)
    model = method.create_model(CONFIG, None)
    (objective,) = method.objectives(model, None)
    low_dose, clean = scan(16, 16, 16), torch.full((1, 1, 16, 16, 16), 1 / 16)
    examples = Examples(low_dose, clean, None, torch.zeros(1), torch.tensor([[0.5, 0.0]]))
    optimiser = torch.optim.Adam(model.parameters(), 1e-3)
    losses = []
    for _ in range(8):
        loss = objective.losses(model, examples)["loss"].sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


@torch.no_grad()
def test_half_precision_stays_near_and_is_the_form_for_inference():
    model, low_dose = network(), scan(16, 16, 16)
    exact = model(low_dose, torch.zeros(1), low_res=low_dose)
    fast = METHODS["local3d"].make_fast(model, torch.bfloat16, None)
    assert fast.dtype == torch.bfloat16
    near = fast(low_dose, torch.zeros(1), low_res=low_dose)
    assert near.dtype == torch.float32
    assert (near - exact).abs().max() < 0.02 * exact.abs().max()


@pytest.mark.parametrize(
    ("dose", "noise", "kept"), [(0.25, 1.0, 0.25), (0.25, 0.5, 0.125), (0.25, 0.0, 0.0), (math.nan, 1.0, 0.0)]
)
def test_the_answer_that_is_learnt_is_free_of_noise_whatever_the_reference_keeps(dose, noise, kept):
    """A reference keeps the scan's noise in the share of its counts that the scan has; one of unknown dose none."""
    low_dose, noise_free = scan(16, 16, 16), torch.full((1, 1, 16, 16, 16), 1 / 16)
    reference = noise_free + kept * (low_dose - noise_free)
    network = torch.nn.Module()
    network.config = CONFIG
    network.forward = lambda x, timesteps, low_res: noise_free  # noqa: ARG005
    (objective,) = METHODS["local3d"].objectives(network, None)
    given = torch.tensor([[dose, noise]])
    right = objective.losses(network, Examples(low_dose, reference, None, torch.zeros(1), given))
    wrong = objective.losses(network, Examples(low_dose, reference + 0.01, None, torch.zeros(1), given))
    assert right["mse"].item() == pytest.approx(0, abs=1e-12)
    assert right["loss"].item() == pytest.approx(0, abs=1e-6)
    assert wrong["mse"].item() == pytest.approx(1e-4, rel=1e-3)
