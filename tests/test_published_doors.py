"""Scripts written for the published implementation run on this package as they are."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from guided_diffusion import fp16_util, logger, train_util, unet
from guided_diffusion.dist_util import dev, load_state_dict
from guided_diffusion.errors import InputError
from guided_diffusion.script_util import sr_create_model_and_diffusion
from tests.denoising import GOLDEN_FLAGS, flags_of
from tests.golden_weights import GOLDEN, fill
from tests.mpi import MPIEXEC, ROOT, needs_mpiexec, run_script, succeed

SCRIPT = "tests/published_style/sample_volume.py"


@needs_mpiexec
def test_a_published_script_gives_the_published_volume_on_two_ranks(golden_files, tmp_path):
    subject, weights = golden_files
    flags = flags_of(GOLDEN_FLAGS | {"timestep_respacing": "4"})
    files = ("--base_samples", subject, "--model_path", weights, "--save_dir", tmp_path)
    succeed(SCRIPT, *files, *flags, ranks=2, timeout=900)
    ours = np.load(tmp_path / "samples.npz")["arr_0"]
    np.testing.assert_allclose(ours, np.load(GOLDEN / "end_to_end.npz")["output"], rtol=0, atol=1e-3)
    log = (tmp_path / "log.txt").read_text()
    assert log.count("patch 0 of 6") == 1
    assert "sampling complete" in log


@needs_mpiexec
def test_an_exception_in_a_published_script_ends_all_ranks(tmp_path):
    """The others wait in a collective call for the rank that failed."""
    script = tmp_path / "fails.py"
    script.write_text(
        "import torch.distributed as dist\nfrom guided_diffusion import dist_util\n"
        "dist_util.setup_dist()\n"
        "if dist.get_rank() == 1:\n    raise ValueError('on rank 1 only')\n"
        "dist.barrier()\n"
    )
    done = run_script(str(script), ranks=2, timeout=120)
    assert done.returncode != 0
    assert "on rank 1 only" in done.stderr


def test_weights_and_their_device(golden_files):
    state_dict = load_state_dict(golden_files[1], map_location="cpu")
    model, _ = sr_create_model_and_diffusion(**GOLDEN_FLAGS)
    expected = fill(model).state_dict()
    assert list(state_dict) == list(expected)
    assert all(torch.equal(state_dict[name], value) for name, value in expected.items())
    assert dev() == torch.device("cuda" if torch.cuda.is_available() else "cpu", *([0] if dev().type == "cuda" else []))


def test_half_precision_is_near_single_precision(monkeypatch):
    monkeypatch.setattr(unet, "has_bfloat16", lambda _place: True)
    model, _ = sr_create_model_and_diffusion(**GOLDEN_FLAGS)
    fill(model)
    rng = torch.Generator().manual_seed(0)
    x, low_res = torch.randn(2, 1, 1, 4, 16, 16, generator=rng)
    with torch.no_grad():
        single = model(x, torch.tensor([5]), low_res=low_res)
        model.convert_to_fp16()
        half = model(x, torch.tensor([5]), low_res=low_res)
        assert model.dtype in (torch.bfloat16, torch.float16)
        model.convert_to_fp32()
        again = model(x, torch.tensor([5]), low_res=low_res)
    assert not torch.equal(half, single)
    torch.testing.assert_close(half, single, rtol=0, atol=0.1 * single.abs().max().item())
    torch.testing.assert_close(again, single, rtol=0, atol=0.1 * single.abs().max().item())


def test_a_cpu_without_bfloat16_keeps_single_precision(monkeypatch):
    monkeypatch.setattr(unet, "has_bfloat16", lambda _place: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    model, _ = sr_create_model_and_diffusion(**GOLDEN_FLAGS)
    model.convert_to_fp16()
    assert model.dtype == torch.float32


def test_the_log_goes_where_it_is_configured(tmp_path):
    logger.configure(str(tmp_path / "first"))
    logger.log("one")
    logger.configure(dir=str(tmp_path / "second"))
    logger.log("two")
    assert logger.get_dir() == str(tmp_path / "second")
    assert (tmp_path / "first" / "log.txt").read_text().rstrip().endswith("one")
    assert (tmp_path / "second" / "log.txt").read_text().rstrip().endswith("two")
    logger.configure()
    assert logger.get_dir() not in ("", str(tmp_path / "second"))


def test_lines_and_folders_as_published_scripts_give_them(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_LOGDIR", str(tmp_path / "logs"))
    logger.configure()
    logger.log("patch", 3, "of", 7, level=30)
    logger.log("created 2 samples\n")
    assert logger.get_dir() == str(tmp_path / "logs")
    lines = (tmp_path / "logs" / "log.txt").read_text().splitlines()
    assert [line.split(" ", 2)[2] for line in lines] == ["patch 3 of 7", "created 2 samples"]
    logger.configure(str(tmp_path / "end"))


def test_convolutions_alone_change_their_precision():
    network = torch.nn.Sequential(torch.nn.Conv3d(1, 2, 1), torch.nn.GroupNorm(1, 2))
    network.apply(fp16_util.convert_module_to_f16)
    assert [parameter.dtype for parameter in network.parameters()] == 2 * [torch.float16] + 2 * [torch.float32]
    network.apply(fp16_util.convert_module_to_f32)
    assert all(parameter.dtype == torch.float32 for parameter in network.parameters())


@pytest.mark.parametrize("door", [fp16_util.MixedPrecisionTrainer, train_util.TrainLoop])
def test_what_a_door_cannot_serve_is_said_in_one_line(door):
    with pytest.raises(InputError, match=r"is not served.*scripts/train\.py"):
        door(model=None)


@pytest.mark.parametrize(
    ("name", "step"), [("runs/model000200.pt", 200), ("model1.pt", 1), ("ema_0.9_000200.pt", 0), ("modelx.pt", 0)]
)
def test_the_step_in_a_name(name, step):
    assert train_util.parse_resume_step_from_filename(name) == step


@needs_mpiexec
@pytest.mark.parametrize("rank", [0, 1])
def test_an_interrupt_of_any_rank_ends_all(tmp_path, rank):
    """Rank 1 computes for ever, rank 0 waits for it without a word."""
    script = tmp_path / "works.py"
    script.write_text(
        "import os, pathlib, sys, time\nfrom guided_diffusion.dist_util import communicator, meet, run_main\n"
        "def main():\n"
        "    rank = communicator().rank\n"
        "    pathlib.Path(sys.argv[1], str(rank)).write_text(str(os.getpid()))\n"
        "    while rank == 1:\n        time.sleep(0.01)\n"
        "    meet()\n"
        "run_main(main)\n"
    )
    command = [MPIEXEC, "-n", "2", sys.executable, str(script), str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as job:
        pids = [_pid(tmp_path / str(number)) for number in range(2)]
        os.kill(pids[rank], signal.SIGINT)
        _, errors = job.communicate(timeout=60)
    assert job.returncode != 0
    assert "interrupted" in errors


def _pid(path):
    """What a rank wrote of itself, once it is there."""
    deadline = time.monotonic() + 60
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return int(path.read_text())
