"""Section `volume`: a whole volume compared with the published chain of 1000 float32 steps.

Networks that answer in one call are compared with that call in plain PyTorch.
"""

import time
from pathlib import Path

import numpy as np
import torch

from evaluation.benchmark.section import Section
from guided_diffusion.checkpoints import load_checkpoint, load_weights
from guided_diffusion.config import PreprocessingConfig
from guided_diffusion.dist_util import device
from guided_diffusion.inference.denoising import denoise_volume
from guided_diffusion.inference.loading import load_model
from guided_diffusion.inference.presets import inference_settings
from guided_diffusion.interfaces import Process
from guided_diffusion.machine.memory import keep_freed_memory
from guided_diffusion.methods.registry import METHODS
from guided_diffusion.pet.grid import Volume, centred_affine
from guided_diffusion.unet import UNetModel


def measure_volume(model_path: str, timed_steps: int, shape: tuple[int, int, int] = (64, 64, 96)) -> Section:
    """The section for a volume [X, Y, Z]: all of `--preset fast`, and `timed_steps` of the long chain."""
    keep_freed_memory()
    fast = load_model(model_path, {"preset": "fast"})
    settings = fast.settings
    scan = _scan(shape, settings.preprocessing)
    began = time.perf_counter()
    denoise_volume(scan, fast)
    fast_seconds = time.perf_counter() - began
    steps, step_seconds = _published_steps(model_path, timed_steps, shape)
    paper_seconds = steps * step_seconds
    name = "x".join(map(str, shape))
    calls = fast.diffusion.num_timesteps
    plain, timed = _described(steps, timed_steps, step_seconds)
    return Section(
        name="volume",
        title=f"A volume of {name} voxels from scan to result",
        values={
            "shape": shape,
            "fast_seconds": fast_seconds,
            "fast_calls": calls,
            "paper_seconds": paper_seconds,
            "paper_steps": steps,
            "timed_steps": timed_steps,
            "ratio_to_paper": paper_seconds / fast_seconds,
        },
        header=("", "network calls", "seconds", "faster"),
        rows=[
            (f"{plain} in float32, plain PyTorch", str(steps), f"{paper_seconds:.0f}", "1 x"),
            ("`--preset fast`", str(calls), f"{fast_seconds:.1f}", f"{paper_seconds / fast_seconds:.0f} x"),
        ],
        notes=(
            f"{timed} The same weights ({Path(model_path).name}); plain PyTorch takes the volume as one patch, the"
            f" preset in patches of {settings.preprocessing.patch_size} slices. Time does not depend on what is in it."
        ),
    )


def _described(steps: int, timed_steps: int, step_seconds: float) -> tuple[str, str]:
    """What plain PyTorch computes, and how it was timed."""
    if steps == 1:
        timed = f"These weights answer in one call, which was timed {timed_steps} times after one that was not."
        return "one call", timed
    timed = (
        f"The long chain was not run to its end: {timed_steps} of its {steps} steps were timed after one that was not,"
        f" {step_seconds:.2f} s each, and scaled."
    )
    return f"{steps} steps", timed


def _scan(shape: tuple[int, int, int], grid: PreprocessingConfig) -> Volume:
    """Noise of a few SUV on the model's grid."""
    data = np.random.default_rng(0).gamma(2.0, 1.0, shape).astype(np.float32)
    return Volume(data, centred_affine(shape, grid.voxel_mm, grid.axis_codes), "SUV")


def plain_network(model_path: str) -> tuple[UNetModel, Process]:
    """The network as it is trained, in float32 whatever its weights are stored in, and its whole process."""
    checkpoint = load_checkpoint(model_path)
    settings = inference_settings({"preset": "paper"}, checkpoint.header, on_gpu=False)
    method = METHODS[settings.method]
    model = method.create_model(settings.model, settings.diffusion).eval()
    load_weights(model, checkpoint.state_dict, model_path)
    return model.float(), method.create_process(settings.diffusion, None)


def _published_steps(model_path: str, timed_steps: int, shape: tuple[int, int, int]) -> tuple[int, float]:
    """Number of steps of the published chain, and the mean seconds of one with the plain network in float32."""
    where = device()
    model, diffusion = plain_network(model_path)
    model.to(where)
    x, low_res = torch.rand(2, 1, 1, shape[2], *shape[:2], generator=torch.Generator().manual_seed(0)).to(where)
    seconds = []
    for step in range(diffusion.num_timesteps - 1, diffusion.num_timesteps - 2 - timed_steps, -1):
        began = time.perf_counter()
        with torch.no_grad():
            t = torch.tensor([step], device=where)
            out = diffusion.p_mean_variance(model, x, t, model_kwargs={"low_res": low_res})
            x = out["mean"] + torch.exp(0.5 * out["log_variance"]) * torch.randn_like(x)
            float(x[0, 0, 0, 0, 0])  # waits for a GPU
        seconds.append(time.perf_counter() - began)
    return diffusion.num_timesteps, sum(seconds[1:]) / timed_steps
