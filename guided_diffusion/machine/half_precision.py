"""Which devices calculate in bfloat16 at speed."""

import torch

SLOW_BFLOAT16 = "--precision bfloat16: this device has no kernels for it; float32 is many times faster"


def fp16_on_cpu(has: bool) -> tuple[str, str]:
    """The precision that `use_fp16` means on a CPU that has bfloat16 or not, and a notice of it."""
    if has:
        return "bfloat16", "use_fp16 on a CPU means bfloat16"
    return "float32", "use_fp16 on a CPU means float32, since it has no bfloat16"


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device has kernels for bfloat16: GPUs since NVIDIA's Ampere, CPUs with AVX-512 and the like.

    PyTorch calculates in bfloat16 on others too, but far slower than in float32: on an AMD CPU with AVX2 a 3D
    convolution of 96 channels took 190 times as long.
    """
    if device.type == "cuda":
        with torch.cuda.device(device):
            return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
