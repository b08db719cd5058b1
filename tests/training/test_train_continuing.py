"""Runs of training that end and go on: to the same bits, and only where they may."""

import os
import signal
import subprocess
import sys

import pytest
import torch

from guided_diffusion.checkpoints import read_plain, save_plain
from guided_diffusion.errors import InputError
from guided_diffusion.script_util import create_model
from guided_diffusion.training.loop import TrainingRun
from guided_diffusion.training.settings import training_settings
from tests.mpi import ROOT
from tests.processors import REDUCED
from tests.training_runs import SCRIPT, TINY, assert_same_weights, environment, rows, run, wait_for, weights


def _killed(*_):
    raise AssertionError("the signal would have ended the process")


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
            {"precision": REDUCED, "microbatch": 1, "grad_clip": 0.01},
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
        (tmp_path / "run" / "digests000002.json").unlink()
        run(data_dir, tmp_path / "run", max_steps=3, resume_checkpoint=str(tmp_path / "run" / "model000002.pt"))
        again = weights(tmp_path / "run" / "model000003.pt")
        assert all(torch.equal(again[name], expected[name]) for name in expected)

    def test_killed_process_continues_with_the_same_command(self, data_dir, tmp_path):
        flags = TINY | {"data_dir": data_dir, "save_interval": 5, "max_steps": 5000}
        command = [sys.executable, str(SCRIPT)]
        command += [str(part) for name, value in flags.items() for part in (f"--{name}", value)]
        command += ["--save_dir", str(tmp_path / "killed")]
        with subprocess.Popen(command, cwd=ROOT, env=environment(), stderr=subprocess.DEVNULL) as process:
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
        with subprocess.Popen(command, cwd=ROOT, env=environment(), stderr=subprocess.PIPE, text=True) as process:
            wait_for(tmp_path / "run" / "progress.csv", process, lines=3)
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=60)
        assert process.returncode == 0
        assert "SIGTERM: ending after this step" in errors
        steps = len(rows(tmp_path / "run" / "progress.csv"))
        assert (tmp_path / "run" / f"opt{steps:06d}.pt").exists()

    def test_an_announcement_that_comes_again_while_the_run_saves_does_not_end_it(
        self, data_dir, tmp_path, monkeypatch
    ):
        save = TrainingRun._save
        before = signal.getsignal(signal.SIGUSR2)

        def save_when_told_again(training):
            os.kill(os.getpid(), signal.SIGUSR2)
            save(training)

        monkeypatch.setattr(TrainingRun, "_save", save_when_told_again)
        # In the place of the default, which would end the tests.
        signal.signal(signal.SIGUSR2, _killed)
        try:
            run(data_dir, tmp_path / "run", max_steps=2)
        finally:
            signal.signal(signal.SIGUSR2, before)
        assert (tmp_path / "run" / "opt000002.pt").exists()

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
        settings = training_settings(TINY | {"data_dir": str(data_dir)})
        state = create_model(settings.model, settings.diffusion).state_dict()
        save_plain(tmp_path / "model.pt", state)
        run(data_dir, tmp_path / "run", max_steps=1, lr=1e-12, resume_checkpoint=str(tmp_path / "model.pt"))
        torch.testing.assert_close(weights(tmp_path / "run" / "model000001.pt"), state, rtol=0, atol=1e-10)

    def test_a_published_run_is_not_continued(self, data_dir, tmp_path):
        """Its `opt######.pt` is the state of a plain AdamW."""
        settings = training_settings(TINY | {"data_dir": str(data_dir)})
        model = create_model(settings.model, settings.diffusion)
        save_plain(tmp_path / "model000100.pt", model.state_dict())
        save_plain(tmp_path / "opt000100.pt", torch.optim.AdamW(model.parameters()).state_dict())
        with pytest.raises(InputError, match=r"opt000100\.pt: of another program.* copy model000100\.pt"):
            run(data_dir, tmp_path / "run", resume_checkpoint=str(tmp_path / "model000100.pt"))

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
