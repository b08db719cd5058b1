"""Steps of training by value: gradients, microbatches, averages, schedules, precision."""

import copy

import numpy as np
import pytest
import torch

from guided_diffusion.config import DEMO_DIFFUSION, PreprocessingConfig
from guided_diffusion.errors import InputError
from guided_diffusion.gaussian_diffusion import GaussianDiffusion
from guided_diffusion.image_datasets import CropSource, find_pairs
from guided_diffusion.script_util import create_model
from guided_diffusion.training.averages import effective_ema_rate
from guided_diffusion.training.batches import Batch
from guided_diffusion.training.settings import training_settings
from guided_diffusion.training.step import TrainStep
from tests.training_runs import TINY, rows, run, weights


class TestSteps:
    def test_microbatches_give_the_same_weights(self, data_dir, tmp_path):
        run(data_dir, tmp_path / "whole", batch_size=4, max_steps=3)
        run(data_dir, tmp_path / "micro", batch_size=4, microbatch=3, max_steps=3)
        whole, micro = (weights(tmp_path / name / "model000003.pt") for name in ("whole", "micro"))
        for name in whole:
            # Rounding moves single weights, whose gradient is about zero, by a fraction of the learning rate of 1e-3.
            torch.testing.assert_close(micro[name], whole[name], rtol=0, atol=1e-4)

    def test_first_step_is_adamw_on_the_loss_of_the_named_crops(self, data_dir, tmp_path):
        run(data_dir, tmp_path / "run", max_steps=1, seed=3, weight_decay=0.1)
        settings = training_settings(TINY | {"data_dir": str(data_dir)})
        torch.manual_seed(3)
        model = create_model(settings.model, settings.diffusion)
        source = CropSource(find_pairs(data_dir, "train", (3.3,) * 3), (8, 8, 4), PreprocessingConfig(), seed=3)
        crops = [source.crop(0, item) for item in range(2)]
        low, normal, noise = (
            torch.from_numpy(np.stack([getattr(crop, name) for crop in crops]))
            for name in ("low_dose", "normal_dose", "noise")
        )
        t = torch.tensor([np.random.default_rng([3, 3, 0, item]).integers(1000) for item in range(2)])
        losses = GaussianDiffusion(DEMO_DIFFUSION).training_losses(model, normal, t, {"low_res": low}, noise)["loss"]
        losses.mean().backward()
        optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
        optimiser.step()
        torch.testing.assert_close(weights(tmp_path / "run" / "model000001.pt"), model.state_dict(), rtol=0, atol=1e-6)
        assert float(rows(tmp_path / "run" / "progress.csv")[0]["loss"]) == pytest.approx(
            losses.mean().item(), rel=1e-4
        )

    def test_averages_follow_the_weights(self, data_dir, tmp_path):
        run(data_dir, tmp_path, max_steps=3, save_interval=1)
        for rate in ("0.9", "0.99"):
            before, new, after = (
                weights(tmp_path / name)
                for name in (f"ema_{rate}_000002.pt", "model000003.pt", f"ema_{rate}_000003.pt")
            )
            kept = min(float(rate), 4 / 13)
            for name in after:
                torch.testing.assert_close(after[name], kept * before[name] + (1 - kept) * new[name])

    def test_averages_reach_their_rate(self):
        assert effective_ema_rate(0.9999, 1_000_000) == 0.9999
        assert effective_ema_rate(0.9999, 90) == pytest.approx(0.91)

    def test_learning_rate_rises_and_falls(self, data_dir, tmp_path):
        run(data_dir, tmp_path, lr=1e-4, lr_warmup_steps=4, lr_anneal_steps=8)
        rates = [float(row["lr"]) for row in rows(tmp_path / "progress.csv")]
        expected = [1 / 4, 7 / 8 * 2 / 4, 6 / 8 * 3 / 4, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]
        assert rates == pytest.approx([1e-4 * rate for rate in expected], rel=1e-4)

    def test_gradients_are_clipped(self, data_dir, tmp_path):
        # AdamW is blind to a constant factor, but not to one that clips later gradients only.
        run(data_dir, tmp_path / "free", max_steps=4, lr=0.01)
        run(data_dir, tmp_path / "clipped", max_steps=4, lr=0.01, grad_clip=0.01)
        norms = [float(row["grad_norm"]) for row in rows(tmp_path / "free" / "progress.csv")]
        assert max(norms) > 0.01
        free, clipped = (weights(tmp_path / name / "model000004.pt") for name in ("free", "clipped"))
        assert not torch.equal(free["out.2.weight"], clipped["out.2.weight"])

    def test_bfloat16_follows_float32(self, data_dir, tmp_path):
        for precision in ("float32", "bfloat16"):
            run(data_dir, tmp_path / precision, precision=precision, max_steps=5)
        tables = [rows(tmp_path / precision / "progress.csv") for precision in ("float32", "bfloat16")]
        losses = [[float(row["loss"]) for row in table] for table in tables]
        assert losses[0] != losses[1]
        assert losses[1] == pytest.approx(losses[0], rel=0.05)
        assert weights(tmp_path / "bfloat16" / "model000005.pt")["out.2.weight"].dtype == torch.float32

    def test_training_learns(self, data_dir, tmp_path):
        run(data_dir, tmp_path, max_steps=100, validation_interval=100, validation_crops=3)
        (score,) = rows(tmp_path / "validation.csv")
        assert float(score["psnr_denoised"]) > float(score["psnr_low_dose"]) + 4

    def test_minutes_end_a_run(self, data_dir, tmp_path):
        run(data_dir, tmp_path, max_minutes=0.01)
        assert len(list(tmp_path.glob("opt*.pt"))) == 1


def test_an_infinite_gradient_changes_no_weight():
    settings = training_settings(TINY | {"data_dir": "x"})
    model = create_model(settings.model, settings.diffusion)
    model.out[2].weight.register_hook(lambda gradient: gradient * torch.inf)
    before = copy.deepcopy(model.state_dict())
    images = torch.rand(2, 1, 4, 8, 8)
    with pytest.raises(InputError, match="the gradient of step 3 is not finite; lower --lr"):
        TrainStep(settings, model).take(Batch(images, images, images, torch.ones(2, 2)), 3)
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
