"""A rank that stands still ends the job with one line; slow ranks and stopped jobs do not."""

import math
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from guided_diffusion.errors import InputError
from guided_diffusion.ranks.stalls import stated_seconds, watching
from tests.denoising import arguments_of, flags_of
from tests.mpi import MPIEXEC, ROOT, needs_mpiexec, pid_of_rank
from tests.training_runs import TINY

HANGING = """
import os, sys, time
from guided_diffusion.dist_util import communicator, meet, run_main
from guided_diffusion.ranks.stalls import sign_of_life, watching, working

def main():
    with watching({seconds}):
        rank = communicator().rank
        with working(f"the task of {{rank}}"):
            for step in range(3):
                time.sleep(0.1)
                sign_of_life()
            if rank == {hanging}:
                time.sleep({hang})
        meet()
    if rank == 0:
        print("done")

run_main(main)
"""


FOLLOWED = """
import time
from guided_diffusion.dist_util import communicator, meet, on_root, run_main
from guided_diffusion.ranks import stalls

stalls.LEAST_SECONDS = 1.0

def main():
    with stalls.watching(None):
        for _ in range(2):
            with stalls.watching(None), stalls.working("a denoising"):
                stalls.sign_of_life()
        on_root(time.sleep, 5)
        stalls.LEAST_SECONDS = 60.0  # to end on a busy machine
    if communicator().rank == 0:
        print("done")

run_main(main)
"""


STOPPING = """
import os, signal, sys, time
from guided_diffusion.dist_util import meet, run_main
from guided_diffusion.ranks import stalls

stalls.LEAST_SECONDS = {least}

def stop_in(here):
    of_launcher = os.environ.get("PMI_RANK") or os.environ["OMPI_COMM_WORLD_RANK"]
    if here == "{where}" and of_launcher == "{rank}":
        os.kill(os.getpid(), signal.SIGSTOP)

def main():
    stop_in("before MPI starts")
    with stalls.watching({seconds}):
        stop_in("before any task")
        meet()
    stop_in("after the work")

run_main(main)
"""


def start(*command, ranks):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [MPIEXEC, "-n", str(ranks), sys.executable, *map(str, command)],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def hang(tmp_path, *, seconds, hanging, hang, ranks=3):
    script = tmp_path / "hang.py"
    script.write_text(HANGING.format(seconds=seconds, hanging=hanging, hang=hang))
    with start(script, ranks=ranks) as process:
        out, err = process.communicate(timeout=90)
    return process.returncode, out, err


def stop_when(ready, process, rank):
    """Stop a rank once the run is that far; returns the time then."""
    try:
        for _ in range(3600):
            if ready():
                os.kill(pid_of_rank(process.pid, rank), signal.SIGSTOP)
                return time.monotonic()
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.05)
        raise AssertionError("the run did not get that far")
    except BaseException:
        process.terminate()
        raise


def assert_ended(process, rank, within, began):
    try:
        _, err = process.communicate(timeout=within + 60)
    finally:
        process.terminate()
    assert process.returncode > 0, err  # mpiexec adds the signal that ended the stopped rank
    assert time.monotonic() - began < within
    told = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(told) == 1, err
    assert f"rank {rank} on {os.uname().nodename} stands still (no sign of life for" in told[0]
    assert "Traceback" not in err
    return told[0]


@needs_mpiexec
def test_work_after_an_inner_watch_is_not_ended(tmp_path):
    """As the second denoising and the report of a command that denoises twice."""
    script = tmp_path / "followed.py"
    script.write_text(FOLLOWED)
    with start(script, ranks=2) as process:
        out, err = process.communicate(timeout=90)
    assert process.returncode == 0, err
    assert out == "done\n"


@needs_mpiexec
@pytest.mark.parametrize("hanging", [0, 2])
def test_a_rank_whose_work_hangs_ends_the_job(tmp_path, hanging):
    code, out, err = hang(tmp_path, seconds=2, hanging=hanging, hang=600)
    assert code > 0  # mpiexec may add the signal that ended the others
    assert "done" not in out
    (line,) = (line for line in err.splitlines() if line.startswith("error: "))
    assert f"rank {hanging} on {os.uname().nodename} stands still (no step for " in line
    assert f"at the task of {hanging};" in line


