"""Training on several ranks, by value: what N ranks do is what one rank does with the N-fold batch."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from guided_diffusion.checkpoints import read_plain
from tests.mpi import MPIEXEC, ROOT, assert_refused, needs_mpiexec, pid_of_rank, run_script
from tests.processors import REDUCED
from tests.training_runs import TINY, TWO_STEPS, assert_same_weights, environment, rows, run, wait_for, weights

pytestmark = needs_mpiexec

JOBS = str(ROOT / "tests" / "train_jobs.py")

# The sampler that learns from the losses has to learn from those of all ranks; three crops in two micro-batches take a
# sum over the ranks in the second one only.
LEARNING = TWO_STEPS | {"schedule_sampler": "loss-second-moment", "save_interval": 1, "max_steps": 8}
SHARED = LEARNING | {"batch_size": 3, "microbatch": 2}
ALONE = LEARNING | {"batch_size": 6}
LOCAL = {
    "crop_size": "8,8,8", "low_res_scale": 16.0, "resblock_updown": False, "attention_resolutions": "16,8",
    "add_low_res": False, "predict_xstart": False,
}  # fmt: skip
FRUGAL = {"max_steps": 2, "precision": REDUCED, "dropout": 0.1}

finds_ranks = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds its ranks through /proc")


def train_jobs(folder, *jobs, ranks=2):
    """Trainings in one `mpiexec`."""
    (folder / "jobs").write_text("\n".join(json.dumps(TINY | job) for job in jobs))
    return run_script(JOBS, folder / "jobs", ranks=ranks, OMP_NUM_THREADS="1")


def launched(flags):
    """`scripts/train.py` on two ranks, running."""
    command = [MPIEXEC, "-n", "2", sys.executable, "scripts/train.py"]
    command += [str(part) for name, value in flags.items() for part in (f"--{name}", value)]
    return subprocess.Popen(command, cwd=ROOT, env=environment(), stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def trained(data_dir, tmp_path_factory):
    """Folders of runs: on two ranks whole, in parts, with activation checkpointing and without, and alone."""
    folder = tmp_path_factory.mktemp("ranks")
    shared = SHARED | {"data_dir": str(data_dir)}
    frugal = FRUGAL | {"data_dir": str(data_dir), "validation_interval": 2, "validation_crops": 1}
    done = train_jobs(
        folder,
        shared | {"save_dir": str(folder / "whole")},
        shared | {"save_dir": str(folder / "parts"), "max_steps": 7},
        shared | {"save_dir": str(folder / "parts")},
        frugal | {"save_dir": str(folder / "recomputed"), "use_checkpoint": True},
        frugal | {"save_dir": str(folder / "kept")},
    )
    assert done.returncode == 0, done.stderr
    run(data_dir, folder / "alone", **ALONE)
    return folder


class TestSameAsOneRank:
    def test_gradients(self, trained):
        """AdamW's first moment after one step is a tenth of the gradient."""
        one, two = (
            read_plain(str(trained / name / "opt000001.pt"))["optimiser"]["state"] for name in ("alone", "whole")
        )
        largest = max(float(state["exp_avg"].abs().max()) for state in one.values())
        assert one.keys() == two.keys()
        for number, state in one.items():
            torch.testing.assert_close(two[number]["exp_avg"], state["exp_avg"], rtol=0, atol=2e-6 * largest)

    def test_weights(self, trained):
        one, two = (weights(trained / name / "model000002.pt") for name in ("alone", "whole"))
        differences = torch.cat([(two[name] - one[name]).abs().flatten() for name in one])
        # AdamW divides by the gradient's size, so rounding moves single weights, whose gradient is about zero, by a
        # fraction of the learning rate of 1e-3; all of them together stay where they are.
        assert float(differences.max()) < 1e-4
        assert float(differences.mean()) < 2e-6

    def test_loss_curve_and_timesteps(self, trained):
        one, two = (rows(trained / name / "progress.csv") for name in ("alone", "whole"))
        assert len(one) == len(two) == 8
        for column in ("loss", "loss_q0", "loss_q2", "grad_norm"):
            alone, shared = ([float(row[column] or "nan") for row in table] for table in (one, two))
            np.testing.assert_allclose(shared, alone, rtol=1e-3)

    def test_what_the_sampler_has_learnt(self, trained):
        one, two = (read_plain(str(trained / name / "opt000008.pt"))["schedule_sampler"] for name in ("alone", "whole"))
        assert int(one["seen"].min()) >= 10
        assert torch.equal(two["seen"], one["seen"])
        torch.testing.assert_close(two["losses"], one["losses"], rtol=1e-3, atol=0)


