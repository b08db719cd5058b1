"""The diffusion model on slices: what its network sees, that patches decide nothing, and how it is trained."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from guided_diffusion.checkpoints import load_checkpoint, save_checkpoint
from guided_diffusion.config import DiffusionConfig, Header, ModelConfig, PreprocessingConfig, SamplerConfig
from guided_diffusion.errors import InputError
from guided_diffusion.inference import denoise_volume, load_model
from guided_diffusion.inference.loading import LoadedModel
from guided_diffusion.methods.ddpm2d import SliceModel
from guided_diffusion.methods.registry import METHODS
from guided_diffusion.pet.grid import Volume
from guided_diffusion.training.settings import training_settings
from guided_diffusion.unet import SuperResModel
from tests.golden_weights import fill
from tests.training_runs import run

METHOD = METHODS["ddpm2d"]
FLAT = ModelConfig(
    large_size=96,
    num_channels=32,
    num_res_blocks=1,
    attention_resolutions="1000",
    channel_mult="1,1",
    add_low_res=True,
    low_res_scale=4.0,
    dims=2,
)
NOISE = DiffusionConfig(learn_sigma=True)
AFFINE = np.array([[0, -3.3, 0, 0], [-3.3, 0, 0, 0], [0, 0, 3.3, 0], [0, 0, 0, 1]])


def random(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def test_without_neighbours_it_is_the_published_network_slice_by_slice():
    model, flat = fill(SliceModel(FLAT, 2)), fill(SuperResModel(FLAT, 1, 2))
    x, low_dose, steps = random(2, 1, 3, 8, 6), random(2, 1, 3, 8, 6, seed=1), torch.tensor([3, 700])
    expected = torch.stack([flat(x[:, :, z], steps, low_res=low_dose[:, :, z]) for z in range(3)], dim=2)
    torch.testing.assert_close(model(x, steps, low_res=low_dose), expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_with_neighbours_a_slice_depends_on_them_and_on_no_others():
    model = fill(SliceModel(replace(FLAT, neighbours=1), 1))
    x, shown, steps = random(1, 1, 5, 8, 6), random(1, 1, 7, 8, 6, seed=1), torch.zeros(1)
    before = model(x, steps, low_res=shown)
    for changed in range(7):
        other = shown.clone()
        other[:, :, changed] += 0.5
        moved = (model(x, steps, low_res=other) - before).abs().amax((0, 1, 3, 4)) > 1e-4
        assert moved.nonzero().flatten().tolist() == [z for z in range(5) if abs(z + 1 - changed) <= 1]


@torch.no_grad()
def test_the_correction_is_added_to_the_slice_itself():
    model = SliceModel(replace(FLAT, neighbours=2), 1).eval()  # whose last layer is zero at first
    shown = random(1, 1, 9, 8, 6)
    assert torch.equal(model(random(1, 1, 5, 8, 6, seed=1), torch.zeros(1), low_res=shown), shown[:, :, 2:-2])


GOLDEN_VOXELS, GOLDEN_SPREAD = (0.2488689, 0.4260577, 0.8477305), 0.3303077


@torch.no_grad()
def test_golden_numbers_of_a_tiny_network():
    """Written down when the method was; the layers are covered by the published golden numbers."""
    model = fill(SliceModel(replace(FLAT, neighbours=1), 1))
    output = model(random(1, 1, 3, 8, 8), torch.tensor([250]), low_res=random(1, 1, 5, 8, 8, seed=1))
    np.testing.assert_allclose(output[0, 0, :, 2, 5].numpy(), GOLDEN_VOXELS, atol=1e-5)
    assert output.std().item() == pytest.approx(GOLDEN_SPREAD, abs=1e-5)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """Of networks without and with neighbours, made ready to run."""
    models = []
    for neighbours in (0, 2):
        config = replace(FLAT, neighbours=neighbours)
        header = Header("ddpm2d", config, NOISE, PreprocessingConfig((3.3, 3.3, 3.3), overlap=0), SamplerConfig(), {})
        path = tmp_path_factory.mktemp("flat") / "model.pt"
        save_checkpoint(path, fill(SliceModel(config, 2)).state_dict(), header)
        models.append(load_model(str(path), {"timestep_respacing": "3", "precision": "float32"}))
    return models


def with_patches(model: LoadedModel, **sizes) -> LoadedModel:
    chosen = replace(model.settings, preprocessing=replace(model.settings.preprocessing, **sizes))
    return replace(model, settings=chosen)


@settings(deadline=None, max_examples=12)
@given(st.data())
def test_a_volume_does_not_depend_on_where_its_patches_end(loaded, data):
    """Every bit of a chain's result, with the noise named by slices."""
    model = loaded[data.draw(st.sampled_from([0, 1]))]
    length = data.draw(st.integers(1, 9))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    volume = Volume(rng.gamma(2.0, 1.0, (7, 6, length)).astype(np.float32), AFFINE)
    patch_size = data.draw(st.integers(1, 9))
    batch = {"batch_size": data.draw(st.integers(1, 3))}
    sampling = replace(model.sampling, **batch)
    whole, parts = (
        denoise_volume(volume, with_patches(replace(model, settings=replace(model.settings, sampling=walk)), **sizes))
        for walk, sizes in (
            (model.sampling, {"patch_size": length, "overlap": 0}),
            (sampling, {"patch_size": patch_size, "overlap": 0}),
        )
    )
    assert np.array_equal(whole.samples, parts.samples)
    assert whole.samples.std() > 0.01


def test_the_slices_of_a_crop_are_trained_together(data_dir, tmp_path):
    """AdamW's first step moves weights by the learning rate; slices without their neighbours count as voxels seen."""
    flags = {"method": "ddpm2d", "crop_size": "8,8,5", "max_steps": 1, "ema_rate": "0.9"}
    run(data_dir, tmp_path / "alone", **flags)
    run(data_dir, tmp_path / "beside", **flags, neighbours=1)
    alone, beside = (load_checkpoint(str(tmp_path / name / "model000001.pt")) for name in ("alone", "beside"))
    assert alone.header.model.dims == 2
    assert alone.header.preprocessing.overlap == 0
    assert alone.state_dict["input_blocks.0.0.weight"].shape[1] == 2
    assert beside.state_dict["input_blocks.0.0.weight"].shape[1] == 4
    assert alone.state_dict["out.2.weight"].abs().max().item() == pytest.approx(1e-3, rel=1e-3)


def test_memory_is_that_of_one_slice():
    config = replace(FLAT, num_channels=64)
    few, many = (METHOD.call_bytes(config, (length, 96, 144), torch.float32) for length in (1, 101))
    assert many - few == 100 * 96 * 144 * 4 * 4
    assert few > 3 * 64 * 96 * 144 * 4


@pytest.mark.parametrize("flags", [{"dims": 2}, {"neighbours": 1}])
def test_methods_of_volumes_refuse_flags_of_slices(flags, data_dir, tmp_path):
    with pytest.raises(InputError, match="--method ddpm3d takes volumes"):
        run(data_dir, tmp_path / "run", **flags, max_steps=1)
    with pytest.raises(InputError, match="--neighbours -1: at least 0"):
        training_settings({"data_dir": "x", "method": "ddpm2d", "neighbours": -1})
    with pytest.raises(InputError, match="Z must be more than 4 slices"):
        training_settings({"data_dir": "x", "method": "ddpm2d", "neighbours": 2, "crop_size": "8,8,4"})
