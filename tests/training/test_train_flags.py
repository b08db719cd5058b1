"""The flags of training: defaults, presets, and what a user may get wrong."""

import logging
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from guided_diffusion.commands import train as train_command
from guided_diffusion.config import (
    DEMO_DIFFUSION,
    DEMO_MODEL,
    DEMO_PREPROCESSING,
    DEMO_SAMPLER,
    LOCAL_MODEL,
    LOCAL_PREPROCESSING,
    DiffusionConfig,
    ModelConfig,
)
from guided_diffusion.errors import InputError
from guided_diffusion.methods.registry import METHODS
from guided_diffusion.training.settings import training_settings
from tests.mpi import ROOT
from tests.training_runs import SCRIPT, environment, run


class TestFlags:
    def test_published_defaults(self):
        settings = training_settings({"data_dir": "data"})
        options = settings.optimisation
        assert (options.lr, options.weight_decay, options.lr_anneal_steps) == (1e-4, 0.0, 0)
        assert (options.batch_size, options.microbatch, options.ema_rate) == (1, -1, "0.9999")
        assert (options.schedule_sampler, options.fp16_scale_growth) == ("uniform", 1e-3)
        assert (settings.run.log_interval, settings.run.save_interval) == (10, 10000)
        assert settings.model == ModelConfig()
        assert settings.diffusion == DiffusionConfig()
        assert settings.crop_size == (96, 96, 96)

    def test_rates_of_averages_are_the_same_however_they_are_written(self):
        settings = training_settings({"data_dir": "data", "ema_rate": "0.90, .99,9e-1"})
        assert settings.ema_rates == ("0.9", "0.99", "0.9")
        assert settings.optimisation.ema_rate == "0.9,0.99,0.9"

    def test_presets_and_what_goes_before_them(self):
        settings = training_settings({"preset": "demo", "data_dir": "data", "num_res_blocks": 2, "lr": 1e-5})
        assert settings.model == ModelConfig(**(vars(DEMO_MODEL) | {"num_res_blocks": 2}))
        assert settings.diffusion == DEMO_DIFFUSION
        assert settings.sampler == DEMO_SAMPLER
        assert settings.preprocessing == DEMO_PREPROCESSING
        assert settings.preprocessing.voxel_mm == (3.3, 3.3, 3.3)
        assert settings.optimisation.lr == 1e-5

    def test_small_presets_differ_in_nothing_but_method_and_network(self):
        """And their networks are of one size: the generator's, for the adversarial one."""
        methods = ("ddpm2d", "ddpm3d", "gan3d", "unet3d")
        runs = {name: training_settings({"preset": f"small_{name}", "data_dir": "data"}) for name in methods}
        shared = {(s.data, replace(s.optimisation, method=""), s.run, s.diffusion, s.crop_size) for s in runs.values()}
        assert len(shared) == 1
        sizes = {}
        for name, settings in runs.items():
            assert settings.optimisation.method == name
            with torch.device("meta"):
                network = METHODS[name].create_model(settings.model, settings.diffusion)
            sizes[name] = sum(parameter.numel() for parameter in network.parameters())
        assert sizes == {"ddpm2d": 1_618_625, "ddpm3d": 1_685_569, "gan3d": 1_684_705, "unet3d": 1_684_705}
        assert max(sizes.values()) < 1.05 * min(sizes.values())
        assert {settings.preprocessing.overlap for settings in runs.values()} == {0, 10}

    @pytest.mark.parametrize(
        ("flags", "complaint"),
        [
            ({"data_dir": ""}, "--data_dir is missing"),
            ({"crop_size": "96,96"}, "--crop_size '96,96' is not a comma list of three"),
            (
                {"preset": "local", "crop_size": "24,24,21"},
                "--crop_size 24,24,21: all three must be multiples of 8 for --method local3d",
            ),
            ({"fp16_scale_growth": 0.0}, "--fp16_scale_growth 0.0: above 0, at most 10"),
            ({"fp16_scale_growth": 2000.0}, "--fp16_scale_growth 2000.0: above 0, at most 10"),
            ({"crop_size": "20,16,16"}, "--crop_size 20,16,16: X and Y must be multiples of 8"),
            ({"voxel_mm": "3.3"}, "--voxel_mm '3.3' is not"),
            ({"batch_size": 0}, "--batch_size 0: must be positive"),
            ({"lr": -1.0}, "--lr -1.0: must be positive"),
            ({"max_steps": -1}, "--max_steps -1: must be 0 or more"),
            ({"max_minutes": float("nan")}, "--max_minutes nan: must be 0 or more"),
            ({"class_cond": True}, "--class_cond True: pairs have no class labels"),
            ({"hot_crop_share": 1.5}, "--hot_crop_share 1.5: from 0 to 1"),
            ({"coarse_crop_share": -0.5}, "--coarse_crop_share -0.5: from 0 to 1"),
            ({"precision": "int8"}, "--precision 'int8' is unknown"),
            ({"ema_rate": "0.9,one"}, "--ema_rate '0.9,one'"),
            ({"ema_rate": "0,9"}, "--ema_rate '0,9' is not .* with decimal points"),
            ({"seed": 2**63}, "--seed 9223372036854775808: from 0 to below 2\\^63"),
            ({"loader_threads": 100_000}, "--loader_threads 100000: at most 1024"),
            ({"ema_rate": "1.0"}, "--ema_rate '1.0'"),
        ],
    )
    def test_mistakes(self, flags, complaint):
        with pytest.raises(InputError, match=complaint):
            training_settings({"data_dir": "data", "channel_mult": "1,1,1,1", "crop_size": "16,16,16"} | flags)

    def test_unknown_schedule_sampler(self, data_dir, tmp_path):
        with pytest.raises(InputError, match="--schedule_sampler 'best' is unknown"):
            run(data_dir, tmp_path, schedule_sampler="best")

    def test_maps_for_which_gradients_in_bfloat16_are_wrong(self, data_dir, tmp_path):
        """Of a local network with two levels, which halve all axes: 8 slices become 4, and then 2."""
        local = {"method": "local3d", "resblock_updown": False, "add_low_res": False, "predict_xstart": False}
        local |= {"attention_resolutions": "16,8", "max_steps": 2, "precision": "bfloat16"}
        with pytest.raises(InputError, match=r"--precision bfloat16: on a CPU .* maps of two slices"):
            run(data_dir, tmp_path / "refused", **local, crop_size="16,16,8")
        for number, other in enumerate(({"crop_size": "16,16,16"}, {"crop_size": "16,16,8", "precision": "float32"})):
            run(data_dir, tmp_path / str(number), **local | other)
            assert (tmp_path / str(number) / "model000002.pt").exists()

    def test_loss_that_explodes(self, data_dir, tmp_path):
        with pytest.raises(InputError, match="is not finite; lower --lr"):
            run(data_dir, tmp_path, max_steps=20, lr=1e20)


