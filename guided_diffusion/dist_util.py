"""Ranks, devices, and ending together.

Everything that talks MPI goes through `communicator()`, which is mpi4py's world or, without an MPI library, a world of
one rank. A mistake found on rank 0 is raised on every rank, so that all leave with the same exit code and one line is
printed; anything unforeseen aborts the whole run at once instead of leaving the other ranks waiting.
"""

import functools
import os
import sys
import time
import traceback
from collections.abc import Callable
from enum import IntEnum
from typing import Any, TypeVar

import torch

from guided_diffusion.errors import Failure, InputError

T = TypeVar("T")

# How launchers (MPICH, Open MPI, Slurm) tell a process how many they started.
_LAUNCHER_SIZE_VARIABLES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")
_POLL_SECONDS = 0.005


class Tag(IntEnum):
    """What a message between ranks is about."""

    TASK = 1
    STEP = 2
    RESULT = 3
    OVERLAP = 4
    SHARE = 5
    SAMPLES = 6


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


@functools.cache
def communicator() -> Any:
    """mpi4py's COMM_WORLD, or a `SingleRank` where mpi4py or an MPI library is missing.

    Raises InputError if a launcher started several ranks that cannot reach each other: each would do the whole job.
    """
    launched = max(int(os.environ.get(name, "1")) for name in _LAUNCHER_SIZE_VARIABLES)
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        if launched > 1:
            raise InputError(
                f"started as {launched} ranks, but MPI cannot be used ({error}): install mpi4py and an MPI library"
            ) from None
        return SingleRank()
    if launched > 1 and MPI.COMM_WORLD.size == 1:
        raise InputError(
            f"started as {launched} ranks that cannot see each other: mpi4py uses another MPI library than the launcher"
            f" ({MPI.get_vendor()[0]}); install mpi4py against the launcher's"
        )
    return MPI.COMM_WORLD


@functools.cache
def _node() -> Any:
    """The communicator of the ranks on this rank's node."""
    comm = communicator()
    if comm.size == 1:
        return comm
    from mpi4py import MPI

    return comm.Split_type(MPI.COMM_TYPE_SHARED, key=comm.rank)


def ranks_per_node() -> int:
    """How many ranks share this rank's node."""
    return _node().size


def device() -> torch.device:
    """This rank's GPU, one per rank of a node as far as they go, or the CPU."""
    rank = _node().rank  # on every rank, GPU or not: finding out takes all of them
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", rank % torch.cuda.device_count())


def ranks_per_device() -> int:
    """How many ranks share this rank's GPU, or the memory of its node; at most. All ranks call this together."""
    ranks = _node().size
    return -(-ranks // torch.cuda.device_count()) if torch.cuda.is_available() else ranks


def share_cores(threads: int = 0) -> int:
    """Set how many threads PyTorch uses on this rank, and return it.

    0 divides the cores evenly among the ranks that may run on them. OMP_NUM_THREADS, where set, is left alone. All
    ranks call this together, with the same number. Raises InputError for a negative one.
    """
    if threads < 0:
        raise SharedError(f"--threads {threads}: cannot be negative; 0 shares the cores among the ranks")
    if threads == 0 and "OMP_NUM_THREADS" in os.environ:
        return torch.get_num_threads()
    if threads == 0:
        cores = (
            frozenset(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else frozenset(range(os.cpu_count()))
        )
        sharing = _node().allgather(cores).count(cores)
        threads = max(1, len(cores) // sharing)
    torch.set_num_threads(threads)
    return threads


class SharedError(InputError):
    """An InputError that every rank raises, so that nobody waits for a rank that has left."""


class SharedFailure(Failure):
    """A Failure that every rank raises; where the program is to blame, its traceback has been printed."""


def wait_until(ready: Callable[[], bool]) -> None:
    """Poll with pauses: MPI's own waiting would keep a core busy that another rank may need."""
    while not ready():
        time.sleep(_POLL_SECONDS)


def meet() -> None:
    """Wait, without burning a core, until every rank is here."""
    comm = communicator()
    if comm.size > 1:
        wait_until(comm.Ibarrier().Test)


def on_root(function: Callable[..., T], *args: Any, **kwargs: Any) -> T | None:
    """Run `function` on rank 0 only and return its result there, None elsewhere.

    Its InputError, and the SystemExit of `--help`, is raised on every rank; anything else as a SharedFailure.
    """
    comm = communicator()
    result, message, failure, exit_code = None, None, None, None
    if comm.rank == 0:
        try:
            result = function(*args, **kwargs)
        except InputError as error:
            message = str(error)
        except SystemExit as stop:
            exit_code = stop.code or 0
        except Exception as error:
            failure = told(error)
    meet()
    message, failure, exit_code = comm.bcast((message, failure, exit_code))
    if message is not None:
        raise SharedError(message)
    if failure is not None:
        raise SharedFailure(failure)
    if exit_code is not None:
        raise SystemExit(exit_code)
    return result


def told(error: Exception) -> str:
    """One line about a failure. Prints its traceback unless it is one that the user can mend."""
    if isinstance(error, Failure):
        return str(error)
    if isinstance(error, MemoryError):
        return f"not enough memory ({error})"
    traceback.print_exception(error)
    return f"{type(error).__name__}: {error}"


def raise_together(mistake: InputError | None) -> None:
    """Raise on every rank the first of the ranks' mistakes, if there is one. Every rank must call this."""
    meet()
    messages = [message for message in communicator().allgather(mistake and str(mistake)) if message]
    if messages:
        raise SharedError(messages[0])


def root_first(function: Callable[..., T], *args: Any) -> T:
    """Run `function` on rank 0 and then on every other rank, which is spared what rank 0 finds wrong."""
    result = on_root(function, *args)
    return result if communicator().rank == 0 else function(*args)


def run_main(main: Callable[[], None]) -> None:
    """Run a script's `main` and end all ranks together.

    Exit code 2 and one line for an InputError, 1 and a traceback for a failure of the program.
    """
    try:
        main()
        meet()
    except SharedError as error:
        if communicator().rank == 0:
            print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(2)
    except SharedFailure as error:
        if communicator().rank == 0:
            print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(1)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        _leave(2)
    except Exception as error:
        print(f"error: {told(error)}", file=sys.stderr, flush=True)
        _leave(1)


def _leave(code: int) -> None:
    """Exit, taking along the other ranks, which may be waiting for this one."""
    try:
        comm = communicator()
    except InputError:
        sys.exit(code)
    if comm.size > 1:
        sys.stderr.flush()
        comm.Abort(code)
    sys.exit(code)
