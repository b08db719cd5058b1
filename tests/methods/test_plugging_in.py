"""A method is one object: an adversarial one and one that takes volumes slice by slice, trained, continued and run."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from guided_diffusion.checkpoints import read_plain
from guided_diffusion.config import DiffusionConfig, ModelConfig
from guided_diffusion.errors import InputError
from guided_diffusion.inference import denoise_volume, load_model
from guided_diffusion.interfaces import Examples, Method, Objective, without_margin
from guided_diffusion.methods.registry import METHODS
from guided_diffusion.methods.unet3d import Regression
from guided_diffusion.pet.grid import Volume
from tests.training_runs import assert_same_weights, rows, run

MARGIN = 1


class Filter(nn.Module):
    """A convolution over the slices that it is shown: `margin` more at both ends than it answers for."""

    def __init__(self, config: ModelConfig, margin: int):
        super().__init__()
        self.config = config
        self.weights = nn.Conv3d(1, 1, (2 * margin + 1, 3, 3), padding=(0, 1, 1))

    @property
    def dtype(self) -> torch.dtype:
        return self.weights.weight.dtype

    def forward(self, x, timesteps, low_res):  # noqa: ARG002
        assert low_res.shape[2] == x.shape[2] + self.weights.kernel_size[0] - 1
        return self.weights(low_res.to(self.dtype)).float()


class SliceWise(Method):
    """One call, each slice from its neighbours and itself."""

    name = "toy_slices"
    sampled = False
    dims = 2
    terms = ("mse",)

    def model_config(self, model: ModelConfig) -> ModelConfig:
        return replace(model, dims=2)

    def create_model(self, model: ModelConfig, _diffusion: DiffusionConfig) -> nn.Module:
        return Filter(model, MARGIN)

    def create_process(self, diffusion: DiffusionConfig, _start_step: int | None = None) -> Regression:
        return Regression(diffusion)

    def margin(self, _model: ModelConfig) -> int:
        return MARGIN


class Adversarial(SliceWise):
    """A generator and a critic of its slices, with an optimiser each."""

    name = "toy_adversarial"
    dims = 3
    terms = ("critic_loss",)

    def model_config(self, model: ModelConfig) -> ModelConfig:
        return model

    def create_model(self, model: ModelConfig, _diffusion: DiffusionConfig) -> nn.Module:
        return Filter(model, 0)

    def margin(self, _model: ModelConfig) -> int:
        return 0

    def objectives(self, network: nn.Module, _diffusion: DiffusionConfig) -> tuple[Objective, ...]:
        critic = nn.Conv3d(1, 1, 3, padding=1)

        def denoised(generator: nn.Module, examples: Examples) -> torch.Tensor:
            return generator(examples.normal_dose, examples.timesteps, low_res=examples.low_dose)

        def fool(generator: nn.Module, examples: Examples) -> dict[str, torch.Tensor]:
            image = denoised(generator, examples)
            distance = (image - examples.normal_dose).abs().flatten(1).mean(1)
            return {"loss": distance + (critic(image) - 1).square().flatten(1).mean(1)}

        def judge(judging: nn.Module, examples: Examples) -> dict[str, torch.Tensor]:
            with torch.no_grad():
                image = denoised(network, examples)
            right, wrong = (judging(examples.normal_dose) - 1).square(), judging(image).square()
            return {"loss": (right + wrong).flatten(1).mean(1)}

        return (
            Objective("generator", network, fool),
            Objective("critic", critic.to(next(network.parameters())), judge),
        )


@pytest.fixture(params=[SliceWise(), Adversarial()], ids=lambda method: method.name)
def method(request, monkeypatch):
    monkeypatch.setitem(METHODS, request.param.name, request.param)
    return request.param


def test_a_continued_training_equals_an_uninterrupted_one(method, data_dir, tmp_path):
    flags = {"method": method.name, "crop_size": "8,8,5", "microbatch": 1, "validation_interval": 2}
    run(data_dir, tmp_path / "whole", **flags, max_steps=4)
    run(data_dir, tmp_path / "parts", **flags, max_steps=2)
    run(data_dir, tmp_path / "parts", **flags, max_steps=4)
    for name in ("model000004.pt", "ema_0.9_000004.pt"):
        assert_same_weights(tmp_path / "whole" / name, tmp_path / "parts" / name)
    whole, parts = (read_plain(str(tmp_path / part / "opt000004.pt")) for part in ("whole", "parts"))
    for term in ("loss", *method.terms):
        values = [[float(row[term]) for row in rows(tmp_path / part / "progress.csv")] for part in ("whole", "parts")]
        assert values[0] == values[1]
        assert len(set(values[0])) == 4
    assert whole.get("further", {}).keys() == ({"critic"} if method.name == "toy_adversarial" else set())
    for name, further in whole.get("further", {}).items():
        for weight, value in further["weights"].items():
            assert torch.equal(parts["further"][name]["weights"][weight], value)
        moments = further["optimiser"]["state"][0]["exp_avg"]
        assert moments.abs().max() > 0
        assert torch.equal(parts["further"][name]["optimiser"]["state"][0]["exp_avg"], moments)


def test_every_network_follows_its_own_loss_only(data_dir, tmp_path, monkeypatch):
    """AdamW's first moment after one step is a tenth of the gradient: the critic's is that of its own loss."""
    method = Adversarial()
    monkeypatch.setitem(METHODS, method.name, method)
    made = []

    def remembered(network, diffusion):
        objectives = Adversarial.objectives(method, network, diffusion)
        seen = [replace(objective, losses=lambda *given, of=objective: watched(of, *given)) for objective in objectives]
        made.append(seen)
        return tuple(seen)

    gradients = {}

    def watched(objective, network, examples):
        if objective.name == "critic":
            terms = objective.losses(network, examples)
            parameters = list(objective.network.parameters())
            gradients["critic"] = torch.autograd.grad(terms["loss"].mean(), parameters, retain_graph=True)
            return terms
        return objective.losses(network, examples)

    monkeypatch.setattr(method, "objectives", remembered, raising=False)
    run(data_dir, tmp_path / "run", method=method.name, crop_size="8,8,5", max_steps=1)
    state = read_plain(str(tmp_path / "run" / "opt000001.pt"))["further"]["critic"]["optimiser"]["state"]
    for number, gradient in enumerate(gradients["critic"]):
        torch.testing.assert_close(state[number]["exp_avg"], 0.1 * gradient, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("patch_size", [16, 7, 40])
def test_a_volume_is_denoised_as_the_network_alone_would(method, patch_size, data_dir, tmp_path):
    """By value, whatever the patches: what a slice-wise method is shown does not end with its patch."""
    run(data_dir, tmp_path / "run", method=method.name, crop_size="8,8,5", max_steps=2)
    flags = {"patch_size": patch_size, "overlap": 2, "precision": "float32"}
    loaded = load_model(str(tmp_path / "run" / "model000002.pt"), flags)
    suv = np.random.default_rng(0).gamma(2.0, 1.0, (8, 10, 40)).astype(np.float32)
    affine = np.array([[0, -3.3, 0, 0], [-3.3, 0, 0, 0], [0, 0, 3.3, 0], [0, 0, 0, 1]])
    samples = denoise_volume(Volume(suv, affine), loaded).samples
    low_dose = torch.from_numpy(suv.clip(0, 16) / 16).permute(2, 0, 1)[None, None]
    margin = method.margin(loaded.settings.model)
    shown = torch.cat([low_dose[:, :, :margin], low_dose, low_dose[:, :, 40 - margin :]], dim=2)
    with torch.no_grad():
        alone = loaded.model(without_margin(shown, margin), torch.zeros(1), low_res=shown).clamp(-1, 1)
    np.testing.assert_allclose(samples, alone[0, 0].permute(1, 2, 0).numpy(), atol=1e-6)


def test_crops_of_nothing_but_neighbours_are_refused(data_dir, tmp_path, monkeypatch):
    monkeypatch.setitem(METHODS, SliceWise.name, SliceWise())
    with pytest.raises(InputError, match="Z must be more than 2 slices"):
        run(data_dir, tmp_path / "run", method=SliceWise.name, crop_size="8,8,2", max_steps=1)
