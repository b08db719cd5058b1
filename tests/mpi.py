"""Running the project's scripts as their users do: as processes, with and without mpiexec."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MPIEXEC = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")

needs_mpiexec = pytest.mark.skipif(MPIEXEC is None, reason="no mpiexec on this machine")


def run_script(
    script: str, *args: object, ranks: int = 0, timeout: float = 300, path: Path = ROOT, **variables: str
) -> subprocess.CompletedProcess:
    """Run a script from the repository's root; ranks 0 means without mpiexec.

    path: goes before installed packages. variables: of the environment.
    """
    launcher = [MPIEXEC, "-n", str(ranks)] if ranks else []
    environment = os.environ | {"PYTHONPATH": f"{path}{os.pathsep}{ROOT}"} | variables
    return subprocess.run(
        [*launcher, sys.executable, script, *map(str, args)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def succeed(script: str, *args: object, **how: object) -> subprocess.CompletedProcess:
    """`run_script` that must exit with 0."""
    done = run_script(script, *args, **how)
    assert done.returncode == 0, done.stderr
    return done


def assert_refused(done: subprocess.CompletedProcess, *words: str) -> None:
    """Exit code 2 and one line on stderr that has these words; no traceback.

    What Open MPI's launcher adds, a paragraph between lines of dashes, is not the project's.
    """
    assert done.returncode == 2, done.stderr
    lines = re.sub(r"^-{60,}$.*?^-{60,}$", "", done.stderr, flags=re.MULTILINE | re.DOTALL).strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    for word in words:
        assert word in lines[0]


def pid_of_rank(launcher, rank):
    """The process of a rank below an `mpiexec`, once it is there."""
    for _ in range(600):
        for entry in os.listdir("/proc"):
            if entry.isdecimal() and _rank_below(int(entry), launcher) == rank:
                return int(entry)
        time.sleep(0.05)
    raise AssertionError(f"rank {rank} did not appear")


def _rank_below(process, launcher):
    """The rank of a Python process that descends from `launcher`, None for another process.

    By the variables that MPICH's launcher and Open MPI's set.
    """
    try:
        with open(f"/proc/{process}/cmdline", "rb") as file:
            if b"deadline.py" in file.read():
                return None
        with open(f"/proc/{process}/environ", "rb") as file:
            found = re.search(rb"(?:^|\0)(?:PMI|OMPI_COMM_WORLD)_RANK=(\d+)", file.read())
        parent = process
        while parent > 1 and parent != launcher:
            with open(f"/proc/{parent}/stat") as file:
                parent = int(file.read().rpartition(")")[2].split()[1])
    except OSError:
        return None
    return int(found[1]) if found and parent == launcher else None
