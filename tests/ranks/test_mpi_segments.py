"""MPICH's shared memory: no names of it stay, and those of killed processes do no harm."""

import re
import signal
import subprocess
import sys

import pytest

from guided_diffusion.dist_util import communicator
from tests.mpi import ROOT, needs_mpiexec, run_script

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


def uses_mpich():
    comm = communicator()
    if comm.size != 1 or not hasattr(comm, "Get_name"):
        return False
    from mpi4py import MPI

    return MPI.get_vendor()[0] == "MPICH"


@needs_mpiexec
@pytest.mark.parametrize("ranks", [0, 2])
def test_a_killed_run_leaves_no_names(ranks, tmp_path):
    script = tmp_path / "killed.py"
    script.write_text(KILLED.format(before=""))
    done = run_script(script, ranks=ranks)
    assert done.returncode != 0
    told = re.findall(r"^names left: (.*)$", done.stdout, flags=re.MULTILINE)  # mpiexec adds lines of its own
    assert told == [" ".join(max(ranks, 1) * ["0"])], done.stderr


@pytest.mark.skipif(not uses_mpich(), reason="MPICH names its files so")
def test_what_a_killed_process_of_the_same_number_left_is_not_waited_for():
    left = "(Path('/dev/shm') / f'mpich_shm_{os.getpid():x}_0').write_bytes(bytes(1_061_440))"
    command = [sys.executable, "-c", KILLED.format(before=left)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "names left: 0\n"), done.stderr
