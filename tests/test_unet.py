"""What the golden numbers do not cover of the network: attention, slices, padding-free axial length, precision."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from guided_diffusion.config import DEMO_DIFFUSION, DEMO_MODEL, ModelConfig
from guided_diffusion.errors import InputError
from guided_diffusion.nn import (
    average_pool_in_plane,
    conv_nd,
    conv_of_nearest_up,
    nearest_up_in_plane,
    pointwise_conv_nd,
    timestep_embedding,
)
from guided_diffusion.script_util import create_model
from guided_diffusion.unet import AttentionBlock, SuperResModel
from tests.golden_weights import fill

SMALL = ModelConfig(large_size=96, num_channels=32, num_res_blocks=1, channel_mult="1,2", attention_resolutions="1000")


def test_timestep_embedding_has_cosines_first():
    embedding = timestep_embedding(torch.tensor([0, 7]), 6).numpy()
    frequencies = 10000.0 ** (-np.arange(3) / 3)
    np.testing.assert_allclose(embedding[0], [1, 1, 1, 0, 0, 0])
    np.testing.assert_allclose(embedding[1], [*np.cos(7 * frequencies), *np.sin(7 * frequencies)], rtol=1e-5)


@pytest.mark.parametrize(
    ("heads", "words"),
    [
        ({"num_heads": 5, "num_head_channels": -1}, "64 channels into 5 heads"),
        ({"num_heads": 4, "num_head_channels": 48}, "64 channels into heads of 48"),
        ({"num_heads": 4, "num_head_channels": 128}, "64 channels into heads of 128"),
    ],
)
def test_heads_that_do_not_divide_the_channels_are_refused(heads, words):
    with pytest.raises(InputError, match=words):
        AttentionBlock(64, **heads)


def test_attention_is_softmax_over_all_voxels():
    """Against the formula written out head by head."""
    torch.manual_seed(0)
    block = AttentionBlock(64, num_heads=1, num_head_channels=32)
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    x = torch.randn(2, 64, 2, 3, 4)
    with torch.no_grad():
        output = block(x)
        flat = x.reshape(2, 64, 24)
        qkv = block.qkv(block.norm(flat))
        heads = []
        for head in range(2):
            q, k, v = qkv[:, head * 96 : (head + 1) * 96].split(32, dim=1)
            weights = torch.softmax(torch.einsum("ncs,nct->nst", q, k) / 32**0.5, dim=-1)
            heads.append(torch.einsum("nst,nct->ncs", weights, v))
        expected = flat + block.proj_out(torch.cat(heads, dim=1))
    torch.testing.assert_close(output, expected.reshape(x.shape), rtol=1e-4, atol=1e-5)


def test_attention_stands_where_the_flags_ask_for_it():
    config = ModelConfig(large_size=96, num_channels=32, channel_mult="1,1,2", attention_resolutions="48,24")
    model = create_model(config, DEMO_DIFFUSION)
    blocks = {name.split(".qkv")[0] for name in model.state_dict() if ".qkv." in name}
    encoder = {name for name in blocks if name.startswith("input")}
    assert encoder == {f"input_blocks.{number}.1" for number in (4, 5, 7, 8)}
    assert len(blocks - encoder) == 6


def test_a_2d_network_is_the_3d_one_on_a_single_slice():
    """With kernels that are zero off the central slice, a volume is treated slice by slice."""
    flat = fill(SuperResModel(ModelConfig(**(vars(SMALL) | {"dims": 2})), 1, 1))
    solid = SuperResModel(SMALL, 1, 1)
    weights = {}
    for name, value in flat.state_dict().items():
        if value.ndim == 4:
            kernel = torch.zeros(*value.shape[:2], value.shape[2], *value.shape[2:])
            kernel[:, :, value.shape[2] // 2] = value
            value = kernel
        weights[name] = value
    solid.load_state_dict(weights)
    rng = torch.Generator().manual_seed(0)
    x, low_res = torch.randn(2, 1, 1, 1, 16, 24, generator=rng)
    t = torch.tensor([300])
    with torch.no_grad():
        torch.testing.assert_close(
            solid(x, t, low_res=low_res)[:, :, 0], flat(x[:, :, 0], t, low_res=low_res[:, :, 0]), rtol=0, atol=1e-5
        )


@pytest.mark.parametrize("length", [1, 2, 5, 13])
def test_any_axial_length(length):
    model = fill(create_model(SMALL, DEMO_DIFFUSION))
    x = torch.zeros(1, 1, length, 8, 10)
    with torch.no_grad():
        output = model(x, torch.tensor([0]), low_res=x)
    assert output.shape == x.shape
    assert torch.isfinite(output).all()


def test_the_correction_is_added_to_the_low_dose_image():
    model = create_model(DEMO_MODEL, DEMO_DIFFUSION).eval()
    low_res = torch.rand(1, 1, 4, 16, 16)
    with torch.no_grad():
        output = model(torch.randn(1, 1, 4, 16, 16), torch.tensor([500]), low_res=low_res)
    torch.testing.assert_close(output, low_res, rtol=0, atol=0)


def test_pooling_and_upsampling_leave_the_axial_axis_alone():
    x = torch.arange(2 * 4 * 6, dtype=torch.float32).reshape(1, 1, 2, 4, 6)
    expected = torch.nn.functional.avg_pool3d(x, (1, 2, 2))
    torch.testing.assert_close(average_pool_in_plane(x), expected)
    torch.testing.assert_close(average_pool_in_plane(nearest_up_in_plane(x)), x)
    assert nearest_up_in_plane(x[:, :, 0]).shape == (1, 1, 8, 12)


@pytest.mark.parametrize("dims", [2, 3])
def test_pointwise_convolution_is_a_convolution(dims):
    layer = pointwise_conv_nd(dims, 5, 7)
    x = torch.randn(2, 5, *[4, 3, 6][:dims])
    convolve = torch.nn.functional.conv2d if dims == 2 else torch.nn.functional.conv3d
    torch.testing.assert_close(layer(x), convolve(x, layer.weight, layer.bias), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dims", [2, 3])
def test_convolution_of_a_doubled_map(dims):
    """Values and gradients are those of doubling first."""
    layer = conv_nd(dims, 5, 7, 3, padding=1).double()
    x = torch.randn(2, 5, *[4, 3, 6][-dims:], dtype=torch.float64, requires_grad=True)
    results = [conv_of_nearest_up(layer, x), layer(nearest_up_in_plane(x))]
    gradients = [
        torch.autograd.grad(result, (x, layer.weight, layer.bias), torch.sin(7 * results[1].detach()))
        for result in results
    ]
    torch.testing.assert_close(results[0], results[1])
    torch.testing.assert_close(gradients[0], gradients[1])


def test_autocast_rounds_and_no_more():
    """In half precision a block that doubles goes another way, which must lead to the same values."""
    model = fill(create_model(replace(SMALL, resblock_updown=True), DEMO_DIFFUSION))
    x, low_res = torch.randn(2, 1, 1, 6, 16, 24, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        exact = model(x, torch.tensor([40]), low_res=low_res)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = model(x, torch.tensor([40]), low_res=low_res)
    assert 0 < (rounded - exact).norm() / exact.norm() < 0.02


def outputs_by_threads(module, *inputs, **named):
    """What a module gives on 1, 2 and 3 threads."""
    before = torch.get_num_threads()
    outputs = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            with torch.no_grad():
                outputs.append(module(*inputs, **named))
    finally:
        torch.set_num_threads(before)
    return outputs


@pytest.mark.parametrize(("dims", "size"), [(2, (31, 45)), (3, (7, 32, 48))])
def test_threads_change_no_bit_of_pointwise_convolutions(dims, size):
    torch.manual_seed(0)
    one, *others = outputs_by_threads(pointwise_conv_nd(dims, 48, 40), torch.randn(2, 48, *size))
    for other in others:
        torch.testing.assert_close(other, one, rtol=0, atol=0)


def test_threads_change_no_more_of_the_network_than_rounding():
    """On some processors the library's 3 x 3 x 3 convolution in float32 rounds differently on other threads."""
    model = fill(create_model(SMALL, DEMO_DIFFUSION))
    x = torch.randn(1, 1, 12, 32, 48, generator=torch.Generator().manual_seed(0))
    one, *others = outputs_by_threads(model, x, torch.tensor([9]), low_res=x)
    for other in others:
        torch.testing.assert_close(other, one, rtol=0, atol=1e-5 * one.abs().max().item())


