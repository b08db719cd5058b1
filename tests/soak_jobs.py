"""Runs of the scripts whose processes are known, so that each can be disturbed.

A run on one rank is forked from this process, which has loaded the libraries already; one on several is started by
`mpiexec`, and its processes are known by a mark in their environment.
"""

import multiprocessing
import os
import resource
import runpy
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path

from guided_diffusion.dist_util import communicator
from tests.mpi import MPIEXEC, ROOT

# Longer than any of these small runs takes on a busy machine, and a minute more for a rank that stops at its start.
SECONDS = 240.0


class ForkedJob:
    """A script on one rank, with its stderr in a file. file_bytes: no file may grow beyond this, as on a full disk."""

    def __init__(self, script: str, arguments: list[object], log: Path, file_bytes: int | None = None):
        self.log = log
        self._process = multiprocessing.get_context("fork").Process(
            target=_run, args=(script, list(map(str, arguments)), log, file_bytes)
        )
        self._process.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int:
        return self._process.exitcode

    def ranks(self) -> list[int]:
        return [self.pid] if self._process.is_alive() else []

    def send(self, process: int, number: signal.Signals) -> None:
        """A signal, if the process still lives."""
        if process in self.ranks():
            os.kill(process, number)

    def ends_within(self, seconds: float = SECONDS) -> bool:
        """Whether the job ends by itself; if not, it is killed."""
        self._process.join(seconds)
        ended = not self._process.is_alive()
        self.kill()
        return ended

    def left_behind(self) -> int:
        """How many names of its shared memory outlive the job; it has no other processes."""
        return len(list(Path("/dev/shm").glob(f"mpich_shm_{self.pid:x}_*")))

    def kill(self) -> None:
        if self._process.is_alive():
            self._process.kill()
        self._process.join()

    def says(self) -> str:
        """Everything on stderr."""
        return self.log.read_text(errors="replace")


def _run(script: str, arguments: list[str], log: Path, file_bytes: int | None) -> None:
    """In the forked process: the script as if it had been started. MPI's own files are made before the disk is full."""
    os.chdir(ROOT)
    for target, descriptor in ((log, 2), (os.devnull, 1)):
        opened = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(opened, descriptor)
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115 (it is this process's own for good)
    communicator()
    if file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
    sys.argv = [script, *arguments]
    runpy.run_path(script, run_name="__main__")


class Job:
    """A script on several ranks, as `ForkedJob`."""

    def __init__(self, script: str, arguments: list[object], ranks: int, log: Path):
        self._script = script
        self._seen: dict[int, str] = {}
        self._mark = f"SOAK_MARK={secrets.token_hex(8)}"
        self.log = log
        name, value = self._mark.split("=")
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", name: value}

        with log.open("wb") as stderr:
            self.process = subprocess.Popen(
                [MPIEXEC, "-n", str(ranks), sys.executable, script, *map(str, arguments)],
                cwd=ROOT,
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def exit_code(self) -> int:
        return self.process.returncode

    def processes(self) -> list[int]:
        """All processes of the job that live, also those that are ending and have no environment any more."""
        for folder in Path("/proc").glob("[0-9]*"):
            if self._is_ours(folder):
                self._seen[int(folder.name)] = _start_if_alive(int(folder.name))
        # Numbers are given again to others: the start tells whose they are.
        return [process for process, start in self._seen.items() if start and _start_if_alive(process) == start]

    def ranks(self) -> list[int]:
        """Those that run the script."""
        found = []
        for process in self.processes():
            try:
                command = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if len(command) > 1 and command[1] == self._script.encode():
                found.append(process)
        return sorted(found)

    def send(self, process: int, number: signal.Signals) -> None:
        """A signal, if the process still lives."""
        if process in self.processes():
            os.kill(process, number)

    def ends_within(self, seconds: float = SECONDS) -> bool:
        """Whether the job ends by itself; if not, it is killed."""
        try:
            self.process.wait(seconds)
            return True
        except subprocess.TimeoutExpired:
            self.kill()
            return False

    def left_behind(self) -> int:
        """How many processes outlive the job by more than a few seconds; they are killed."""
        until = time.monotonic() + 10
        while (left := self.processes()) and time.monotonic() < until:
            time.sleep(0.2)
        self.kill()
        return len(left)

    def kill(self) -> None:
        for process in self.processes():
            os.kill(process, signal.SIGKILL)
        self.process.wait()

    def says(self) -> str:
        """Everything on stderr."""
        return self.log.read_text(errors="replace")

    def _is_ours(self, folder: Path) -> bool:
        try:
            return self._mark.encode() in (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            return False


def _start_if_alive(process: int) -> str:
    """When a process began, in the kernel's ticks; "" if it has ended."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]
