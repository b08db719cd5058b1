"""MPICH's files of shared memory, which it leaves in /dev/shm where a rank is killed.

They take a megabyte per run for ever. Worse, without a launcher their name follows from the process's number alone, and
a process that is given the number of a killed one waits in MPI's start for ever. Once all ranks have mapped a file, its
name serves nothing, so it is removed then, and nothing is left whatever ends the run.
"""

import os
import re
from pathlib import Path

_FOLDER = Path("/dev/shm")
_MAPPED = re.compile(r"/dev/shm/mpich_shm_\w+")


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