def test_bfloat16_stays_close():
    model = fill(create_model(SMALL, DEMO_DIFFUSION))
    rng = torch.Generator().manual_seed(0)
    x, low_res = torch.rand(2, 1, 1, 4, 16, 16, generator=rng)
    with torch.no_grad():
        exact = model(x, torch.tensor([100]), low_res=low_res)
        reduced = model.to(torch.bfloat16)(x, torch.tensor([100]), low_res=low_res)
    assert reduced.dtype == torch.float32
    error = (reduced - exact).abs()
    assert 0 < error.mean() < 0.02 * exact.abs().mean() + 0.01


@pytest.mark.slow
def test_released_network_loads_and_runs_a_patch(tmp_path):
    """206,964,610 synthetic weights through a checkpoint into one network call."""
    from guided_diffusion.checkpoints import load_checkpoint, load_weights
    from guided_diffusion.config import RELEASED_DIFFUSION, RELEASED_MODEL

    torch.save(fill(create_model(RELEASED_MODEL, RELEASED_DIFFUSION)).state_dict(), tmp_path / "model.pt")
    with torch.device("meta"):
        model = create_model(RELEASED_MODEL, RELEASED_DIFFUSION)
    load_weights(model, load_checkpoint(str(tmp_path / "model.pt")).state_dict, "model.pt")
    x = torch.zeros(1, 1, 32, 64, 64)
    with torch.no_grad():
        output = model.eval()(x, torch.tensor([999]), low_res=x)
    assert output.shape == (1, 2, 32, 64, 64)
    assert output.std() > 0.01
