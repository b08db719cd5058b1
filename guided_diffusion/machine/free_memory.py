"""Free memory of the machine, or of the container that this process runs in."""

import ctypes
import re
import sys
from pathlib import Path

from guided_diffusion.machine.control_groups import groups_with

# A control group's files of its limit and its use, and the entry of memory.stat that counts cached files.
_VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_VERSION_2 = ("memory.max", "memory.current", "inactive_file")
_NO_LIMIT = 2**62  # version 1 has no name for it and gives the largest whole number of pages


def available_bytes() -> int | None:
    """Bytes that this process can still allocate under Linux, within its container; None if unknown."""
    left = [size for size in (machine_bytes(), container_bytes()) if size is not None]
    return min(left) + kept_bytes() if left else None


class _MallocStatistics(ctypes.Structure):
    """`struct mallinfo2` of glibc (mallinfo(3))."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks"),
            *("fordblks", "keepcost"),
        )
    ]


def kept_bytes() -> int:
    """Freed bytes that this process retains for reuse, see `memory.keep_freed_memory`; 0 if unknown."""
    mallinfo2 = getattr(ctypes.CDLL(None), "mallinfo2", None) if sys.platform.startswith("linux") else None
    if mallinfo2 is None:
        return 0
    mallinfo2.restype = _MallocStatistics
    return mallinfo2().fordblks


def machine_bytes(path: Path = Path("/proc/meminfo")) -> int | None:
    """Bytes that the kernel could give to new programs, None if unknown."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB", path.read_text(), re.MULTILINE) if path.exists() else None
    return int(found[1]) * 1024 if found else None


def container_bytes(root: Path = Path("/")) -> int | None:
    """Bytes that this process's control group and its parents may still allocate; None without a limit."""
    names = {1: _VERSION_1, 2: _VERSION_2}
    groups = groups_with("memory", _VERSION_1[0], _VERSION_2[0], root)
    left = [_group_bytes(group, *names[version]) for group, version in groups]
    return min((size for size in left if size is not None), default=None)


def _group_bytes(group: Path, limit_name: str, used_name: str, cached_name: str) -> int | None:
    """Bytes that one control group may still take, counting cached files as free. None where it has no limit."""
    limit = (group / limit_name).read_text().strip()
    if limit == "max" or int(limit) >= _NO_LIMIT:
        return None
    cached = re.search(rf"^{cached_name} (\d+)", (group / "memory.stat").read_text(), re.MULTILINE)
    return int(limit) - int((group / used_name).read_text()) + (int(cached[1]) if cached else 0)
