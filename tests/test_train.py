"""Training by value: continuing, microbatches, averages, schedules, headers, and what a user may get wrong."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from guided_diffusion import train_command
from guided_diffusion.checkpoints import load_checkpoint, read_plain, save_plain
from guided_diffusion.config import DEMO_DIFFUSION, DEMO_MODEL, DEMO_SAMPLER, DiffusionConfig, ModelConfig
from guided_diffusion.errors import InputError
from guided_diffusion.gaussian_diffusion import GaussianDiffusion
from guided_diffusion.image_datasets import CropSource, find_pairs
from guided_diffusion.script_util import create_model
from guided_diffusion.train_averages import effective_ema_rate
from guided_diffusion.train_config import settle

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "scripts" / "train.py"

TINY = {
    "num_channels": 32,
    "num_res_blocks": 1,
    "channel_mult": "1,1",
    "attention_resolutions": "1000",
    "resblock_updown": True,
    "add_low_res": True,
    "predict_xstart": True,
    "crop_size": "8,8,4",
    "voxel_mm": "3.3,3.3,3.3",
    "ema_rate": "0.9,0.99",
    "batch_size": 2,
    "lr": 1e-3,
    "log_interval": 1,
    "validation_interval": 0,
    "threads": 1,
}

# Few enough timesteps for the loss-aware sampler to have seen all of them.
TWO_STEPS = {"noise_schedule": "cosine", "diffusion_steps": 2}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Two training pairs and a validation pair: smooth normal-dose images, noisy low-dose ones."""
    folder = tmp_path_factory.mktemp("trial")
    rng = np.random.default_rng(1)
    x, y, z = np.meshgrid(*(np.linspace(0, 3, size) for size in (16, 20, 12)), indexing="ij")
    for name in ("train_1", "train_2", "validation"):
        normal = 6 + 4 * np.sin(x + rng.random()) * np.cos(y) * np.sin(z + rng.random())
        pair = np.stack([normal + rng.standard_normal(normal.shape), normal]).astype(np.float32)
        np.savez(folder / f"{name}.npz", arr_0=pair)
    lines = ["subject,dose,split,voxel_mm,pair"]
    lines += [f"{name},0.05,{name.split('_')[0]},3.3,{name}.npz" for name in ("train_1", "train_2", "validation")]
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return folder


def run(data_dir, save_dir, **flags):
    """Train in this process with the tiny network and more flags."""
    settings = settle(TINY | {"data_dir": str(data_dir), "save_dir": str(save_dir)} | flags)
    save_dir.mkdir(exist_ok=True)
    threads = torch.get_num_threads()
    try:
        train_command.train_with(settings, save_dir)
    finally:
        torch.set_num_threads(threads)


def weights(path):
    return load_checkpoint(str(path)).state_dict


def assert_same_weights(one, other):
    one, other = weights(one), weights(other)
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


