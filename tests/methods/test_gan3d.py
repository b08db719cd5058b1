"""The adversarial method: its two losses written out, whose gradients go where, and training that can be continued."""

import numpy as np
import pytest
import torch

from guided_diffusion.checkpoints import read_plain
from guided_diffusion.config import DiffusionConfig
from guided_diffusion.inference import load_model
from guided_diffusion.interfaces import Examples
from guided_diffusion.methods.gan3d import PatchDiscriminator
from guided_diffusion.methods.registry import METHODS
from guided_diffusion.methods.unet3d import FastUNet3D, UNet3D
from tests.golden_weights import fill
from tests.methods.test_methods import MODEL
from tests.processors import REDUCED
from tests.training_runs import assert_same_weights, rows, run

METHOD = METHODS["gan3d"]


@pytest.fixture
def examples():
    draw = torch.Generator().manual_seed(0)
    low, normal, noise = (torch.rand(2, 1, 6, 8, 8, generator=draw) / 4 for _ in range(3))
    return Examples(low, normal, noise, torch.zeros(2, dtype=torch.int64), torch.tensor([[0.5, 1.0]] * 2))


@pytest.fixture
def objectives():
    generator, discriminator = METHOD.objectives(UNet3D(MODEL), DiffusionConfig())
    fill(generator.network), fill(discriminator.network)
    return generator, discriminator


def test_losses_are_l1_and_least_squares(objectives, examples):
    generator, discriminator = objectives
    low, normal = examples.low_dose, examples.normal_dose
    with torch.no_grad():
        image = generator.network(normal, examples.timesteps, low_res=low)
        of_image, of_normal = (discriminator.network(volume, low) for volume in (image, normal))
    distance = MODEL.low_res_scale * (image - normal).abs().flatten(1).mean(1)
    fooled = ((of_image - 1) ** 2).flatten(1).mean(1) / 2
    terms = generator.losses(generator.network, examples)
    torch.testing.assert_close(terms["l1"], distance)
    torch.testing.assert_close(terms["adversarial"], fooled)
    torch.testing.assert_close(terms["loss"], 100 * distance + fooled)
    judged = ((of_normal - 1) ** 2).flatten(1).mean(1) / 2 + (of_image**2).flatten(1).mean(1) / 2
    torch.testing.assert_close(discriminator.losses(discriminator.network, examples)["loss"], judged)


def test_the_generator_gets_no_gradient_from_the_discriminators_loss(objectives, examples):
    generator, discriminator = objectives
    discriminator.losses(discriminator.network, examples)["loss"].sum().backward()
    assert all(parameter.grad is None for parameter in generator.network.parameters())
    assert all(parameter.grad.abs().max() > 0 for parameter in discriminator.network.parameters())


def test_the_discriminators_gradient_reaches_the_generator(objectives, examples):
    generator, discriminator = objectives
    discriminator.network.requires_grad_(False)
    generator.losses(generator.network, examples)["adversarial"].sum().backward()
    assert generator.network.out[2].weight.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in discriminator.network.parameters())


@torch.no_grad()
def test_a_score_is_about_23_voxels_and_about_the_low_dose_too():
    """Without the norms, whose statistics are those of the whole crop."""
    discriminator = PatchDiscriminator(scale=2.0)
    layers = [layer for layer in fill(discriminator).layers if not isinstance(layer, torch.nn.GroupNorm)]
    discriminator.layers = torch.nn.Sequential(*layers)
    image, low_dose = torch.rand(2, 1, 1, 40, 40, 40, generator=torch.Generator().manual_seed(0))
    before = discriminator(image, low_dose)
    assert before.shape == (1, 1, 10, 10, 10)
    # The score at 5 stands for the voxels about 20.
    for of_image, of_low_dose in ((1, 0), (0, 1)):
        for z in (8, 9, 31, 32):
            change = torch.zeros_like(image)
            change[0, 0, z, 20] = 1
            after = discriminator(image + of_image * change, low_dose + of_low_dose * change)
            assert (after[0, 0, 5, 5, 5] != before[0, 0, 5, 5, 5]) == (abs(z - 20) <= 11)


def test_a_continued_training_equals_an_uninterrupted_one(data_dir, tmp_path):
    # Of 16 slices: in bfloat16 maps of two are refused, which the discriminator has of 8.
    flags = {"method": "gan3d", "microbatch": 1, "precision": REDUCED, "crop_size": "8,8,16"}
    flags["loss_weighting"] = "balanced"
    run(data_dir, tmp_path / "whole", **flags, max_steps=4)
    run(data_dir, tmp_path / "parts", **flags, max_steps=2)
    run(data_dir, tmp_path / "parts", **flags, max_steps=4)
    for name in ("model000004.pt", "ema_0.9_000004.pt"):
        assert_same_weights(tmp_path / "whole" / name, tmp_path / "parts" / name)
    whole, parts = (read_plain(str(tmp_path / part / "opt000004.pt"))["further"] for part in ("whole", "parts"))
    assert whole.keys() == {"discriminator"}
    weights, moments = (
        {f"{name}.{key}": value for name, state in of.items() for key, value in state.items()}
        for of in ({"weights": whole["discriminator"]["weights"]}, whole["discriminator"]["optimiser"]["state"])
    )
    assert weights.keys() == {f"weights.{name}" for name in PatchDiscriminator(1.0).state_dict()}
    for name, value in weights.items():
        assert torch.equal(parts["discriminator"]["weights"][name.removeprefix("weights.")], value)
    for name, value in moments.items():
        number, key = name.split(".")
        assert torch.equal(parts["discriminator"]["optimiser"]["state"][int(number)][key], value)
    for term in ("l1", "adversarial", "discriminator_loss"):
        values = [[row[term] for row in rows(tmp_path / part / "progress.csv")] for part in ("whole", "parts")]
        assert values[0] == values[1]
        assert len(set(values[0])) == 4


def test_its_weights_are_a_regressions(data_dir, tmp_path):
    run(data_dir, tmp_path / "run", method="gan3d", max_steps=1)
    loaded = load_model(str(tmp_path / "run" / "model000001.pt"))
    assert loaded.settings.method == "gan3d"
    assert isinstance(loaded.model, FastUNet3D)
    assert loaded.diffusion.num_timesteps == 1


GOLDEN = [[0.0522642, 0.444137, 0.451868], [0.0566111, 0.00616347, 0.456262]]


def test_golden_numbers_of_a_tiny_step(data_dir, tmp_path):
    """Of the first two steps from one seed, written down when the method was."""
    run(data_dir, tmp_path / "run", method="gan3d", max_steps=2)
    steps = rows(tmp_path / "run" / "progress.csv")
    numbers = [[float(row[term]) for term in ("l1", "adversarial", "discriminator_loss")] for row in steps]
    np.testing.assert_allclose(numbers, GOLDEN, rtol=1e-3)
