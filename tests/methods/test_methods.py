"""Methods other than the diffusion model, from training to a denoised volume."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from guided_diffusion.checkpoints import load_checkpoint, save_checkpoint
from guided_diffusion.commands import train as train_command
from guided_diffusion.commands.denoise import denoise_subjects
from guided_diffusion.commands.denoise_flags import create_parser
from guided_diffusion.config import DiffusionConfig, Header, ModelConfig, PreprocessingConfig, SamplerConfig
from guided_diffusion.errors import InputError
from guided_diffusion.inference import presets
from guided_diffusion.inference.loading import load_model
from guided_diffusion.losses import WEIGHTINGS
from guided_diffusion.methods.registry import METHODS
from guided_diffusion.methods.unet3d import FastUNet3D, Regression, UNet3D
from guided_diffusion.training.settings import training_settings
from guided_diffusion.unet import UNetModel
from tests.golden_weights import fill
from tests.methods.tiny import tiny_examples, tiny_network, tiny_settings

MODEL = ModelConfig(
    large_size=96,
    num_channels=32,
    num_res_blocks=1,
    attention_resolutions="1000",
    channel_mult="1,1",
    resblock_updown=True,
    add_low_res=True,
    low_res_scale=4.0,
)
HEADER = Header(
    method="unet3d",
    model=MODEL,
    diffusion=DiffusionConfig(),
    preprocessing=PreprocessingConfig(voxel_mm=(4.0, 4.0, 4.0)),
    sampler=SamplerConfig(),
    training={},
)


@pytest.fixture(scope="module")
def network():
    return fill(UNet3D(MODEL)).eval()


@pytest.fixture(scope="module")
def low_dose():
    return torch.rand(1, 1, 12, 8, 6, generator=torch.Generator().manual_seed(0))


def arguments_of(base_samples, model_path, out, *more):
    return ["--base_samples", base_samples, "--model_path", model_path, "--save_dir", out, *more]


def denoise(*arguments):
    denoise_subjects(create_parser("test"), [str(text) for text in arguments_of(*arguments)])


@torch.no_grad()
def test_unet3d_adds_the_backbones_correction_to_the_low_dose(network, low_dose):
    backbone = UNetModel(MODEL, in_channels=1, out_channels=1).eval()
    backbone.load_state_dict(network.state_dict())
    expected = low_dose + backbone(4.0 * low_dose, torch.zeros(1)) / 4.0
    answer = network(torch.randn_like(low_dose), torch.tensor([7]), low_res=low_dose)
    torch.testing.assert_close(answer, expected, rtol=0, atol=1e-6)


@torch.no_grad()
def test_regression_loss_is_the_mean_squared_error_of_each_example(network, low_dose):
    low = torch.cat([low_dose, 0.5 * low_dose])
    normal = low + 0.1
    t = torch.zeros(2, dtype=torch.int64)
    losses = Regression(DiffusionConfig()).training_losses(network, normal, t, {"low_res": low})
    errors = (network(normal, t, low_res=low) - normal).square()
    torch.testing.assert_close(losses["loss"], torch.stack([errors[0].mean(), errors[1].mean()]))


def test_a_volume_is_denoised_by_one_call(network, low_dose, tmp_path):
    """Patches are as long as the volume here, so the network's answer is the result."""
    save_checkpoint(tmp_path / "unet3d.pt", network.state_dict(), HEADER)
    suv = 16 * low_dose[0, 0].permute(1, 2, 0).numpy()
    np.savez(tmp_path / "scan.npz", arr_0=suv)
    flags = ("--patch_size", 12, "--overlap", 2, "--use_ddim", True)
    denoise(tmp_path / "scan.npz", tmp_path / "unet3d.pt", tmp_path / "out", *flags)
    (file,) = (tmp_path / "out").glob("samples_*.npz")
    with torch.no_grad():
        expected = network(low_dose, torch.zeros(1), low_res=low_dose).clamp(-1, 1)[0, 0].permute(1, 2, 0)
    np.testing.assert_allclose(np.load(file)["arr_0"], expected.numpy(), rtol=0, atol=1e-5)
    assert json.loads((tmp_path / "out" / "run.json").read_text())["settings"]["method"] == "unet3d"
    assert "unet3d answers in one call; ignored: --use_ddim" in (tmp_path / "out" / "log.txt").read_text()


def test_training_writes_weights_that_inference_recognises(tmp_path):
    x, y, z = np.meshgrid(*(np.linspace(0, 3, size) for size in (16, 16, 12)), indexing="ij")
    normal = 6 + 4 * np.sin(x) * np.cos(y) * np.sin(z)
    noise = np.random.default_rng(0).standard_normal(normal.shape)
    np.savez(tmp_path / "pair.npz", arr_0=np.stack([normal + noise, normal]).astype(np.float32))
    flags = {name: getattr(MODEL, name) for name in ("num_channels", "num_res_blocks", "channel_mult", "add_low_res")}
    settings = training_settings(
        flags
        | {
            "method": "unet3d",
            "attention_resolutions": "1000",
            "resblock_updown": True,
            "data_dir": str(tmp_path),
            "save_dir": str(tmp_path / "run"),
            "crop_size": "8,8,8",
            "ema_rate": "0.5",
            "lr": 3e-3,
            "max_steps": 30,
            "log_interval": 10,
            "threads": 1,
        }
    )
    (tmp_path / "run").mkdir()
    threads = torch.get_num_threads()
    train_command.train_with(settings, tmp_path / "run")
    torch.set_num_threads(threads)
    losses = np.genfromtxt(tmp_path / "run" / "progress.csv", delimiter=",", names=True)["loss"]
    assert losses[-1] < 0.8 * losses[0]
    loaded = load_model(str(tmp_path / "run" / "ema_0.5_000030.pt"))
    assert isinstance(loaded.model, FastUNet3D)
    assert loaded.diffusion.num_timesteps == 1
    with pytest.raises(InputError, match="trained as unet3d, but --method is ddpm3d"):
        train_command.train_with(training_settings(settings.given | {"method": "ddpm3d"}), tmp_path / "run")


