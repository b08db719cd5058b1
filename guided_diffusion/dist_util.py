"""Ranks, devices, and ending together.

All MPI calls go through `communicator()`, which is mpi4py's world or, without an MPI library, a world of
one rank. A mistake found on rank 0 is raised on every rank, so that all leave with the same exit code and one line is
printed; anything unforeseen aborts the whole run at once instead of leaving the other ranks waiting.

`setup_dist`, `dev` and `load_state_dict` are what scripts written for the published implementation call.
"""

import atexit
import functools
import io
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Any, NoReturn, TypeVar

import numpy as np
import torch
import torch.distributed as dist

from guided_diffusion import checkpoints
from guided_diffusion.errors import Failure, InputError
from guided_diffusion.launchers import how_to_start, launch
from guided_diffusion.mpi_segments import remove_names, remove_namesakes

T = TypeVar("T")

_POLL_SECONDS = 0.005
INTERRUPTED = 130  # the exit code of a process that was interrupted, as shells have it
_CHUNK_BYTES = 2**28  # of a message; MPI counts in 32 bits
_LEAVING_SECONDS = 3  # time for the first of several processes without MPI to print its line


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


class SharedError(InputError):
    """An InputError that every rank raises, so that none waits for a rank that has ended."""


class LaunchError(InputError):
    """Several processes were started that cannot reach each other; `rank` is this one's number by its launcher."""

    def __init__(self, message: str, rank: int):
        super().__init__(message)
        self.rank = rank


@functools.cache
def communicator() -> Any:
    """mpi4py's COMM_WORLD, or a `SingleRank` where mpi4py or an MPI library is missing.

    The first call starts MPI, which waits for all ranks.

    Raises LaunchError if a launcher started several ranks that cannot reach each other: each would do the whole job.
    """
    found = launch(os.environ)
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


@functools.cache
def _node() -> Any:
    """The communicator of the ranks on this rank's node."""
    comm = communicator()
    if comm.size == 1:
        return comm
    from mpi4py import MPI

    return comm.Split_type(MPI.COMM_TYPE_SHARED, key=comm.rank)


def ranks_per_node() -> int:
    """Number of ranks on this rank's node."""
    return _node().size


def device() -> torch.device:
    """This rank's GPU, one per rank of a node as far as they go, or the CPU."""
    rank = _node().rank  # on every rank, GPU or not: finding out takes all of them
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", rank % torch.cuda.device_count())


def ranks_per_device() -> int:
    """Largest number of ranks that share this rank's GPU, or its node's memory. All ranks call this together."""
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
    threads = threads or cores_of_rank()
    torch.set_num_threads(threads)
    return threads


def cores_of_rank() -> int:
    """This rank's share of the cores, those divided evenly among the ranks that may run on them.

    All ranks call this together.
    """
    cores = frozenset(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count()))
    return max(1, len(cores) // _node().allgather(cores).count(cores))


def start_process_group(place: torch.device) -> None:
    """Make the MPI ranks PyTorch's process group, gloo for tensors on the CPU and NCCL for those on GPUs.

    Rank 0 listens on a port that the system picks, and sends its number to the others. All ranks call this together.
    """
    comm = communicator()
    if place.type == "cuda":
        torch.cuda.set_device(place)
    host = "localhost" if ranks_per_node() == comm.size else socket.gethostname()
    listening = dist.TCPStore(host, 0, is_master=True, wait_for_workers=False) if comm.rank == 0 else None
    host, port = comm.bcast((host, listening.port) if listening else None)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if place.type == "cuda" else "gloo",
        store=listening or dist.TCPStore(host, port, is_master=False),
        rank=comm.rank,
        world_size=comm.size,
    )


def setup_dist() -> None:
    """Make the MPI ranks a process group of PyTorch's, as scripts for the published implementation expect.

    The ranks share the cores, and from here on an exception on one of them ends all. All ranks call this together.
    """
    if dist.is_initialized():
        return
    share_cores()
    start_process_group(device())
    sys.excepthook = _end_all_of_script  # now, since a process group puts a hook of its own before it
    atexit.register(_end_process_group)


def dev() -> torch.device:
    """This rank's device, under its published name."""
    return device()


