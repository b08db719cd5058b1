"""Ends the job where a rank makes no progress: the others would wait for it for ever.

A thread of every rank sends signs of life, the other ranks' to rank 0 and rank 0's to all of them. A stopped process
sends none; a process whose main thread hangs states in them for how long nothing was finished. Where the MPI library
does not support threads, no rank watches.
"""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from guided_diffusion.dist_util import communicator, meet
from guided_diffusion.errors import InputError

LEAST_SECONDS = 60.0
"""The shortest bound that follows from measured steps: a busy machine may keep a process waiting for a while."""

STEPS_OF_GRACE = 10
"""The bound in multiples of the longest step so far."""

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
    """This rank's part: its own signs of life, and the latest ones of those that it watches."""

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

    def start(self) -> None:
        """Begin to send and to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Send no more."""
        self._end.set()
        self._thread.join()

    def receive(self) -> None:
        """Take in what has arrived."""
        for rank in self._watched:
            while self._comm.iprobe(source=rank):
                self._signs[rank] = (time.monotonic(), self._comm.recv(source=rank))

    def begin(self, task: str) -> None:
        """The main thread has a task from here on."""
        self._task, self._last_step, self._is_working = task, time.monotonic(), True

    def rest(self) -> None:
        """The main thread has none any more."""
        self._is_working = False

    def step(self) -> None:
        """The main thread has finished a step of its task."""
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
        """Reason why a rank counts as standing still, None if it does not."""
        arrived, sign = self._signs[rank]
        bound = self._seconds or max(LEAST_SECONDS, STEPS_OF_GRACE * self._longest_of_all())
        later = _LATER_SECONDS * max(0, self._comm.rank - 1)
        now = time.monotonic()
        if now - arrived > bound + later:
            return f"no sign of life for {now - arrived:.0f} s"
        # Ranks in lockstep wait for the one that hangs, so the one without a step for longest counts; and before the
        # first step it is not known how long one takes.
        waiting = [self._since(), *(other.since + now - then for then, other in self._signs.values() if other.since)]
        is_measured = self._seconds is not None or self._longest_of_all() > 0
        since = sign.since + now - arrived
        if sign.since and is_measured and since >= max(waiting) and since > bound + later + self._interval:
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


@contextmanager
def watching(seconds: float | None) -> Iterator[None]:
    """Within the block, a rank that stands still for `seconds` ends the job. All ranks call this together.

    seconds: 0 for never; None for a bound that follows from the longest step so far, and no less than LEAST_SECONDS.
    Raises InputError for a negative number.
    """
    if seconds is not None and seconds < 0:
        raise InputError(f"--stall_seconds {seconds:g}: cannot be negative; 0 means never")
    comm = communicator()
    if comm.size == 1 or seconds == 0 or not _knows_threads():
        yield
        return
    global _current
    watch = _current = _Watch(comm, seconds)
    watch.start()
    try:
        yield
        meet()
    finally:
        _current = None
        watch.stop()
    meet()
    watch.receive()


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
    """A step of this rank's task is done."""
    if _current is not None:
        _current.step()


def _knows_threads() -> bool:
    from mpi4py import MPI

    return MPI.Query_thread() == MPI.THREAD_MULTIPLE
