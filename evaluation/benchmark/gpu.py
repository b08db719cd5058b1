"""Section `gpu`: the released network on a full patch, if there is a CUDA device."""

import time
from collections.abc import Callable
from statistics import median

import torch

from evaluation.benchmark.measured_networks import gigaflop, one_call
from evaluation.benchmark.section import Section
from guided_diffusion.config import RELEASED_DIFFUSION, RELEASED_MODEL
from guided_diffusion.fast.fast_unet import FastSuperResModel
from guided_diffusion.script_util import create_model

_SIZE = (96, 192, 288)
_SIDE = 8192  # of the square matrices whose product gives the device's rate


def measure_gpu(rounds: int) -> Section:
    """The section; call it only where CUDA is available."""
    work = gigaflop(RELEASED_MODEL, RELEASED_DIFFUSION, _SIZE) * 1e9
    rate = _matrix_rate(rounds)
    with torch.device("cuda"):
        model = FastSuperResModel(create_model(RELEASED_MODEL, RELEASED_DIFFUSION).eval(), torch.bfloat16)
    torch.cuda.reset_peak_memory_stats()
    seconds = _seconds(one_call(model, _SIZE, "cuda"), rounds)
    peak = torch.cuda.max_memory_allocated() / 2**30
    share = work / seconds / rate
    device = torch.cuda.get_device_name()
    return Section(
        name="gpu",
        title=f"The released network on a patch of {' x '.join(map(str, _SIZE))} ({device})",
        values={
            "device": device,
            "seconds": seconds,
            "share_of_matmul": share,
            "matmul_tflops": rate / 1e12,
            "peak_gib": peak,
        },
        header=("seconds per call", "of the bfloat16 matrix rate", "peak memory (GiB)"),
        rows=[(f"{seconds:.2f}", f"{share:.0%}", f"{peak:.1f}")],
        notes=f"Random weights, bfloat16, median of {rounds} calls; matrices of {_SIDE} x {_SIDE} reach"
        f" {rate / 1e12:.0f} TFLOP/s. Memory is that of tensors: weights, the patch and feature maps.",
    )


def _matrix_rate(rounds: int) -> float:
    """Floating-point operations per second of a large matrix product in bfloat16."""
    left, right = torch.randn(2, _SIDE, _SIDE, dtype=torch.bfloat16, device="cuda")
    return 2 * _SIDE**3 / _seconds(lambda: left @ right, rounds)


def _seconds(call: Callable[[], object], rounds: int) -> float:
    """Median seconds of a call on the device, after one that is not counted."""
    seconds = []
    for _ in range(rounds + 1):
        torch.cuda.synchronize()
        began = time.perf_counter()
        call()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return median(seconds[1:])
