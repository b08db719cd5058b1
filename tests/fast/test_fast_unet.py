"""The network for inference against the plain one: the same function, on any configuration, in any precision."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from guided_diffusion.config import DEMO_DIFFUSION, DEMO_MODEL, RELEASED_DIFFUSION, RELEASED_MODEL, ModelConfig
from guided_diffusion.errors import InputError
from guided_diffusion.fast import layers as fast_layers
from guided_diffusion.fast.compiled import compiled_norm_silu
from guided_diffusion.fast.fast_unet import FastSuperResModel
from guided_diffusion.fast.layers import LAYOUT, FastConv, FastNorm, FastUpConv, fast_conv, group_moments
from guided_diffusion.nn import GroupNorm32, nearest_up_in_plane
from guided_diffusion.script_util import create_model, sr_create_model_and_diffusion
from tests.golden_weights import CASES, GOLDEN, fill
from tests.processors import needs_bfloat16

CONFIGS = {
    "demo": DEMO_MODEL,
    "released": replace(RELEASED_MODEL, num_channels=32, num_res_blocks=1, channel_mult="1,2"),
    "attention": ModelConfig(large_size=96, num_channels=32, channel_mult="1,1", attention_resolutions="48"),
    "adding_timestep": ModelConfig(
        large_size=96, num_channels=32, channel_mult="1,2", attention_resolutions="1000", use_scale_shift_norm=False
    ),
    "narrow_inside": replace(DEMO_MODEL, channel_mult="2,1"),
}
SMALL = replace(DEMO_MODEL, channel_mult="1,2")


def inputs(batch=1, length=3, in_plane=(8, 12)):
    rng = torch.Generator().manual_seed(0)
    x, low_res = torch.randn(2, batch, 1, length, *in_plane, generator=rng)
    return x, torch.arange(batch) * 100 + 7, low_res.abs()


def maps(channels, *size):
    noise = torch.randn(1, channels, *size, generator=torch.Generator().manual_seed(1))
    return (2 * noise + 0.5).contiguous(memory_format=LAYOUT)


def call(model, x, t, low_res):
    with torch.no_grad():
        return model(x, t, low_res=low_res)


@pytest.fixture
def threads():
    """Sets the number of threads, and puts it back at the end."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", CONFIGS)
def test_float32_is_the_plain_network(name):
    """Two patches at different timesteps; the second call finds the timesteps' projections in memory."""
    diffusion = RELEASED_DIFFUSION if name == "released" else DEMO_DIFFUSION
    model = fill(create_model(CONFIGS[name], diffusion))
    arguments = inputs(batch=2)
    expected = call(model, *arguments)
    fast = FastSuperResModel(model, torch.float32)
    assert expected.std() > 0.01
    torch.testing.assert_close(call(fast, *arguments), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(call(fast, *arguments), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in CASES["unet"] if CASES["unet"][name]["flags"].get("dims", 3) == 3])
def test_published_numbers(name):
    case, numbers = CASES["unet"][name], np.load(GOLDEN / "unet_forward.npz")
    model, _ = sr_create_model_and_diffusion(**case["flags"])
    x, low_res, expected = (torch.from_numpy(numbers[f"{name}_{key}"]) for key in ("x", "low_res", "output"))
    fast = FastSuperResModel(fill(model), torch.float32)
    output = call(fast, x, torch.full((len(x),), case["timestep"]), low_res)
    torch.testing.assert_close(output, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("with_onednn", [True, False])
def test_bfloat16_is_as_close_as_the_plain_network_in_bfloat16(monkeypatch, with_onednn):
    """Without oneDNN's kernels too, as on processors for which it has none."""
    if not with_onednn:
        monkeypatch.setattr(fast_layers, "_packs", lambda *_: False)
    model = fill(create_model(SMALL, DEMO_DIFFUSION))
    arguments = inputs(length=3, in_plane=(8, 12))
    exact = call(model, *arguments)
    with torch.backends.mkldnn.flags(enabled=with_onednn):
        fast = FastSuperResModel(model, torch.bfloat16)
        error = (call(fast, *arguments) - exact).square().mean()
        plain_error = (call(model.to(torch.bfloat16), *arguments) - exact).square().mean()
    assert 0 < error < 1.5 * plain_error


@pytest.mark.parametrize("with_onednn", [True, False])
def test_without_packed_weights_the_network_is_the_same(monkeypatch, with_onednn):
    """As on other devices and processors, whose convolutions put channels last, as oneDNN's, or first."""
    model = fill(create_model(SMALL, DEMO_DIFFUSION))
    monkeypatch.setattr(fast_layers, "_packs", lambda *_: False)
    fast = FastSuperResModel(model, torch.float32)
    with torch.backends.mkldnn.flags(enabled=with_onednn):
        output = call(fast, *inputs())
    torch.testing.assert_close(output, call(model, *inputs()), rtol=1e-5, atol=1e-5)


def test_maps_keep_their_layout_where_onednn_has_no_kernel(monkeypatch):
    """In bfloat16 the plain kernel puts channels first, and the norms that follow refuse such maps."""
    monkeypatch.setattr(fast_layers, "_packs", lambda *_: False)
    conv = FastConv(torch.ones(4, 4, 3, 3, 3, dtype=torch.bfloat16), None, (1, 1, 1), (1, 1, 1))
    with torch.backends.mkldnn.flags(enabled=False):
        assert conv(maps(4, 3, 5, 6).bfloat16()).is_contiguous(memory_format=LAYOUT)


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.bfloat16, marks=needs_bfloat16)])
def test_threads_change_no_bit(dtype, threads):
    """Slices that do not divide evenly, at a size where the library's own norm does depend on the threads."""
    fast = FastSuperResModel(fill(create_model(SMALL, DEMO_DIFFUSION)), dtype)
    outputs = []
    for count in (1, 2, 3, 5):
        threads(count)
        outputs.append(call(fast, *inputs(length=7, in_plane=(32, 48))))
        assert torch.get_num_threads() == count
    for output in outputs[1:]:
        torch.testing.assert_close(output, outputs[0], rtol=0, atol=0)


