"""Distributes tasks over MPI ranks: rank 0 hands them out in order and collects results and progress as they arrive.

No task is computed twice, every rank receives its next task before it has finished the current one, and no rank keeps a
core busy while waiting. Tasks are created as they are handed out, and never more than `window` tasks beyond the oldest
unfinished one, so rank 0 holds only that many at a time however many there are.
"""

from collections.abc import Callable, Iterable
from enum import IntEnum
from typing import Any

from guided_diffusion.dist_util import communicator, meet, wait_until

_HELD = 2  # tasks that a rank has been given: the current and the next one

Compute = Callable[[Any, Callable[[], None]], Any]


class Tag(IntEnum):
    """Purpose of a message between ranks."""

    TASK = 1
    STEP = 2
    RESULT = 3
    OVERLAP = 4
    SHARE = 5
    SAMPLES = 6


def share_tasks(
    tasks: Iterable[Any] | None,
    compute: Compute,
    on_result: Callable[[int, Any], None],
    on_step: Callable[[], None],
) -> None:
    """Distribute tasks over the ranks and compute them. All ranks call this together.

    tasks: on rank 0, the tasks in order; None elsewhere. compute(task, step): called on the rank of the task; returns
    its result and calls step() after each unit of work. on_result(number, result) and on_step(): called on rank 0, with
    results in order of arrival.
    """
    comm = communicator()
    if comm.size == 1:
        for number, task in enumerate(tasks):
            on_result(number, compute(task, on_step))
    elif comm.rank == 0:
        _Lead(comm, tasks, on_result, on_step).run(compute)
    else:
        _follow(comm, compute)


def window(ranks: int) -> int:
    """Number of tasks in a row, from the oldest unfinished one, that may have been handed out."""
    return 1 if ranks == 1 else _HELD * ranks


def block_of(rank: int, ranks: int, tasks: int) -> range:
    """The tasks of one rank where each has a contiguous block; blocks differ by one task at most."""
    size, larger = divmod(tasks, ranks)
    first = rank * size + min(rank, larger)
    return range(first, first + size + (rank < larger))


class _Lead:
    """Rank 0: hands tasks out and receives messages, between the steps of tasks that it computes itself."""

    def __init__(self, comm: Any, tasks: Iterable[Any], on_result: Callable, on_step: Callable):
        self._comm = comm
        self._tasks = enumerate(tasks)
        self._on_result, self._on_step = on_result, on_step
        self._sends: list[Any] = []
        self._held = [0] * comm.size
        self._handed_out = 0
        self._oldest = 0  # the oldest unfinished task
        self._finished: set[int] = set()  # those after it

    def run(self, compute: Compute) -> None:
        """Run until every task is finished and every rank has left."""
        mine = self._take(0)
        self._deal()
        while any(self._held):
            if mine is None:
                wait_until(self._message_waits)
                self._listen()
            else:
                number, task = mine
                self._finish(0, number, compute(task, self._step))
            mine = self._take(0)
        self._sends += [self._comm.isend(None, dest=rank, tag=Tag.TASK) for rank in range(1, self._comm.size)]
        wait_until(lambda: all(send.Test() for send in self._sends))
        meet()

    def _take(self, rank: int) -> tuple[int, Any] | None:
        """The next task and its number, for `rank`; None if there is none for now."""
        if self._handed_out >= self._oldest + window(self._comm.size):
            return None
        task = next(self._tasks, None)
        if task is not None:
            self._handed_out += 1
            self._held[rank] += 1
        return task

    def _deal(self) -> None:
        """Hand out tasks to the other ranks, idle ones first."""
        self._sends = [send for send in self._sends if not send.Test()]
        for held in range(_HELD):
            for rank in range(1, self._comm.size):
                task = self._take(rank) if self._held[rank] == held else None
                if task is not None:
                    self._sends.append(self._comm.isend(task, dest=rank, tag=Tag.TASK))

    def _message_waits(self) -> bool:
        from mpi4py import MPI

        return self._comm.iprobe(source=MPI.ANY_SOURCE, tag=MPI.ANY_TAG)

    def _step(self) -> None:
        self._on_step()
        self._listen()

    def _listen(self) -> None:
        """Receive the messages that have arrived."""
        from mpi4py import MPI

        status = MPI.Status()
        while self._message_waits():
            message = self._comm.recv(source=MPI.ANY_SOURCE, tag=MPI.ANY_TAG, status=status)
            if status.Get_tag() == Tag.STEP:
                self._on_step()
            else:
                self._finish(status.Get_source(), *message)

    def _finish(self, rank: int, number: int, result: Any) -> None:
        self._on_result(number, result)
        self._held[rank] -= 1
        self._finished.add(number)
        while self._oldest in self._finished:
            self._finished.remove(self._oldest)
            self._oldest += 1
        self._deal()


def _follow(comm: Any, compute: Compute) -> None:
    """Any other rank: receive, compute, send back."""
    sends = []

    def step() -> None:
        sends.append(comm.isend(None, dest=0, tag=Tag.STEP))
        sends[:] = [send for send in sends if not send.Test()]

    def next_task() -> tuple[int, Any] | None:
        wait_until(lambda: comm.iprobe(source=0, tag=Tag.TASK))
        return comm.recv(source=0, tag=Tag.TASK)

    while (received := next_task()) is not None:
        number, task = received
        sends.append(comm.isend((number, compute(task, step)), dest=0, tag=Tag.RESULT))
    wait_until(lambda: all(send.Test() for send in sends))
    meet()
