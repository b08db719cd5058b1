"""Memory of the process and of its device."""

import ctypes
import re
import sys
from pathlib import Path

import torch

# Parameters of mallopt(3).
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3

# A control group's files of its limit and its use, and the entry of memory.stat that counts cached files.
_VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_VERSION_2 = ("memory.max", "memory.current", "inactive_file")
_NO_LIMIT = 2**62  # version 1 has no word for it and gives the largest whole number of pages


def keep_freed_memory() -> None:
    """Have glibc keep what tensors free for the next tensors.

    By default it gives blocks of their size back to the kernel at once, and a third of a network call on a CPU is then
    spent on getting them again, page by page. Elsewhere than on glibc nothing is done.
    """
    if not sys.platform.startswith("linux"):
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.mallopt(_MMAP_THRESHOLD, 2**31 - 1)
        library.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
        library.mallopt(_TOP_PAD, 2**26)


class PatchesTooLarge(Exception):
    """A rank ran out of memory; raised on all ranks, so that all can go on with shorter patches."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this is PyTorch's way of saying that a GPU or the CPU has no memory left."""
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
    )


def free_bytes(device: torch.device) -> int | None:
    """Memory that is left on a GPU or, under Linux, on the machine or in its container; None where nobody tells."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    left = [size for size in (_machine_bytes(), _container_bytes()) if size is not None]
    return min(left) + _kept_bytes() if left else None


class _MallocStatistics(ctypes.Structure):
    """`struct mallinfo2` of glibc (mallinfo(3))."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks"),
            *("fordblks", "keepcost"),
        )
    ]


def _kept_bytes() -> int:
    """Freed memory that this process keeps for its own use, see `keep_freed_memory`; 0 where nobody tells."""
    mallinfo2 = getattr(ctypes.CDLL(None), "mallinfo2", None) if sys.platform.startswith("linux") else None
    if mallinfo2 is None:
        return 0
    mallinfo2.restype = _MallocStatistics
    return mallinfo2().fordblks


def _machine_bytes(path: Path = Path("/proc/meminfo")) -> int | None:
    """What the kernel could give to new programs."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB", path.read_text(), re.MULTILINE) if path.exists() else None
    return int(found[1]) * 1024 if found else None


def _container_bytes(root: Path = Path("/")) -> int | None:
    """What this process's control group, and those around it, may still take; the least of them, None without a limit.

    Groups lie in each other, as a step in a job under Slurm, and any of them may have a limit. Of version 1 of control
    groups the memory's own hierarchy counts; in `/proc/self/cgroup` version 2 has a line without controllers. Where a
    container sees only a part of the hierarchy, the path there leads nowhere and its root is the container's group.
    """
    memberships, mount = root / "proc/self/cgroup", root / "sys/fs/cgroup"
    lines = memberships.read_text().splitlines() if memberships.exists() else []
    left = []
    for _, controllers, path in (line.split(":", 2) for line in lines):
        if controllers == "":
            names, top = _VERSION_2, mount
        elif "memory" in controllers.split(","):
            names, top = _VERSION_1, mount / "memory"
        else:
            continue
        within = [part for part in path.split("/") if part not in ("", "..")]
        groups = [top.joinpath(*within[:depth]) for depth in range(len(within) + 1)]
        left += [_group_bytes(group, *names) for group in groups if (group / names[0]).exists()]
    return min((size for size in left if size is not None), default=None)


def _group_bytes(group: Path, limit_name: str, used_name: str, cached_name: str) -> int | None:
    """What one control group may still take; files that are only cached can go. None where it has no limit."""
    limit = (group / limit_name).read_text().strip()
    if limit == "max" or int(limit) >= _NO_LIMIT:
        return None
    cached = re.search(rf"^{cached_name} (\d+)", (group / "memory.stat").read_text(), re.MULTILINE)
    return int(limit) - int((group / used_name).read_text()) + (int(cached[1]) if cached else 0)