def load_state_dict(path: str, **kwargs: Any) -> dict[str, Any]:
    """The state dict of a file, local or remote, that rank 0 reads for all. All ranks call this together.

    kwargs: as of `torch.load`. `map_location` is heeded; nothing but tensors and plain values is loaded in any case.
    Weights come without what they are wrapped in. Raises InputError for a file that cannot be used.
    """
    content = read_once(path)
    return root_first(checkpoints.parse_state_dict, content, path, kwargs.get("map_location", "cpu"))


def read_once(path: str) -> bytes:
    """The bytes of a checkpoint on every rank, read by rank 0 alone, so that all have the same.

    All ranks call this together. Raises InputError where rank 0 cannot read it.
    """
    comm = communicator()
    content = on_root(checkpoints.read_bytes, path)
    if comm.size == 1:
        return content
    size = comm.bcast(len(content) if content is not None else None)
    buffer = np.frombuffer(content, np.uint8) if content is not None else np.empty(size, np.uint8)
    for first in range(0, size, _CHUNK_BYTES):
        wait_until(comm.Ibcast(buffer[first : first + _CHUNK_BYTES]).Test)
    return content if content is not None else buffer.tobytes()


class SharedFailure(Failure):
    """A Failure that every rank raises; where the program is to blame, its traceback has been printed."""


def wait_until(ready: Callable[[], bool]) -> None:
    """Poll with pauses: MPI's own waiting would keep a core busy that another rank may need."""
    while not ready():
        time.sleep(_POLL_SECONDS)


def meet() -> None:
    """Wait, without keeping a core busy, until every rank is here."""
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


def told(error: BaseException) -> str:
    """One line about a failure. Prints its traceback unless it is one that the user can correct."""
    if isinstance(error, Failure):
        return str(error)
    if isinstance(error, MemoryError):
        return f"not enough memory ({error})"
    traceback.print_exception(error)
    return f"{type(error).__name__}: {error}"


def shared(error: Exception) -> Exception:
    """An exception as every rank may raise it: a SharedError or SharedFailure, or itself where there is one rank."""
    if communicator().size == 1 or isinstance(error, SharedError | SharedFailure):
        return error
    return SharedError(str(error)) if isinstance(error, InputError) else SharedFailure(told(error))


def raise_together(mistake: InputError | None) -> None:
    """Raise on every rank the first of the ranks' mistakes, if there is one. Every rank must call this."""
    meet()
    messages = [message for message in communicator().allgather(mistake and str(mistake)) if message]
    if messages:
        raise SharedError(messages[0])


def root_first(function: Callable[..., T], *args: Any) -> T:
    """Run `function` on rank 0 and then, if it raised nothing there, on every other rank."""
    result = on_root(function, *args)
    return result if communicator().rank == 0 else function(*args)


def run_main(main: Callable[[], None]) -> None:
    """Run a script's `main` and end all ranks together.

    Exit code 2 and one line for an InputError, 1 and a traceback for a failure of the program, 130 for an interrupt.
    A name that the terminal cannot show, as of a folder in Latin-1, is printed with escapes.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        main()
        meet()
    except SystemExit:
        raise
    except SharedError as error:
        if communicator().rank == 0:
            print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(2)
    except SharedFailure as error:
        if communicator().rank == 0:
            print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(1)
    except BaseException as error:
        _end_all(error)


def _end_all(error: BaseException) -> NoReturn:
    """Say why this rank cannot go on, and end with it all others, which may be waiting for it."""
    if isinstance(error, LaunchError) and error.rank:
        time.sleep(_LEAVING_SECONDS)  # launchers end all processes with the first that leaves
        sys.exit(2)
    if isinstance(error, KeyboardInterrupt):
        print("interrupted", file=sys.stderr, flush=True)
        _leave(INTERRUPTED)
    message = str(error) if isinstance(error, InputError) else told(error)
    print(f"error: {message}", file=sys.stderr, flush=True)
    _leave(2 if isinstance(error, InputError) else 1)


def _end_all_of_script(_kind: type, error: BaseException, _trace: TracebackType | None) -> None:
    """End all ranks on an exception that a script does not catch."""
    _end_all(error)


def _end_process_group() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def abort(code: int) -> NoReturn:
    """End this process and all ranks at once, from whichever thread."""
    comm = communicator()
    if comm.size > 1:
        comm.Abort(code)
    os._exit(code)


def _leave(code: int) -> NoReturn:
    """Exit, and end the other ranks too, which may be waiting for this one."""
    try:
        comm = communicator()
    except InputError:
        sys.exit(code)
    if comm.size > 1:
        sys.stderr.flush()
        abort(code)
    sys.exit(code)