class TestContinuing:
    @pytest.mark.parametrize(
        "flags",
        [
            {},
            {
                "schedule_sampler": "loss-second-moment",
                "diffusion_steps": 2,
                "noise_schedule": "cosine",
                "batch_size": 4,
            },
            {"precision": "bfloat16", "microbatch": 1, "grad_clip": 0.01},
        ],
    )
    def test_continued_run_equals_an_uninterrupted_one(self, data_dir, tmp_path, flags):
        flags = {"dropout": 0.1, "lr_anneal_steps": 40, "weight_decay": 0.01} | flags
        run(data_dir, tmp_path / "whole", **flags, max_steps=9)
        run(data_dir, tmp_path / "parts", **flags, max_steps=7)
        run(data_dir, tmp_path / "parts", **flags, max_steps=9)
        for name in ("model000009.pt", "ema_0.9_000009.pt", "ema_0.99_000009.pt"):
            assert_same_weights(tmp_path / "whole" / name, tmp_path / "parts" / name)
        losses = [[row["loss"] for row in rows(tmp_path / part / "progress.csv")] for part in ("whole", "parts")]
        assert losses[0] == losses[1]
        assert len(losses[0]) == 9

    def test_moments_of_the_plain_optimiser_go_on_in_the_fused_one(self, data_dir, tmp_path):
        """As in runs that were saved before the fused one was used."""
        run(data_dir, tmp_path / "run", max_steps=3, save_interval=2)
        expected = weights(tmp_path / "run" / "model000003.pt")
        state = read_plain(str(tmp_path / "run" / "opt000002.pt"))
        state["optimiser"]["param_groups"][0] |= {"fused": None, "foreach": None}
        del state["ranks"]
        save_plain(tmp_path / "run" / "opt000002.pt", state)
        run(data_dir, tmp_path / "run", max_steps=3, resume_checkpoint=str(tmp_path / "run" / "model000002.pt"))
        again = weights(tmp_path / "run" / "model000003.pt")
        assert all(torch.equal(again[name], expected[name]) for name in expected)

    def test_killed_process_continues_with_the_same_command(self, data_dir, tmp_path):
        flags = TINY | {"data_dir": data_dir, "save_interval": 5, "max_steps": 5000}
        command = [sys.executable, str(SCRIPT)]
        command += [str(part) for name, value in flags.items() for part in (f"--{name}", value)]
        command += ["--save_dir", str(tmp_path / "killed")]
        with subprocess.Popen(command, cwd=ROOT, env=_environment(), stderr=subprocess.DEVNULL) as process:
            wait_for(tmp_path / "killed" / "opt000005.pt", process)
            process.kill()
        saved = sorted(int(path.stem[3:]) for path in (tmp_path / "killed").glob("opt*.pt"))
        last = saved[-1] + 3
        run(data_dir, tmp_path / "killed", save_interval=5, max_steps=last)
        run(data_dir, tmp_path / "whole", max_steps=last)
        assert_same_weights(tmp_path / "whole" / f"model{last:06d}.pt", tmp_path / "killed" / f"model{last:06d}.pt")
        assert [int(row["step"]) for row in rows(tmp_path / "killed" / "progress.csv")] == list(range(1, last + 1))

    def test_termination_ends_the_run_cleanly(self, data_dir, tmp_path):
        flags = TINY | {"data_dir": data_dir, "save_dir": tmp_path / "run"}
        command = [sys.executable, str(SCRIPT)]
        command += [str(part) for name, value in flags.items() for part in (f"--{name}", value)]
        with subprocess.Popen(command, cwd=ROOT, env=_environment(), stderr=subprocess.PIPE, text=True) as process:
            wait_for(tmp_path / "run" / "progress.csv", process, lines=3)
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=60)
        assert process.returncode == 0
        assert "SIGTERM: ending after this step" in errors
        steps = len(rows(tmp_path / "run" / "progress.csv"))
        assert (tmp_path / "run" / f"opt{steps:06d}.pt").exists()

    def test_other_weights_begin_a_new_run(self, data_dir, tmp_path):
        run(data_dir, tmp_path / "first", max_steps=3)
        start = tmp_path / "first" / "ema_0.9_000003.pt"
        run(data_dir, tmp_path / "second", max_steps=1, lr=1e-12, resume_checkpoint=str(start))
        begun = weights(tmp_path / "second" / "model000001.pt")
        for name, value in weights(start).items():
            torch.testing.assert_close(begun[name], value, rtol=0, atol=1e-10)
        run(data_dir, tmp_path / "second", max_steps=2, resume_checkpoint=str(start))
        assert (tmp_path / "second" / "model000002.pt").exists()

    def test_an_older_checkpoint_of_the_run_can_be_chosen(self, data_dir, tmp_path):
        run(data_dir, tmp_path / "run", max_steps=4, save_interval=2)
        expected = weights(tmp_path / "run" / "model000004.pt")
        save_plain(tmp_path / "run" / "model000004.pt", {})
        run(data_dir, tmp_path / "run", max_steps=4, resume_checkpoint=str(tmp_path / "run" / "model000002.pt"))
        again = weights(tmp_path / "run" / "model000004.pt")
        assert all(torch.equal(again[name], expected[name]) for name in expected)

    def test_a_published_state_dict_can_be_continued_from(self, data_dir, tmp_path):
        settings = settle(TINY | {"data_dir": str(data_dir)})
        state = create_model(settings.model, settings.diffusion).state_dict()
        save_plain(tmp_path / "model.pt", state)
        run(data_dir, tmp_path / "run", max_steps=1, lr=1e-12, resume_checkpoint=str(tmp_path / "model.pt"))
        torch.testing.assert_close(weights(tmp_path / "run" / "model000001.pt"), state, rtol=0, atol=1e-10)

    def test_another_network_is_refused(self, data_dir, tmp_path):
        run(data_dir, tmp_path / "run", max_steps=1)
        with pytest.raises(InputError, match="trained with num_channels 32, but the flags say 64"):
            run(data_dir, tmp_path / "run", max_steps=2, num_channels=64)
        save_plain(tmp_path / "plain.pt", weights(tmp_path / "run" / "model000001.pt"))
        with pytest.raises(InputError, match=r"plain\.pt: the weights do not fit the flags"):
            run(data_dir, tmp_path / "other", num_channels=64, resume_checkpoint=str(tmp_path / "plain.pt"))
        with pytest.raises(InputError, match=r"trained with predict_xstart True, but the flags say False"):
            run(data_dir, tmp_path / "run", max_steps=2, predict_xstart=False)
        with pytest.raises(InputError, match=r"trained with suv_max 16\.0, but the flags say 4\.0"):
            run(data_dir, tmp_path / "run", max_steps=2, suv_max=4.0)


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
        settings = settle(TINY | {"data_dir": str(data_dir)})
        torch.manual_seed(3)
        model = create_model(settings.model, settings.diffusion)
        source = CropSource(find_pairs(data_dir, "train", (3.3,) * 3), (8, 8, 4), 16.0, seed=3)
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


