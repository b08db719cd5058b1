"""How fast training is: a step of the shipped recipe beside the same step in plain float32, and the memory it takes.

Both train the demo network on the same random crops, in turns, so that whatever else the machine does slows both.
CPU time is the figure to compare on a machine that others use too.
"""

import copy
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from guided_diffusion.config import RELEASED_DIFFUSION, RELEASED_MODEL
from guided_diffusion.gaussian_diffusion import GaussianDiffusion
from guided_diffusion.script_util import create_model
from guided_diffusion.train_averages import MovingAverages, effective_ema_rate
from guided_diffusion.train_batches import Batch
from guided_diffusion.train_config import TrainSettings, settle
from guided_diffusion.train_memory import training_memory
from guided_diffusion.train_step import TrainStep

GIB = 2**30
RELEASED_CROP = (96, 96, 96)


def training_section(steps: int = 5, threads: int = 1) -> dict[str, Any]:
    """Measure. `steps` of either kind, after one to warm up.

    Returns "cpu_seconds" and "wall_seconds" of either kind (medians), their ratios as "speedup_cpu" and "speedup_wall",
    the estimates "memory_gib" of the published network, and all of it as "markdown" rows.
    """
    settings = settle({"preset": "demo", "data_dir": "unused"})
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        times = _in_turns({"plain": _plain_step(settings), "ours": _our_step(settings)}, steps)
    finally:
        torch.set_num_threads(before)
    section = {
        "threads": threads,
        "steps": steps,
        "cpu_seconds": {kind: statistics.median(cpu for cpu, _ in pairs) for kind, pairs in times.items()},
        "wall_seconds": {kind: statistics.median(wall for _, wall in pairs) for kind, pairs in times.items()},
        "memory_gib": released_memory(),
    }
    for clock in ("cpu", "wall"):
        seconds = section[f"{clock}_seconds"]
        section[f"speedup_{clock}"] = seconds["plain"] / seconds["ours"]
    return section | {"markdown": markdown_rows(section)}


def released_memory() -> dict[str, float]:
    """GiB that training the published network takes on its published crop, by precision and checkpointing."""
    return {
        f"{name}, {'recomputed' if recompute else 'kept'} activations": training_memory(
            RELEASED_MODEL, RELEASED_DIFFUSION, RELEASED_CROP, precision, recompute
        ).total
        / GIB
        for name, precision in (("float32", torch.float32), ("bfloat16", torch.bfloat16))
        for recompute in (False, True)
    }


def markdown_rows(section: dict[str, Any]) -> list[str]:
    """The section as rows of a table with the columns what, figure."""
    rows = [
        f"| training step, {name}, {section['threads']} thread(s) | {section['cpu_seconds'][kind]:.2f} s of CPU time,"
        f" {section['wall_seconds'][kind]:.2f} s |"
        for kind, name in (("plain", "plain float32"), ("ours", "as shipped"))
    ]
    rows.append(f"| steps per CPU second, as shipped over plain | {section['speedup_cpu']:.2f} |")
    rows += [
        f"| training memory (estimate), published network and crop, {name} | {size:.1f} GiB |"
        for name, size in section["memory_gib"].items()
    ]
    return rows


def _in_turns(kinds: dict[str, Callable[[], None]], steps: int) -> dict[str, list[tuple[float, float]]]:
    """CPU and wall seconds of every step of every kind, but for the first."""
    times: dict[str, list[tuple[float, float]]] = {kind: [] for kind in kinds}
    for _ in range(steps + 1):
        for kind, take in kinds.items():
            cpu, wall = time.process_time(), time.perf_counter()
            take()
            times[kind].append((time.process_time() - cpu, time.perf_counter() - wall))
    return {kind: pairs[1:] for kind, pairs in times.items()}


def _network(settings: TrainSettings) -> nn.Module:
    torch.manual_seed(0)
    return create_model(settings.model, settings.diffusion)


def _random_batch(settings: TrainSettings) -> Batch:
    x, y, z = settings.crop_size
    rng = torch.Generator().manual_seed(0)
    shape = (settings.optimisation.batch_size, 1, z, x, y)
    return Batch(torch.rand(shape, generator=rng), torch.rand(shape, generator=rng), torch.randn(shape, generator=rng))


def _our_step(settings: TrainSettings) -> Callable[[], None]:
    """What `scripts/train.py` does in a step."""
    model, batch = _network(settings), _random_batch(settings)
    trainer, averages = TrainStep(settings, model), MovingAverages(model, settings.ema_rates)

    def take() -> None:
        trainer.take(batch, 500)
        averages.update(500)

    return take


def _plain_step(settings: TrainSettings) -> Callable[[], None]:
    """The same in float32 as one would first write it: no autocast, AdamW and averages one tensor at a time."""
    model, batch = _network(settings), _random_batch(settings)
    diffusion = GaussianDiffusion(settings.diffusion)
    optimiser = torch.optim.AdamW(model.parameters(), lr=settings.optimisation.lr, foreach=False, fused=False)
    averages = [copy.deepcopy(model) for _ in settings.ema_rates]
    timesteps = torch.linspace(0, diffusion.num_timesteps - 1, len(batch.noise)).long()

    def take() -> None:
        terms = diffusion.training_losses(model, batch.normal_dose, timesteps, {"low_res": batch.low_dose}, batch.noise)
        terms["loss"].mean().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.optimisation.grad_clip)
        optimiser.step()
        optimiser.zero_grad()
        with torch.no_grad():
            for average, rate in zip(averages, settings.ema_rates, strict=True):
                share = 1 - effective_ema_rate(float(rate), 500)
                for mean, weight in zip(average.parameters(), model.parameters(), strict=True):
                    mean.lerp_(weight, share)

    return take