class TestCommand:
    def call(self, *words):
        return subprocess.run(
            [sys.executable, str(SCRIPT), *map(str, words)],
            cwd=ROOT,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=120,
        )

    def test_a_mistake_is_one_line_and_exit_code_2(self, tmp_path):
        result = self.call("--data_dir", tmp_path / "missing", "--save_dir", tmp_path / "run")
        assert result.returncode == 2
        assert result.stderr.count("\n") == 1
        assert "missing: no such folder" in result.stderr

    @pytest.mark.parametrize(("words", "folder"), [((), "logs"), (("--save_dir", "given"), "given")])
    def test_the_environment_names_the_folder_as_in_the_published_code(
        self, tmp_path, monkeypatch, caplog, words, folder
    ):
        used = []
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("OPENAI_LOGDIR", "logs")
        monkeypatch.setattr(sys, "argv", ["train.py", "--data_dir", "data", *words])
        monkeypatch.setattr(train_command, "train_with", lambda settings, path: used.append((settings.run, path)))
        with caplog.at_level("INFO"):
            train_command.train(train_command.create_parser("test"))
        ((run_flags, path),) = used
        assert (run_flags.save_dir, path) == (folder, Path(folder))
        assert ("--save_dir logs, as OPENAI_LOGDIR says" in caplog.messages) == (folder == "logs")

    def test_help_explains_every_flag(self, capsys):
        with pytest.raises(SystemExit) as stop:
            train_command.create_parser("Train.").parse_args(["--help"])
        assert stop.value.code == 0
        text = capsys.readouterr().out
        for group in ("data:", "optimisation:", "run:", "network:", "diffusion:"):
            assert group in text
        explained = {part.split()[0]: " ".join(part.split()) for part in text.split("\n  --")[1:]}
        for flag, default in (("lr", "0.0001"), ("crop_size", "96,96,96"), ("num_channels", "128")):
            assert explained[flag].endswith(f"(default: {default})")