def test_a_batch_changes_no_bit():
    fast = FastSuperResModel(fill(create_model(SMALL, DEMO_DIFFUSION)), torch.bfloat16)
    x, t, low_res = inputs(batch=2)
    alone = [call(fast, x[i : i + 1], t[i : i + 1], low_res[i : i + 1]) for i in range(2)]
    torch.testing.assert_close(call(fast, x, t, low_res), torch.cat(alone), rtol=0, atol=0)


@pytest.mark.parametrize("size", [(5, 40, 30), (7, 8, 6), (1, 4, 4)])
@pytest.mark.parametrize("groups", [32, 16])
def test_moments_of_groups(size, groups):
    x = maps(64, *size)
    mean, variance = group_moments(x, groups)
    grouped = x.double().reshape(groups, -1)
    spread = 64 // groups
    torch.testing.assert_close(mean.double(), grouped.mean(1).repeat_interleave(spread), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        variance.double(), grouped.var(1, correction=0).repeat_interleave(spread), rtol=1e-5, atol=0
    )


def test_a_constant_map_is_normed_to_the_bias():
    """As air is: its variance is zero."""
    norm = GroupNorm32(32)
    torch.nn.init.constant_(norm.bias, 0.7)
    x = torch.full((1, 32, 3, 32, 40), 0.25).contiguous(memory_format=LAYOUT)
    expected = F.silu(torch.full_like(x, 0.7))
    torch.testing.assert_close(FastNorm(norm)(x), expected, rtol=0, atol=1e-4)


def test_half_of_a_pair_is_normed_as_within_the_pair():
    norm = GroupNorm32(64)
    for parameter in norm.parameters():
        torch.nn.init.normal_(parameter)
    pair = maps(64, 3, 8, 6)
    scale, shift = torch.randn(2, 32)
    whole = norm(pair)[:, 32:]
    columns = (slice(None), None, None, None)
    expected = F.silu(whole * (1 + scale[columns]) + shift[columns])
    half = pair[:, 32:].contiguous(memory_format=LAYOUT)
    torch.testing.assert_close(FastNorm(norm, 1, 2)(half, scale, shift), expected, rtol=1e-5, atol=1e-5)


def test_convolution_after_upsampling():
    layer = torch.nn.Conv3d(32, 16, 3, padding=1)
    x = maps(32, 3, 5, 4)
    with torch.no_grad():
        expected = layer(nearest_up_in_plane(x))
        torch.testing.assert_close(FastUpConv(layer, torch.float32)(x), expected, rtol=1e-5, atol=1e-5)


def test_a_convolution_adds_and_overwrites_only_when_told():
    layer = torch.nn.Conv3d(32, 32, 3, padding=1)
    x, other = maps(32, 3, 6, 5), maps(32, 3, 6, 5).neg()
    with torch.no_grad():
        conv: FastConv = fast_conv(layer, torch.float32)
        expected = layer(x) + other
        before = other.clone()
        torch.testing.assert_close(conv(x, other), expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(other, before, rtol=0, atol=0)
        torch.testing.assert_close(conv(x, other, overwrite=True), expected, rtol=1e-5, atol=1e-5)


def test_networks_that_cannot_be_made_fast():
    with pytest.raises(ValueError, match="3D"):
        FastSuperResModel(create_model(replace(SMALL, dims=2), DEMO_DIFFUSION), torch.float32)


def test_compiling_needs_a_compiler(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(InputError, match="--compile True needs a C\\+\\+ compiler, but no-such-compiler"):
        compiled_norm_silu()


@pytest.mark.slow
def test_compiled_norms_change_nothing(threads):
    norm_silu = compiled_norm_silu()
    model = fill(create_model(SMALL, DEMO_DIFFUSION))
    arguments = inputs(length=5, in_plane=(32, 40))
    compiled = FastSuperResModel(model, torch.float32, norm_silu)
    threads(1)
    output = call(compiled, *arguments)
    torch.testing.assert_close(output, call(model, *arguments), rtol=1e-5, atol=2e-5)
    threads(2)
    torch.testing.assert_close(call(compiled, *arguments), output, rtol=0, atol=0)
