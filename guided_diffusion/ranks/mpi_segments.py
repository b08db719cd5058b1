"""MPICH's shared-memory files in /dev/shm: whether there is room for them, and their names.

Without room MPICH aborts or crashes while it starts. Names stay behind if a rank is killed, and are removed here. They
would occupy a megabyte per run for ever. Worse, without a launcher their name depends only on the process number,
and a process that gets the number of a killed one would wait for ever while MPI starts. Once all ranks have mapped a
file its name is no longer needed, so it is removed then, and nothing stays behind however the run ends.
"""

import os
import re
import sys
from pathlib import Path

_FOLDER = Path("/dev/shm")
_MAPPED = re.compile(r"/dev/shm/mpich_shm_\w+")
_BYTES_OF_RANK = 2**20


def lacking_shared_memory(ranks: int) -> str | None:
    """Why so many ranks of MPICH cannot start on this node, None if they can or it is not Linux.

    The size counts, not what is free: ranks that start earlier have taken their part already.
    """
    if not sys.platform.startswith("linux"):
        return None
    if not os.access(_FOLDER, os.W_OK | os.X_OK):
        return f"{_FOLDER} {'cannot be written' if _FOLDER.is_dir() else 'is missing'}"
    status = os.statvfs(_FOLDER)
    size = status.f_blocks * status.f_frsize
    if size >= ranks * _BYTES_OF_RANK:
        return None
    return f"{_FOLDER} has {size / 2**20:.1f} MiB, and {ranks} ranks take 1 MiB each"


def remove_namesakes() -> None:
    """Before MPI starts: remove what a killed process of this process's number and user left."""
    if not _FOLDER.is_dir():
        return
    for path in _FOLDER.glob(f"mpich_shm_{os.getpid():x}_*"):
        if path.lstat().st_uid == os.geteuid():
            path.unlink(missing_ok=True)


def remove_names() -> None:
    """Once all ranks have started: remove the names of the files that this process has mapped."""
    try:
        maps = Path("/proc/self/maps").read_text()
    except OSError:  # not Linux
        return
    for line in maps.splitlines():
        name = line.partition("/")[1] + line.partition("/")[2]
        if _MAPPED.fullmatch(name):
            Path(name).unlink(missing_ok=True)
