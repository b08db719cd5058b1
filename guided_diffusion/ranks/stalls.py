"""Ends the job if a rank makes no progress, since the others would wait for it for ever.

A thread on every rank sends heartbeats: the other ranks' to rank 0, and rank 0's to all of them. A stopped process
sends none; the heartbeats of a process whose main thread hangs state how long ago it last finished a step. No thread
runs while MPI starts and ends, so a `Deadline` replaces the thread then. If the MPI library does not support threads,
no rank is monitored; nor is a single rank, for which nobody waits.
"""

import argparse
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from typing import Any

from guided_diffusion.ranks.communicator import communicator, meet
from guided_diffusion.ranks.deadline import Deadline
from guided_diffusion.ranks.failing_together import SharedError
from guided_diffusion.ranks.launchers import launch

LEAST_SECONDS = 60.0
"""The shortest bound that follows from measured steps, and of starting and ending: a busy machine may keep a process
waiting for a while.
"""

STEPS_OF_GRACE = 10
"""The bound in multiples of the longest step so far."""

START_SECONDS = 600.0
"""The bound of missing signs of life before the first step and between tasks, where a library that reads from a slow
file system may let no thread run; and the bound of starting, where no other is stated.
"""

FIRST_STEP_SECONDS = 3600.0
"""The bound of the first step, before it is known how long one takes."""

_INTERVAL_SECONDS = 1.0
_LATER_SECONDS = 2.0  # by which each further rank waits longer for rank 0, so that only one of them reports it


@dataclass(frozen=True)
class _Sign:
    """Message of a rank: its latest task ("" before the first), the seconds since its last step (0 between tasks), and
    its longest step (0 before the first; rank 0 gives the longest of all ranks).
    """

    task: str = ""
    since: float = 0.0
    longest: float = 0.0


class _Watch:
    """One rank's share of the watch: it sends its own heartbeats and keeps the latest of the ranks that it watches."""

    def __init__(self, comm: Any, seconds: float | None):
        from mpi4py import MPI

        self._comm = comm.Dup()
        self._seconds = seconds
        self._hosts = comm.allgather(MPI.Get_processor_name())
        self._watched = list(range(1, comm.size)) if comm.rank == 0 else [0]
        self._interval = min(_INTERVAL_SECONDS, (seconds or LEAST_SECONDS) / 5)
        self._task, self._is_working, self._longest = "", False, 0.0
        self._last_step = time.monotonic()
        self._signs = {rank: (time.monotonic(), _Sign()) for rank in self._watched}
        self._sends: dict[int, Any] = {}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="stalls", daemon=True)

    @property
    def rank(self) -> int:
        """This rank's number."""
        return self._comm.rank

    def start(self) -> None:
        """Start sending and watching."""
        self._thread.start()

    def stop(self) -> None:
        """Stop sending."""
        self._end.set()
        self._thread.join()

    def receive(self) -> None:
        """Receive the messages that have arrived."""
        for rank in self._watched:
            while self._comm.iprobe(source=rank):
                self._signs[rank] = (time.monotonic(), self._comm.recv(source=rank))

    def begin(self, task: str) -> None:
        """Record that the main thread begins a task."""
        self._task, self._last_step, self._is_working = task, time.monotonic(), True

    def rest(self) -> None:
        """Record that the main thread has ended its task."""
        self._is_working = False

    def step(self) -> None:
        """Record that the main thread has finished a step of its task."""
        now = time.monotonic()
        self._longest = max(self._longest, now - self._last_step)
        self._last_step = now

    def _watch(self) -> None:
        last = time.monotonic()
        while not self._end.wait(self._interval):
            now = time.monotonic()
            self.receive()
            if now - last > 3 * self._interval + 1:
                # This process itself was stopped, perhaps with all others: missing signs of theirs mean nothing.
                self._signs = {rank: (now, sign) for rank, (_, sign) in self._signs.items()}
            last = now
            self._send()
            for rank in self._watched:
                if (reason := self._reason(rank)) is not None:
                    self._end_job(rank, reason)

    def _send(self) -> None:
        sign = _Sign(self._task, self._since(), self._longest_of_all())
        for rank in self._watched:
            # One message at a time: a stopped process takes none.
            if rank not in self._sends or self._sends[rank].Test():
                self._sends[rank] = self._comm.isend(sign, dest=rank)

    def _since(self) -> float:
        return time.monotonic() - self._last_step if self._is_working else 0.0

    def _longest_of_all(self) -> float:
        return max([self._longest, *(sign.longest for _, sign in self._signs.values())])

    def _reason(self, rank: int) -> str | None:
        """Why a rank counts as stalled; None if it does not."""
        arrived, sign = self._signs[rank]
        longest = self._longest_of_all()
        of_steps = max(LEAST_SECONDS, STEPS_OF_GRACE * longest) if longest else None
        later = _LATER_SECONDS * max(0, self._comm.rank - 1)
        now = time.monotonic()
        bound = self._seconds or (of_steps if sign.since and of_steps else START_SECONDS)
        if now - arrived > bound + later:
            return f"no sign of life for {now - arrived:.0f} s"
        # Ranks in lockstep wait for the one that hangs, so the one without a step for longest counts.
        waiting = [self._since(), *(other.since + now - then for then, other in self._signs.values() if other.since)]
        since, bound = sign.since + now - arrived, self._seconds or of_steps or FIRST_STEP_SECONDS
        if sign.since and since >= max(waiting) and since > bound + later + self._interval:
            return f"no step for {since:.0f} s"
        return None

    def _end_job(self, rank: int, reason: str) -> None:
        task = self._signs[rank][1].task or "no task that it told of"
        print(
            f"error: rank {rank} on {self._hosts[rank]} stands still ({reason}) at {task}; ending the job;"
            " what was finished is kept, and --stall_seconds sets another bound (0: none)",
            file=sys.stderr,
            flush=True,
        )
        self._comm.Abort(1)