class TestFiles:
    def test_header_describes_the_weights(self, data_dir, tmp_path):
        run(data_dir, tmp_path, max_steps=2, seed=5)
        header = load_checkpoint(str(tmp_path / "ema_0.99_000002.pt")).header
        assert header.method == "ddpm3d"
        assert header.model == ModelConfig(**{k: v for k, v in TINY.items() if k in vars(ModelConfig())})
        assert header.diffusion == DiffusionConfig(predict_xstart=True)
        assert header.preprocessing.voxel_mm == (3.3, 3.3, 3.3)
        assert header.preprocessing.suv_max == 16.0
        assert header.training["step"] == 2
        assert header.training["seed"] == 5
        assert header.training["ema_rate"] == "0.99"
        assert header.training["data"] == {"pairs": 2, "subjects": 2, "doses": {"0.05": 2}}
        assert "--seed 5" in header.training["command"]
        assert str(tmp_path.parent) not in str(header)
        assert str(data_dir.parent) not in str(header)

    def test_best_average_is_kept(self, data_dir, tmp_path):
        run(data_dir, tmp_path, max_steps=6, validation_interval=2, validation_crops=2, save_interval=2, lr=0.03)
        scores = {int(row["step"]): float(row["psnr_denoised"]) for row in rows(tmp_path / "validation.csv")}
        assert sorted(scores) == [2, 4, 6]
        best = max(scores, key=scores.get)
        assert_same_weights(tmp_path / "ema_0.9_best.pt", tmp_path / f"ema_0.9_{best:06d}.pt")
        header = load_checkpoint(str(tmp_path / "ema_0.9_best.pt")).header
        assert header.training["validation_psnr"] == pytest.approx(scores[best], abs=1e-3)

    def test_validation_of_the_low_dose_is_plain_psnr_and_ssim(self, data_dir, tmp_path):
        run(data_dir, tmp_path, max_steps=1, validation_interval=1, validation_crops=3)
        source = CropSource(find_pairs(data_dir, "validation", (3.3,) * 3), (8, 8, 4), 16.0, seed=0)
        crops = [source.crop(0, item) for item in range(3)]
        errors = [np.mean((16.0 * (crop.low_dose - crop.normal_dose)) ** 2) for crop in crops]
        expected = 10 * np.log10(16.0**2 / np.mean(errors))
        (score,) = rows(tmp_path / "validation.csv")
        assert float(score["psnr_low_dose"]) == pytest.approx(expected, abs=1e-3)
        similar = [  # crops of four slices have room for a window of three
            structural_similarity(16 * crop.normal_dose[0], 16 * crop.low_dose[0], win_size=3, data_range=16.0)
            for crop in crops
        ]
        assert float(score["ssim_low_dose"]) == pytest.approx(np.mean(similar), abs=1e-5)
        for name in ("curves.png", "validation_slice.png"):
            assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")

    def test_a_folder_is_a_validation_set_of_its_own(self, data_dir, tmp_path):
        np.savez(tmp_path / "pair.npz", arr_0=np.load(data_dir / "validation.npz")["arr_0"])
        for name, flags in (("manifest", {}), ("folder", {"validation_dir": str(tmp_path)})):
            run(data_dir, tmp_path / name, max_steps=1, validation_interval=1, **flags)
        one, other = (rows(tmp_path / name / "validation.csv")[0] for name in ("manifest", "folder"))
        assert one["psnr_denoised"] == other["psnr_denoised"]


