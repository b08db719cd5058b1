"""The communicator of the ranks: mpi4py's world or, without a launcher or an MPI library, a world of one rank.

All MPI calls go through `communicator()`. Code that waits for other ranks uses `wait_until`, which does not occupy a
core that they may need.
"""

import functools
import os
import time
from collections.abc import Callable
from typing import Any, TypeVar

from guided_diffusion.errors import InputError
from guided_diffusion.ranks.launchers import how_to_start, launch, may_be_a_rank, ranks_of_mpich
from guided_diffusion.ranks.mpi_segments import lacking_shared_memory, remove_names, remove_namesakes

T = TypeVar("T")

_POLL_SECONDS = 0.005


class SingleRank:
    """The communicator of a run without MPI: the part of mpi4py's interface that one rank needs."""

    rank = 0
    size = 1

    def bcast(self, value: T, root: int = 0) -> T:  # noqa: ARG002
        return value

    def gather(self, value: T, root: int = 0) -> list[T]:  # noqa: ARG002
        return [value]

    def allgather(self, value: T) -> list[T]:
        return [value]


class LaunchError(InputError):
    """Several processes were started that cannot reach each other; `rank` is this one's number by its launcher."""

    def __init__(self, message: str, rank: int):
        super().__init__(message)
        self.rank = rank


@functools.cache
def communicator() -> Any:
    """mpi4py's COMM_WORLD, or a `SingleRank` where no launcher, no mpi4py or no MPI library is found.

    The first call starts MPI, which waits for all ranks. A process without a launcher does not start it: MPI libraries
    abort where a container gives them no shared memory.

    Raises LaunchError if a launcher started several ranks that cannot reach each other: each would do the whole job.
    """
    _forget_closed_connection()
    if not may_be_a_rank(os.environ):
        return SingleRank()
    found = launch(os.environ)
    if (ranks := ranks_of_mpich(os.environ)) and (reason := lacking_shared_memory(ranks)) is not None:
        raise LaunchError(
            f"MPI needs shared memory: {reason}; start the container with --shm-size 1g or --ipc=host (apptainer:"
            " --bind /dev/shm), or one process without a launcher",
            found.rank if found else 0,
        )
    remove_namesakes()
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        if found is not None:
            raise LaunchError(
                f"{found.launcher} started {found.size} processes, but MPI cannot be used"
                f" ({str(error).strip().splitlines()[0]}): install mpi4py and an MPI library",
                found.rank,
            ) from None
        return SingleRank()
    if found is not None and MPI.COMM_WORLD.size == 1:
        raise LaunchError(
            f"started as {found.size} ranks that cannot see each other by {found.launcher} (mpi4py uses"
            f" {MPI.get_vendor()[0]}): {how_to_start(found)}",
            found.rank,
        )
    wait_until(MPI.COMM_WORLD.Ibarrier().Test)
    remove_names()
    return MPI.COMM_WORLD


def _forget_closed_connection() -> None:
    """Makes a process that a rank started a program of its own: it has the rank's environment, not its connection.

    MPICH, which finds its launcher's connection by the number in PMI_FD, would abort.
    """
    number = os.environ.get("PMI_FD", "")
    if not number.isdecimal():
        return
    try:
        os.fstat(int(number))
    except OSError:
        for name in [name for name in os.environ if name.startswith("PMI_")]:
            del os.environ[name]


@functools.cache
def node_communicator() -> Any:
    """The communicator of the ranks on this rank's node."""
    comm = communicator()
    if comm.size == 1:
        return comm
    from mpi4py import MPI

    return comm.Split_type(MPI.COMM_TYPE_SHARED, key=comm.rank)


def wait_until(ready: Callable[[], bool]) -> None:
    """Poll with pauses: MPI's own waiting would keep a core busy that another rank may need."""
    while not ready():
        time.sleep(_POLL_SECONDS)


def meet() -> None:
    """Wait, without keeping a core busy, until every rank is here."""
    comm = communicator()
    if comm.size > 1:
        wait_until(comm.Ibarrier().Test)