class TestContinuing:
    def test_continued_run_equals_an_uninterrupted_one(self, trained):
        for name in ("model000008.pt", "ema_0.9_000008.pt", "ema_0.99_000008.pt"):
            assert_same_weights(trained / "whole" / name, trained / "parts" / name)

    def test_recomputed_activations_change_nothing(self, trained):
        assert_same_weights(trained / "kept" / "model000002.pt", trained / "recomputed" / "model000002.pt")

    def test_on_another_number_of_ranks(self, trained, data_dir, tmp_path, caplog):
        shutil.copytree(trained / "whole", tmp_path / "run")
        start = {"resume_checkpoint": str(tmp_path / "run" / "model000002.pt")}
        with caplog.at_level("INFO", "guided_diffusion"):
            run(data_dir, tmp_path / "run", **ALONE | start | {"max_steps": 3})
            losses = [rows(path / "progress.csv")[2]["loss"] for path in (trained / "alone", tmp_path / "run")]
            run(data_dir, tmp_path / "run", **ALONE | start | {"max_steps": 3, "batch_size": 2})
        assert caplog.text.count("2 rank(s) until now, 1 from here on") == 2
        notices = [record.message for record in caplog.records if "notice" in record.message]
        assert len(notices) == 2
        assert "crops_per_step" not in notices[0]
        assert "crops_per_step 6 -> 2" in notices[1]
        assert float(losses[1]) == pytest.approx(float(losses[0]), rel=1e-3)

    def test_one_rank_writes(self, trained):
        log = (trained / "kept" / "log.txt").read_text()
        assert log.count("4 crops per step on 2 rank(s)") == 1
        assert log.count("step 2: saved") == 1
        assert [row["step"] for row in rows(trained / "kept" / "progress.csv")] == ["1", "2"]
        assert len(rows(trained / "kept" / "validation.csv")) == 1


def test_draws_begin_with_the_regression_of_a_run_on_every_rank(data_dir, tmp_path):
    flags = {"data_dir": str(data_dir), "max_steps": 1} | LOCAL
    regression = flags | {"method": "local3d", "save_dir": str(tmp_path / "regression")}
    begun = tmp_path / "regression" / "model000001.pt"
    draws = flags | {"method": "local3d_draws", "save_dir": str(tmp_path / "draws"), "resume_checkpoint": str(begun)}
    done = train_jobs(tmp_path, regression, draws)
    assert done.returncode == 0, done.stderr
    after = weights(tmp_path / "draws" / "model000001.pt")
    assert all(torch.equal(after[f"regression.{name}"], value) for name, value in weights(begun).items())