@needs_mpiexec
@pytest.mark.parametrize("seconds", [0, 20, None])
def test_a_rank_that_is_slow_is_waited_for(tmp_path, seconds):
    code, out, err = hang(tmp_path, seconds=seconds, hanging=1, hang=4)
    assert (code, out.strip(), err) == (0, "done", "")


@needs_mpiexec
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(
    ("where", "says"),
    [
        ("before MPI starts", r"not all of the 2 ranks have started after 3 s \(rank \d on {host} waited for them\)"),
        ("before any task", r"rank {rank} on {host} stands still \(no sign of life for \d+ s\) at no task"),
        ("after the work", r"the ranks have not ended 3 s after their work \(rank \d on {host} waited for them\)"),
    ],
)
def test_a_rank_that_is_stopped_at_whatever_moment_ends_the_job(tmp_path, where, says, rank):
    script = tmp_path / "stop.py"
    script.write_text(STOPPING.format(where=where, rank=rank, seconds=3, least=3))
    with start(script, ranks=2) as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode > 0
    (line,) = (line for line in err.splitlines() if line.startswith("error: "))
    assert re.search(says.format(host=re.escape(os.uname().nodename), rank=rank), line), line


@needs_mpiexec
@pytest.mark.parametrize("seconds", ["None", "0", "20"])
def test_nothing_is_said_of_ranks_that_end_in_time(tmp_path, seconds):
    script = tmp_path / "stop.py"
    script.write_text(STOPPING.format(where="nowhere", rank=-1, seconds=seconds, least=60))
    with start(script, ranks=2) as process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "", "")


@pytest.mark.parametrize(("met", "code"), [(True, 0), (False, -signal.SIGKILL)])
def test_a_deadline_ends_a_process_that_runs_no_python(met, code):
    """PyDLL keeps the interpreter's lock, as MPI's start does."""
    script = (
        "import ctypes\nfrom guided_diffusion.ranks.deadline import Deadline\ndeadline = Deadline(2, 'too late')\n"
        f"if {met}: deadline.met()\nctypes.PyDLL(None).sleep(4)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (code, "" if met else "too late\n")


@pytest.mark.parametrize(
    ("arguments", "seconds"),
    [
        ([], None),
        (["--stall_seconds", "5", "--other", "x"], 5),
        (["--stall_seconds", "x"], None),
        (["--stall_seconds"], None),
    ],
)
def test_the_bound_is_known_before_flags_are_parsed_together(arguments, seconds):
    assert stated_seconds(arguments) == seconds


def test_a_bound_that_is_no_time_is_refused():
    for seconds in (-1, math.nan, math.inf):
        with pytest.raises(InputError, match=f"--stall_seconds {seconds}: must be 0 or more"), watching(seconds):
            pass


@needs_mpiexec
@pytest.mark.parametrize(("rank", "fuse"), [(0, "end"), (1, "each_step")])
def test_a_stopped_rank_ends_denoising(small, tmp_path, rank, fuse):
    more = ("--fuse", fuse, "--timestep_respacing", "400", "--stall_seconds", 5)
    process = start("scripts/test.py", *arguments_of(small / "scan.npz", small / "small.pt", tmp_path, *more), ranks=2)
    began = stop_when(lambda: _is_at_work(tmp_path), process, rank)
    line = assert_ended(process, rank, 40, began)
    assert re.search(r" at (slices \d+ and on of realisation 0|no task that it told of);", line)
    assert not list(tmp_path.glob("samples*"))


def _is_at_work(folder):
    log = folder / "log.txt"  # which is opened just before the ranks are watched
    return log.exists() and time.time() - log.stat().st_mtime > 3


@needs_mpiexec
def test_a_stopped_rank_ends_training(data_dir, tmp_path):
    flags = TINY | {"data_dir": data_dir, "save_dir": tmp_path, "stall_seconds": 5}
    process = start("scripts/train.py", *flags_of(flags), ranks=2)
    table = tmp_path / "progress.csv"
    began = stop_when(lambda: table.exists() and table.read_text().count("\n") > 3, process, 1)
    line = assert_ended(process, 1, 40, began)
    assert re.search(r" at (step \d+|no task that it told of)", line)
