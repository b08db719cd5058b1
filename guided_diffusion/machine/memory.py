"""Memory of the process and of its device: keeping freed memory, detecting shortage, and what is free."""

import ctypes
import re
import sys

import torch

from guided_diffusion.machine.free_memory import available_bytes

# Parameters of mallopt(3).
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3


def keep_freed_memory() -> None:
    """Let glibc keep freed memory for later tensors.

    By default it returns large blocks to the kernel at once, and getting them again page by page takes a third of the
    time of a network call on a CPU. Without glibc, nothing is done.
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
    """Whether an exception of PyTorch or its convolution library means that a GPU or the CPU is out of memory.

    "could not create a primitive descriptor" is something else: a convolution that the library does not support.
    """
    words = r"DefaultCPUAllocator|could not create a (primitive|memory object)(?! descriptor)"
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and re.search(words, str(error)) is not None
    )


def free_bytes(device: torch.device) -> int | None:
    """Free memory in bytes on a GPU or, under Linux, on the machine or in its container; None if unknown."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return available_bytes()
