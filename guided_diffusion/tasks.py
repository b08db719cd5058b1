"""Tasks over MPI ranks: rank 0 hands them out, takes the results as they come, and hears of every step.

No rank computes a task twice, a rank without tasks is free at once, and nobody burns a core while waiting.
"""

from collections.abc import Callable, Sequence
from typing import Any

from guided_diffusion.dist_util import communicator, meet, wait_until

_TASK, _STEP, _RESULT = 1, 2, 3

Compute = Callable[[Any, Callable[[], None]], Any]


def share_tasks(
    tasks: Sequence[Any] | None,
    compute: Compute,
    on_result: Callable[[int, Any], None],
    on_step: Callable[[], None],
) -> None:
    """Compute every task on one of the ranks. All ranks call this together.

    tasks: on rank 0, the tasks in order, to be shared out in contiguous blocks; None elsewhere. compute(task, step): on
    whichever rank has the task; returns its result and calls step() after each unit of work. on_result(number, result)
    and on_step(): called on rank 0, results in order of arrival.
    """
    comm = communicator()
    if comm.size == 1:
        for number, task in enumerate(tasks):
            on_result(number, compute(task, on_step))
    elif comm.rank == 0:
        _lead(comm, tasks, compute, on_result, on_step)
    else:
        _follow(comm, compute)


def block_of(rank: int, ranks: int, tasks: int) -> range:
    """The tasks of one rank: contiguous blocks whose sizes differ by one at most."""
    size, larger = divmod(tasks, ranks)
    first = rank * size + min(rank, larger)
    return range(first, first + size + (rank < larger))


def _lead(comm: Any, tasks: Sequence[Any], compute: Compute, on_result: Callable, on_step: Callable) -> None:
    """Rank 0: send, compute its own share while listening, then wait for the others."""
    from mpi4py import MPI

    sends = []
    for rank in range(1, comm.size):
        block = block_of(rank, comm.size, len(tasks))
        sends.append(comm.isend(len(block), dest=rank, tag=_TASK))
        sends += [comm.isend((number, tasks[number]), dest=rank, tag=_TASK) for number in block]
    mine = block_of(0, comm.size, len(tasks))
    outstanding = len(tasks) - len(mine)
    status = MPI.Status()

    def receive() -> None:
        nonlocal outstanding
        message = comm.recv(source=MPI.ANY_SOURCE, tag=MPI.ANY_TAG, status=status)
        if status.Get_tag() == _STEP:
            on_step()
        else:
            outstanding -= 1
            on_result(*message)

    def step() -> None:
        on_step()
        while comm.iprobe(source=MPI.ANY_SOURCE, tag=MPI.ANY_TAG):
            receive()

    for number in mine:
        on_result(number, compute(tasks[number], step))
    while outstanding:
        wait_until(lambda: comm.iprobe(source=MPI.ANY_SOURCE, tag=MPI.ANY_TAG))
        receive()
    MPI.Request.waitall(sends)
    meet()


def _follow(comm: Any, compute: Compute) -> None:
    """Any other rank: receive, compute, send back."""
    from mpi4py import MPI

    sends = []

    def step() -> None:
        sends.append(comm.isend(None, dest=0, tag=_STEP))
        sends[:] = [send for send in sends if not send.Test()]

    for _ in range(comm.recv(source=0, tag=_TASK)):
        number, task = comm.recv(source=0, tag=_TASK)
        result = compute(task, step)
        sends.append(comm.isend((number, result), dest=0, tag=_RESULT))
    wait_until(lambda: MPI.Request.Testall(sends))
    meet()