_current: _Watch | None = None


def stated_seconds(arguments: Sequence[str] | None = None) -> float | None:
    """`--stall_seconds` on a command line, by default this process's, before ranks exist to parse it together.

    None if it is not given or is no number, which parsing will refuse.
    """
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    parser.add_argument("--stall_seconds", type=float)
    try:
        return parser.parse_known_args(arguments)[0].stall_seconds
    except argparse.ArgumentError:
        return None


@contextmanager
def watching(seconds: float | None) -> Iterator[None]:
    """Start MPI and, within the block, end the job if a rank makes no progress for `seconds`.

    All ranks call this together. It encloses all work of a command: afterwards, a rank has LEAST_SECONDS to end. Within
    another such block nothing changes: that one goes on.

    seconds: 0 for never; None for a limit that follows from the longest step so far, and is at least LEAST_SECONDS.
    Raises SharedError for a negative or infinite number, and for NaN.
    """
    global _current
    if seconds is not None and not 0 <= seconds < inf:
        raise SharedError(f"--stall_seconds {seconds:g}: must be 0 or more; 0 means never")
    if _current is not None:
        yield
        return
    watch = None if seconds == 0 else _start(seconds)
    if watch is None:
        yield
        return
    _current = watch
    try:
        yield
        meet()
    finally:
        bound = max(LEAST_SECONDS, seconds or 0)
        Deadline(
            bound + _later(watch.rank), _line(watch.rank, f"the ranks have not ended {bound:g} s after their work")
        )
        _current = None
        watch.stop()
    meet()
    watch.receive()


def _start(seconds: float | None) -> _Watch | None:
    """Start MPI, and the watch unless there is one rank or MPI knows no threads."""
    found = launch(os.environ)
    bound = max(LEAST_SECONDS, START_SECONDS if seconds is None else seconds)
    deadline = None
    if found is not None and found.size > 1:
        line = _line(found.rank, f"not all of the {found.size} ranks have started after {bound:g} s")
        deadline = Deadline(bound + _later(found.rank), line)
    comm = communicator()
    watch = _Watch(comm, seconds) if comm.size > 1 and _knows_threads() else None
    if watch is not None:
        watch.start()
    if deadline is not None:
        deadline.met()
    return watch


def _later(rank: int) -> float:
    """Seconds by which a rank waits longer than rank 0, so that only one of them reports what all of them notice."""
    return _LATER_SECONDS * rank


def _line(rank: int, what: str) -> str:
    """The last line that a job prints when one of its ranks ends it."""
    return (
        f"error: {what} (rank {rank} on {socket.gethostname()} waited for them); ending the job;"
        " what was finished is kept, and --stall_seconds sets another bound (0: none)"
    )


@contextmanager
def working(task: str) -> Iterator[None]:
    """Within the block this rank is at a task, of which `sign_of_life` reports the steps."""
    watch = _current
    if watch is None:
        yield
        return
    watch.begin(task)
    try:
        yield
    finally:
        watch.rest()


def sign_of_life() -> None:
    """Record that this rank has finished a step of its task."""
    if _current is not None:
        _current.step()


def _knows_threads() -> bool:
    from mpi4py import MPI

    return MPI.Query_thread() == MPI.THREAD_MULTIPLE
