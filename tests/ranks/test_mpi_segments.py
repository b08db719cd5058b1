"""MPICH's shared memory: no names of it stay, those of killed processes do no harm, and a lack of it is told."""

import os
import re
import shutil
import signal
import subprocess
import sys

import pytest

from tests.mpi import MPIEXEC, ROOT, needs_mpiexec, run_script

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="shared memory is in /dev/shm")

KILLED = """
import os, re, signal
from pathlib import Path
from guided_diffusion.dist_util import communicator, meet
{before}
comm = communicator()
mapped = set(re.findall(r"/dev/shm/mpich_shm_\\w+", Path("/proc/self/maps").read_text()))
told = comm.gather(len([name for name in mapped if Path(name).exists()]))
if comm.bcast(7) == 7 and comm.rank == 0:
    print("names left:", *told, flush=True)
meet()
os.kill(os.getpid(), signal.SIGKILL)
"""


# Without a variable that states a rank, MPI is not started.
RANK = {"LOCAL_RANK": "0"}


def uses_mpich():
    code = "import mpi4py; mpi4py.rc.initialize = False; from mpi4py import MPI; print(MPI.get_vendor()[0])"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "MPICH"


@needs_mpiexec
@pytest.mark.parametrize("ranks", [0, 2])
def test_a_killed_run_leaves_no_names(ranks, tmp_path):
    script = tmp_path / "killed.py"
    script.write_text(KILLED.format(before=""))
    done = run_script(script, ranks=ranks, **RANK)
    assert done.returncode != 0
    told = re.findall(r"^names left: (.*)$", done.stdout, flags=re.MULTILINE)  # mpiexec adds lines of its own
    assert told == [" ".join(max(ranks, 1) * ["0"])], done.stderr


@pytest.mark.skipif(not uses_mpich(), reason="MPICH names its files so")
def test_what_a_killed_process_of_the_same_number_left_is_not_waited_for():
    left = "(Path('/dev/shm') / f'mpich_shm_{os.getpid():x}_0').write_bytes(bytes(1_061_440))"
    command = [sys.executable, "-c", KILLED.format(before=left)]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | RANK, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "names left: 0\n"), done.stderr


def without_shared_memory(options, *command):
    """The end of a command that finds a tmpfs mounted with these options in the place of /dev/shm."""
    inside = f'mount -t tmpfs -o {options} tmpfs /dev/shm && exec "$@"'
    return subprocess.run(
        ["unshare", "--map-root-user", "--mount", "bash", "-c", inside, "bash", *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )


needs_mounts = pytest.mark.skipif(
    shutil.which("unshare") is None or without_shared_memory("ro", "true").returncode != 0,
    reason="this machine allows no mounts of one's own",
)
ASK = "from guided_diffusion.dist_util import communicator, run_main; run_main(lambda: print(communicator().size))"


@needs_mounts
@pytest.mark.parametrize("options", ["ro", "size=64k"])
def test_a_process_without_a_launcher_needs_none(options):
    done = without_shared_memory(options, sys.executable, "-c", ASK)
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr


@needs_mpiexec
@needs_mounts
@pytest.mark.skipif(not uses_mpich(), reason="other libraries have other needs")
@pytest.mark.parametrize(
    ("options", "reason"),
    [("ro", "/dev/shm cannot be written"), ("size=1m", "/dev/shm has 1.0 MiB, and 2 ranks take 1 MiB each")],
)
def test_ranks_that_lack_it_are_refused_in_one_line(options, reason):
    done = without_shared_memory(options, MPIEXEC, "-n", "2", sys.executable, "-c", ASK)
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if line]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith(f"error: MPI needs shared memory: {reason}; start the container with --shm-size 1g")
