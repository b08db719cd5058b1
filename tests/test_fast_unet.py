"""The network for inference against the plain one: the same function, on any configuration, in any precision."""

from dataclasses import replace

import pytest
import torch

from guided_diffusion.config import (
    DEMO_DIFFUSION,
    DEMO_MODEL,
    RELEASED_DIFFUSION,
    RELEASED_MODEL,
    ModelConfig,
)
from guided_diffusion.fast_unet import FastSuperResModel
from guided_diffusion.script_util import create_model
from tests.golden_weights import fill

CONFIGS = {
    "demo": DEMO_MODEL,
    "released": replace(RELEASED_MODEL, num_channels=32, num_res_blocks=1, channel_mult="1,2"),
    "attention": ModelConfig(large_size=96, num_channels=32, channel_mult="1,1", attention_resolutions="48"),
    "adding_timestep": ModelConfig(
        large_size=96, num_channels=32, channel_mult="1,2", attention_resolutions="1000", use_scale_shift_norm=False
    ),
    "growing_decoder": replace(DEMO_MODEL, channel_mult="2,1"),
}


def inputs(batch=1, length=5, in_plane=(16, 24)):
    rng = torch.Generator().manual_seed(0)
    x, low_res = torch.randn(2, batch, 1, length, *in_plane, generator=rng)
    return x, torch.arange(batch) * 100 + 7, low_res.abs()


def call(model, x, t, low_res):
    with torch.no_grad():
        return model(x, t, low_res=low_res)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("batch", [1, 2])
def test_float32_is_the_plain_network(name, batch):
    diffusion = RELEASED_DIFFUSION if name == "released" else DEMO_DIFFUSION
    model = fill(create_model(CONFIGS[name], diffusion))
    arguments = inputs(batch)
    expected = call(model, *arguments)
    fast = FastSuperResModel(model, torch.float32).eval()
    assert expected.std() > 0.01
    torch.testing.assert_close(call(fast, *arguments), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(call(fast, *arguments), call(fast, *arguments), rtol=0, atol=0)