def test_unknown_methods_are_refused(network, tmp_path):
    with pytest.raises(InputError, match="--method 'gan' is unknown: this version knows ddpm"):
        training_settings({"method": "gan", "data_dir": "x"})
    header = Header(**{**vars(HEADER), "method": "gan"})
    save_checkpoint(tmp_path / "gan.pt", network.state_dict(), header)
    assert load_checkpoint(str(tmp_path / "gan.pt")).header.method == "gan"
    with pytest.raises(InputError, match="the header's method 'gan' is unknown"):
        load_model(str(tmp_path / "gan.pt"))


def test_balanced_weights_are_one_over_the_root_of_the_error():
    normal = torch.rand(2, 1, 3, 4, 5, generator=torch.Generator().manual_seed(1))
    noise = torch.randn(normal.shape, generator=torch.Generator().manual_seed(2))
    low = normal + noise * torch.tensor([0.01, 0.2]).reshape(2, 1, 1, 1, 1)
    errors = (low - normal).square().flatten(1).mean(1)
    torch.testing.assert_close(WEIGHTINGS["balanced"](low, normal) * errors.sqrt(), torch.ones(2))
    assert WEIGHTINGS["balanced"](normal, normal).tolist() == pytest.approx([10**3.5, 10**3.5])
    assert WEIGHTINGS["uniform"](low, normal).tolist() == [1, 1]


@pytest.mark.parametrize("method", ["unet3d", "ddpm3d"])
def test_weighted_training_follows_the_weighted_gradient(method, tmp_path):
    """The first step of AdamW moves every weight by the learning rate against its gradient's sign; gradients of two
    crops that are weighed differently add up to another sign somewhere."""
    moved = {}
    rng = np.random.default_rng(0)
    for name, noise in (("a", 0.01), ("b", 3.0)):
        normal = rng.gamma(2.0, 1.0, (8, 8, 8))
        pair = np.stack([normal + noise * rng.standard_normal(normal.shape), normal])
        np.savez(tmp_path / f"{name}.npz", arr_0=pair.astype(np.float32))
    for weighting in WEIGHTINGS:
        flags = {"method": method, "loss_weighting": weighting, "predict_xstart": True, "batch_size": 8, "max_steps": 1}
        flags |= {"num_channels": 32, "num_res_blocks": 1, "channel_mult": "1", "attention_resolutions": "1000"}
        folder = tmp_path / weighting
        folder.mkdir()
        paths = {"data_dir": str(tmp_path), "save_dir": str(folder)}
        run = training_settings(flags | paths | {"crop_size": "8,8,8", "add_low_res": True, "lr": 1e-3, "threads": 1})
        threads = torch.get_num_threads()
        train_command.train_with(run, folder)
        torch.set_num_threads(threads)
        moved[weighting] = load_checkpoint(str(folder / "model000001.pt")).state_dict["out.2.weight"]
    assert (moved["uniform"].sign() != moved["balanced"].sign()).any()
    assert moved["uniform"].abs().max() == pytest.approx(1e-3, rel=1e-3)


def test_a_header_cannot_send_regression_through_a_chain():
    """export --preset or an old header may recommend a chain's sampler; only its precision means something."""
    chain = SamplerConfig(
        sampler="dpmpp_2m", timestep_respacing="logsnr5", start_from="low_dose", start_step=9, bfloat16=True
    )
    settings = presets.inference_settings({"realisations": 3}, replace(HEADER, sampler=chain), on_gpu=False)
    expected = ("ddpm", "noise", None, 1)
    sampling = settings.sampling
    assert (sampling.sampler, sampling.start_from, sampling.start_step, sampling.realisations) == expected
    assert settings.diffusion.timestep_respacing == ""
    assert settings.precision == "bfloat16"
    assert settings.notices == ("unet3d answers in one call; ignored: --realisations",)
    sampled = presets.inference_settings({}, replace(HEADER, method="ddpm3d", sampler=chain), on_gpu=False)
    assert sampled.sampling.sampler == "dpmpp_2m"


@pytest.mark.parametrize("name", METHODS)
def test_methods_say_whether_they_use_the_noise_of_examples(name):
    settings = tiny_settings(name)
    examples, others = tiny_examples(), replace(tiny_examples(), noise=tiny_examples(seed=1).noise)
    if not METHODS[name].uses_noise:
        examples = replace(examples, noise=None)
    objectives = METHODS[name].objectives(tiny_network(settings), settings.diffusion)
    for objective in objectives:
        losses = []
        for given in (examples, others):
            torch.manual_seed(0)  # for the noise that a loss makes itself
            with torch.no_grad():
                losses.append(objective.losses(objective.network, given)["loss"])
        assert torch.equal(*losses) != METHODS[name].uses_noise
