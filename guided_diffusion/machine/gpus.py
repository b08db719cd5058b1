"""GPUs of the machine that this build of PyTorch cannot use."""

import os
import re
from pathlib import Path

import torch

from guided_diffusion.errors import InputError

NODES = Path("/dev")


def unused_gpu() -> str | None:
    """Why a GPU of this machine is not used though nobody hid it, in one line; None where one is used or there is none.

    Linux names NVIDIA's GPUs /dev/nvidia0 and so on, also in containers to which they are given.
    """
    if torch.cuda.is_available() or os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return None
    if not any(NODES.glob("nvidia[0-9]*")):
        return None
    if torch.version.cuda is None:
        why = "is built without CUDA"
    else:
        why = f"finds none: its driver may be too old for CUDA {torch.version.cuda}, or it was not given to this job"
    return f"this machine has an NVIDIA GPU, but PyTorch {torch.__version__} {why}; the CPU is used"


def unserved_gpu(place: torch.device) -> InputError | None:
    """The error for a GPU of a generation for which this PyTorch has no code; None for all others, and for CPUs.

    Code for a generation X.Y (sm_XY) runs on the later ones of the same X, and intermediate code (compute_XY) on all
    later ones: CUDA C++ Programming Guide, section "Compute Capability" and "PTX Compatibility".
    """
    if place.type != "cuda" or torch.version.cuda is None:
        return None
    major, minor = torch.cuda.get_device_capability(place)
    codes = torch.cuda.get_arch_list()
    for kind, *generation in re.findall(r"\b(sm|compute)_(\d+)(\d)", " ".join(codes)):
        of_major, of_minor = map(int, generation)
        if (major, minor) >= (of_major, of_minor) and (kind == "compute" or major == of_major):
            return None
    name = torch.cuda.get_device_name(place)
    return InputError(
        f"{name} has compute capability {major}.{minor}, for which PyTorch {torch.__version__} has no code"
        f" ({', '.join(codes)}): install a build that has, or set CUDA_VISIBLE_DEVICES= (empty) to use the CPU"
    )
