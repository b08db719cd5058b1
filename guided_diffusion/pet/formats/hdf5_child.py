"""Reads an array of an HDF5 file in a separate process with bounded memory.

A few damaged bytes make the library request hundreds of megabytes before it looks at the file's length. The other
process writes a line of JSON and then the numbers to its stdout.
"""

import json
import math
import os
import resource
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np

from guided_diffusion.errors import InputError
from guided_diffusion.gate import check_memory, check_unfolded
from guided_diffusion.pet.grid import check_size

# Filters that HDF5 itself can undo: deflate, shuffle, fletcher32. Any other would load a library.
_FILTERS = {1, 2, 3}
_LARGEST_CHUNK = 2**26
_SPARE_BYTES = 200 * 10**6  # what HDF5 may take beside twice the array


def read(path: Path, name: str) -> np.ndarray:
    """The array of this name as float32 [X, Y, Z]; MATLAB's axes are reversed in the file.

    Raises InputError where there is no such array of real numbers, and EOFError where the file is damaged.
    """
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-m", __name__, str(path), name]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    ) as child:
        line = child.stdout.readline()
        if not line:
            raise EOFError
        reply = json.loads(line)
        if "refused" in reply:
            raise InputError(reply["refused"])
        check_memory(4 * math.prod(reply["shape"]), path)
        data = np.empty(reply["shape"], np.float32)
        if child.stdout.readinto(memoryview(data).cast("B")) < data.nbytes:
            raise EOFError
    return np.ascontiguousarray(data.T)


def _write(path: Path, name: str) -> None:
    """In the other process: the array [Z, Y, X], as `read` expects it."""
    _bound_memory(_SPARE_BYTES)
    with h5py.File(path, "r", rdcc_nbytes=2 * _LARGEST_CHUNK) as file:
        # Links lead to other files, and so do arrays that are put together from them.
        if not isinstance(file.get(name, getlink=True), h5py.HardLink) or not isinstance(file[name], h5py.Dataset):
            raise InputError(f"{path}: has no array named {name}")
        stored = file[name]
        plan = stored.id.get_create_plist()
        filters = {plan.get_filter(number)[0] for number in range(plan.get_nfilters())}
        if stored.is_virtual or stored.external or not filters <= _FILTERS:
            raise InputError(f"{path}: {name} is stored in an unusual way; save it with -v7.3 again")
        if stored.ndim != 3 or stored.dtype.kind not in "fiu":
            raise InputError(f"{path}: {name} has shape {list(stored.shape)[:8]}, not [X, Y, Z] of real numbers")
        check_size(stored.shape, path)
        item = stored.dtype.itemsize
        check_unfolded(stored.size * item, min(path.stat().st_size, stored.id.get_storage_size()), path)
        if stored.chunks and math.prod(stored.chunks) * item > _LARGEST_CHUNK:
            raise InputError(f"{path}: {name} is stored in an unusual way; save it with -v7.3 again")
        _bound_memory(_SPARE_BYTES + 4 * stored.size)
        print(json.dumps({"shape": stored.shape}), flush=True)
        for k in range(stored.shape[0]):
            with np.errstate(over="ignore", invalid="ignore"):  # beyond float32 is infinite, which is refused
                sys.stdout.buffer.write(np.ascontiguousarray(stored[k], np.float32))
        sys.stdout.buffer.flush()


def _bound_memory(further: int) -> None:
    """No more than so many bytes beside what this process has."""
    now = (
        int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() if sys.platform == "linux" else 0
    )
    resource.setrlimit(resource.RLIMIT_AS, (now + further, resource.getrlimit(resource.RLIMIT_AS)[1]))


if __name__ == "__main__":
    try:
        _write(Path(sys.argv[1]), sys.argv[2])
    except InputError as error:
        print(json.dumps({"refused": str(error)}), flush=True)