class TestFlags:
    def test_published_defaults(self):
        settings = settle({"data_dir": "data"})
        options = settings.optimisation
        assert (options.lr, options.weight_decay, options.lr_anneal_steps) == (1e-4, 0.0, 0)
        assert (options.batch_size, options.microbatch, options.ema_rate) == (1, -1, "0.9999")
        assert (options.schedule_sampler, options.fp16_scale_growth) == ("uniform", 1e-3)
        assert (settings.run.log_interval, settings.run.save_interval) == (10, 10000)
        assert settings.model == ModelConfig()
        assert settings.diffusion == DiffusionConfig()
        assert settings.crop_size == (96, 96, 96)

    def test_presets_and_what_goes_before_them(self):
        settings = settle({"preset": "demo", "data_dir": "data", "num_res_blocks": 2, "lr": 1e-5})
        assert settings.model == ModelConfig(**(vars(DEMO_MODEL) | {"num_res_blocks": 2}))
        assert settings.diffusion == DEMO_DIFFUSION
        assert settings.sampler == DEMO_SAMPLER
        assert settings.preprocessing.voxel_mm == (3.3, 3.3, 3.3)
        assert settings.optimisation.lr == 1e-5

    @pytest.mark.parametrize(
        ("flags", "complaint"),
        [
            ({"data_dir": ""}, "--data_dir is missing"),
            ({"crop_size": "96,96"}, "--crop_size '96,96' is not a comma list of three"),
            ({"crop_size": "20,16,16"}, "--crop_size 20,16,16: X and Y must be multiples of 8"),
            ({"voxel_mm": "3.3"}, "--voxel_mm '3.3' is not"),
            ({"batch_size": 0}, "--batch_size 0: must be positive"),
            ({"lr": -1.0}, "--lr -1.0: must be positive"),
            ({"max_steps": -1}, "--max_steps -1: must not be negative"),
            ({"precision": "int8"}, "--precision 'int8' is unknown"),
            ({"ema_rate": "0.9,one"}, "--ema_rate 'one'"),
            ({"ema_rate": "1.0"}, "--ema_rate '1.0'"),
        ],
    )
    def test_mistakes(self, flags, complaint):
        with pytest.raises(InputError, match=complaint):
            settle({"data_dir": "data", "channel_mult": "1,1,1,1", "crop_size": "16,16,16"} | flags)

    def test_unknown_schedule_sampler(self, data_dir, tmp_path):
        with pytest.raises(InputError, match="--schedule_sampler 'best' is unknown"):
            run(data_dir, tmp_path, schedule_sampler="best")

    def test_loss_that_explodes(self, data_dir, tmp_path):
        with pytest.raises(InputError, match="is not finite; lower --lr"):
            run(data_dir, tmp_path, max_steps=20, lr=1e20)


class TestCommand:
    def call(self, *words):
        return subprocess.run(
            [sys.executable, str(SCRIPT), *map(str, words)],
            cwd=ROOT,
            env=_environment(),
            capture_output=True,
            text=True,
            timeout=120,
        )

    def test_a_mistake_is_one_line_and_exit_code_2(self, tmp_path):
        result = self.call("--data_dir", tmp_path / "missing", "--save_dir", tmp_path / "run")
        assert result.returncode == 2
        assert result.stderr.count("\n") == 1
        assert "missing: no such folder" in result.stderr

    def test_help_explains_every_flag(self, capsys):
        with pytest.raises(SystemExit) as stop:
            train_command.create_parser("Train.").parse_args(["--help"])
        assert stop.value.code == 0
        text = capsys.readouterr().out
        for group in ("data:", "optimisation:", "run:", "network:", "diffusion:"):
            assert group in text
        explained = {part.split()[0]: " ".join(part.split()) for part in text.split("\n  --")[1:]}
        for flag, default in (("lr", "0.0001"), ("resume_checkpoint", "''"), ("num_channels", "128")):
            assert explained[flag].endswith(f"(default: {default})")


def wait_for(path, process, lines=0):
    """Until a file exists and has that many lines; fails if the process ends first."""
    for _ in range(1200):
        if path.exists() and (not lines or path.read_text().count("\n") > lines):
            return
        assert process.poll() is None, "the run ended early"
        time.sleep(0.05)
    raise AssertionError(f"{path.name} did not appear")


def _environment():
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
