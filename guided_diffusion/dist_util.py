"""Ranks, their devices and cores, PyTorch's process group over them, and files that rank 0 reads for all.

Other modules use this one: what is not defined here is re-exported from `communicator`, `failing_together` and
`leaving`. Scripts written for the published implementation call `setup_dist`, `dev` and `load_state_dict`.
"""

import atexit
import os
import socket
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from guided_diffusion import checkpoints
from guided_diffusion.machine.gpus import unserved_gpu
from guided_diffusion.machine.half_precision import has_bfloat16
from guided_diffusion.machine.processors import core_count, cores_of_parent, usable_cores
from guided_diffusion.ranks.communicator import communicator, meet, node_communicator, wait_until
from guided_diffusion.ranks.failing_together import (
    SharedError,
    SharedFailure,
    as_shared,
    on_root,
    raise_together,
    report_failure,
    root_first,
)
from guided_diffusion.ranks.leaving import abort, end_all, run_main

__all__ = [
    "SharedError",
    "SharedFailure",
    "abort",
    "as_shared",
    "bfloat16_of_all",
    "bound_to_few_cores",
    "communicator",
    "cores_of_rank",
    "dev",
    "device",
    "device_of_all",
    "load_state_dict",
    "meet",
    "on_root",
    "raise_together",
    "ranks_per_device",
    "ranks_per_node",
    "read_once",
    "report_failure",
    "root_first",
    "run_main",
    "setup_dist",
    "share_cores",
    "start_process_group",
    "wait_until",
]

_MOST_THREADS = 1024  # of a process; PyTorch crashes where it cannot start as many as it is told
_CHUNK_BYTES = 2**28  # of a message; MPI counts in 32 bits


def ranks_per_node() -> int:
    """Number of ranks on this rank's node."""
    return node_communicator().size


def device() -> torch.device:
    """This rank's GPU, one per rank of a node as far as they go, or the CPU."""
    rank = node_communicator().rank  # on every rank, GPU or not: finding out takes all of them
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", rank % torch.cuda.device_count())


def device_of_all() -> torch.device:
    """This rank's device, of the kind that all ranks have. All ranks call this together.

    Raises SharedError where some ranks see GPUs and others none: networks on CPUs calculate in another precision, and
    cannot be trained with those on GPUs. So it does for a GPU that this PyTorch has no code for.
    """
    place = device()
    kinds = communicator().allgather(place.type)
    if len(set(kinds)) > 1:
        raise SharedError(
            f"rank {kinds.index('cpu')} sees no GPU, but rank {kinds.index('cuda')} does: start ranks where there are"
            " GPUs, or set CUDA_VISIBLE_DEVICES= (empty) for all to use CPUs"
        )
    raise_together(unserved_gpu(place))
    return place


def bfloat16_of_all(place: torch.device) -> bool:
    """Whether the devices of all ranks calculate in bfloat16 at speed: all use one precision, or patches of one scan
    would differ with the rank that made them. All ranks call this together, each with its device.
    """
    return all(communicator().allgather(has_bfloat16(place)))


def ranks_per_device() -> int:
    """Number of ranks that share this rank's GPU, or its node's memory. All ranks call this together.

    Where a batch system shows each rank a GPU of its own, all of them are the first that their rank sees.
    """
    place = device()
    own = str(torch.cuda.get_device_properties(place).uuid) if place.type == "cuda" else ""
    return node_communicator().allgather(own).count(own)


def share_cores(threads: int = 0) -> int:
    """Set how many threads PyTorch uses on this rank, and return it.

    0 divides the cores evenly among the ranks that may run on them. OMP_NUM_THREADS, where set, is left alone. All
    ranks call this together, with the same number. Raises InputError for one that is negative or that no machine has.
    """
    if not 0 <= threads <= _MOST_THREADS:
        raise SharedError(f"--threads {threads}: from 0 to {_MOST_THREADS}; 0 shares the cores among the ranks")
    if threads == 0 and "OMP_NUM_THREADS" in os.environ:
        return torch.get_num_threads()
    threads = threads or cores_of_rank()
    torch.set_num_threads(threads)
    return threads


def cores_of_rank() -> int:
    """This rank's share of the cores, those divided evenly among the ranks that may run on them.

    All ranks call this together.
    """
    cores = usable_cores()
    return max(1, core_count() // node_communicator().allgather(cores).count(cores))


def bound_to_few_cores(threads: int = 0) -> str | None:
    """A line about cores of this node that Open MPI keeps from its ranks; None where it does not.

    It binds each of one or two ranks to a single core, on which all threads of the rank take turns. threads: as stated
    by the user, who then knows. All ranks call this together.
    """
    ranks = node_communicator().allgather((usable_cores(), cores_of_parent()))
    used, given = (frozenset().union(*cores) for cores in zip(*ranks, strict=True))
    stated = threads or "OMP_NUM_THREADS" in os.environ
    if stated or "OMPI_COMM_WORLD_SIZE" not in os.environ or len(used) >= len(given):
        return None
    return (
        f"Open MPI has bound the ranks to {len(used)} of {len(given)} cores; with mpiexec --bind-to none they use all"
    )


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


def load_state_dict(path: str | Path, **kwargs: Any) -> dict[str, Any]:
    """The state dict of a file, local or remote, that rank 0 reads for all. All ranks call this together.

    kwargs: as of `torch.load`. `map_location` is heeded; nothing but tensors and plain values is loaded in any case.
    Weights come without what they are wrapped in. Raises InputError for a file that cannot be used.
    """
    path = str(path)
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


def _end_all_of_script(_kind: type, error: BaseException, _trace: TracebackType | None) -> None:
    """End all ranks on an exception that a script does not catch."""
    end_all(error)


def _end_process_group() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