def test_the_local_preset_is_the_network_and_grid_that_are_shipped():
    settings = training_settings({"preset": "local", "data_dir": "pairs"})
    assert settings.optimisation.method == "local3d"
    assert settings.model == LOCAL_MODEL
    assert settings.preprocessing == LOCAL_PREPROCESSING
    assert settings.crop_size == (40, 40, 40)


def test_the_log_lists_the_flags_of_the_preset(data_dir, tmp_path, caplog):
    caplog.set_level(logging.INFO, "guided_diffusion")
    run(data_dir, tmp_path / "run", preset="local", method="ddpm3d", max_steps=1)
    assert any(
        line.startswith("--preset local: ") and "--method local3d --voxel_mm 2.5,2.5,2.5 --suv_max 64.0" in line
        for line in caplog.messages
    )


def test_without_validation_pairs_the_log_says_what_is_missing(data_dir, tmp_path, caplog):
    shutil.copytree(data_dir, tmp_path / "pairs", ignore=shutil.ignore_patterns("*.csv"))
    caplog.set_level(logging.INFO, "guided_diffusion")
    run(tmp_path / "pairs", tmp_path / "run", max_steps=1, validation_interval=1)
    assert "no validation pairs, so no scores and no ema_*_best.pt; --validation_dir names some" in caplog.messages


def test_a_missing_folder_of_validation_is_named_by_its_flag(data_dir, tmp_path):
    with pytest.raises(InputError, match=r"missing: no such folder; --validation_dir is a folder of"):
        run(data_dir, tmp_path / "run", validation_dir=str(tmp_path / "missing"), validation_interval=1)


def test_a_pair_in_place_of_a_folder_is_said_to_be_a_file(tmp_path):
    (tmp_path / "pair.npz").touch()
    with pytest.raises(InputError, match=r"pair\.npz: is a file; --data_dir is a folder of \.npz pairs or a virtual"):
        run(tmp_path / "pair.npz", tmp_path / "run")


def test_pairs_of_validation_are_not_trained_on(data_dir, tmp_path, caplog):
    caplog.set_level(logging.INFO, "guided_diffusion")
    pairs = tmp_path / "pairs"
    shutil.copytree(data_dir, pairs, ignore=shutil.ignore_patterns("*.csv"))
    (pairs / "val").mkdir()
    (pairs / "validation.npz").rename(pairs / "val" / "validation.npz")
    run(pairs, tmp_path / "run", validation_dir=str(pairs / "val"), max_steps=1)
    assert "notice: 1 pair(s) are for validation, so they are not trained on" in caplog.messages
    assert any("2 pairs of 2 subjects" in line for line in caplog.messages)
    with pytest.raises(InputError, match=r"pairs: every pair to train on is one for validation too"):
        run(pairs, tmp_path / "all", validation_dir=str(pairs), max_steps=1)


def test_a_subject_in_both_splits_is_told_of(data_dir, tmp_path, caplog):
    caplog.set_level(logging.INFO, "guided_diffusion")
    pairs = tmp_path / "pairs"
    shutil.copytree(data_dir, pairs)
    manifest = pairs / "manifest.csv"
    manifest.write_text(manifest.read_text().replace("validation,0.05", "train_1,0.05"))
    run(pairs, tmp_path / "run", max_steps=1)
    assert "notice: 1 subject(s) have pairs for training and for validation: train_1" in caplog.messages