class TestEndingTogether:
    def test_a_mistake_that_one_rank_meets(self, data_dir, tmp_path):
        flags = {"data_dir": str(data_dir), "save_dir": str(tmp_path / "run"), "mistake_of_item": 3}
        done = train_jobs(tmp_path, flags)
        assert done.returncode == 2
        lines = [line for line in done.stderr.splitlines() if "damaged" in line or "Traceback" in line]
        assert lines == ["error: item 3 is damaged"]
        assert not list((tmp_path / "run").glob("model*"))

    @finds_ranks
    def test_a_signal_to_any_rank(self, data_dir, tmp_path):
        folder = tmp_path / "run"
        flags = TINY | {"data_dir": data_dir, "save_dir": folder}
        with launched(flags) as process:
            wait_for(folder / "progress.csv", process, lines=3)
            os.kill(pid_of_rank(process.pid, 1), signal.SIGTERM)
            _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        assert "rank 1 was asked to stop: ending after this step" in errors
        steps = len(rows(folder / "progress.csv"))
        assert (folder / f"opt{steps:06d}.pt").exists()

    @pytest.mark.slow
    def test_a_loss_that_explodes(self, data_dir, tmp_path):
        flags = TINY | {"data_dir": data_dir, "save_dir": tmp_path / "run", "max_steps": 20, "lr": 1e20}
        words = [part for name, value in flags.items() for part in (f"--{name}", value)]
        done = run_script("scripts/train.py", *words, ranks=2, OMP_NUM_THREADS="1")
        assert done.returncode == 2
        assert done.stderr.count("is not finite; lower --lr") == 1
        assert "Traceback" not in done.stderr

    @pytest.mark.slow
    def test_a_mistake_of_the_command_line(self, tmp_path):
        done = run_script("scripts/train.py", "--data_dir", tmp_path / "missing", "--save_dir", tmp_path, ranks=2)
        assert_refused(done, "no such folder")


KILLED_LAST = 40


@pytest.fixture(scope="module")
def killed_flags(data_dir):
    """Of a run that lasts long enough to be killed after its first checkpoint."""
    return TINY | {"data_dir": data_dir, "max_steps": KILLED_LAST, "save_interval": 5, "dropout": 0.1}


@pytest.fixture(scope="module")
def never_killed(killed_flags, tmp_path_factory):
    """The folder of that run, left in peace."""
    folder = tmp_path_factory.mktemp("killed") / "whole"
    with launched(killed_flags | {"save_dir": folder}) as process:
        _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    return folder


@pytest.mark.slow
@finds_ranks
@pytest.mark.parametrize("ranks", [(1,), (0,), (0, 1)])
def test_killed_run_goes_on_with_the_same_command(never_killed, killed_flags, tmp_path, ranks):
    """Where one rank dies the other ends too, instead of waiting for it."""
    folder = tmp_path / "run"
    flags = killed_flags | {"save_dir": folder}
    with launched(flags) as process:
        wait_for(folder / "opt000005.pt", process)
        for pid in [pid_of_rank(process.pid, rank) for rank in ranks]:
            os.kill(pid, signal.SIGKILL)
        process.communicate(timeout=30)
    assert process.returncode != 0
    assert not (folder / f"opt{KILLED_LAST:06d}.pt").exists()
    with launched(flags) as process:
        _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    assert re.search(r"continuing .*model\d+\.pt at step", errors)
    for name in ("model", "ema_0.9_", "ema_0.99_"):
        assert_same_weights(*(path / f"{name}{KILLED_LAST:06d}.pt" for path in (never_killed, folder)))
    one, other = (
        [(row["step"], row["loss"], row["grad_norm"]) for row in rows(path / "progress.csv")]
        for path in (never_killed, folder)
    )
    assert one == other


@pytest.mark.slow
def test_killed_run_on_three_ranks(data_dir, tmp_path):
    """Of three numbers the order of summation matters: it must be the same after a start as in the middle of a run."""
    flags = {"data_dir": str(data_dir), "batch_size": 1, "max_steps": 6}
    done = train_jobs(
        tmp_path,
        flags | {"save_dir": str(tmp_path / "whole")},
        flags | {"save_dir": str(tmp_path / "parts"), "max_steps": 4},
        flags | {"save_dir": str(tmp_path / "parts")},
        ranks=3,
    )
    assert done.returncode == 0, done.stderr
    assert_same_weights(tmp_path / "whole" / "model000006.pt", tmp_path / "parts" / "model000006.pt")
