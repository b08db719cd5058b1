"""Section `training`: a training step of the shipped recipe compared with plain float32, and the memory it takes.

Both train the demo network on the same random crops, in alternation, so that other load on the machine slows both.
"""

import copy
from collections.abc import Callable

import torch
from torch import nn

from evaluation.benchmark.section import Section
from evaluation.benchmark.timing import alternate
from guided_diffusion.config import RELEASED_DIFFUSION, RELEASED_MODEL
from guided_diffusion.gaussian_diffusion import GaussianDiffusion
from guided_diffusion.script_util import create_model
from guided_diffusion.training.averages import MovingAverages, effective_ema_rate
from guided_diffusion.training.batches import Batch
from guided_diffusion.training.settings import TrainSettings, training_settings
from guided_diffusion.training.step import TrainStep
from guided_diffusion.training.training_memory import training_memory

GIB = 2**30
PLAIN, OURS = "plain float32", "as shipped"
RELEASED_CROP = (96, 96, 96)


def measure_training(rounds: int) -> Section:
    """The section: `rounds` of either kind of step, and what training the published network would take."""
    settings = training_settings({"preset": "demo", "data_dir": "unused"})
    timings = alternate({PLAIN: _plain_step(settings), OURS: _our_step(settings)}, rounds)
    memory = released_memory()
    ratio = timings[OURS].ratio_to(timings[PLAIN])
    size = "x".join(map(str, settings.crop_size))
    return Section(
        name="training",
        title=f"A step of training, the shipped network: {settings.optimisation.batch_size} x {size} voxels",
        values={
            "ratio": ratio,
            "cpu_ratio": timings[OURS].cpu_ratio_to(timings[PLAIN]),
            "steps": {name: timing.as_dict() for name, timing in timings.items()},
            "released_memory_gib": memory,
        },
        header=("", "seconds: median (range)", "faster"),
        rows=[(PLAIN, timings[PLAIN].text(), "1 x"), (OURS, timings[OURS].text(), f"{ratio:.2f} x")],
        notes="Memory of one rank that trains the published network on its published crop of "
        + f"{'x'.join(map(str, RELEASED_CROP))}, estimated: "
        + "; ".join(f"{name} {size:.1f} GiB" for name, size in memory.items())
        + ".",
    )


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


def _network(settings: TrainSettings) -> nn.Module:
    torch.manual_seed(0)
    return create_model(settings.model, settings.diffusion)


def _random_batch(settings: TrainSettings) -> Batch:
    x, y, z = settings.crop_size
    rng = torch.Generator().manual_seed(0)
    shape = (settings.optimisation.batch_size, 1, z, x, y)
    images, noise = (torch.rand(shape, generator=rng) for _ in range(2)), torch.randn(shape, generator=rng)
    return Batch(*images, noise, torch.tensor([[0.05, 1.0]]).expand(shape[0], 2))


def _our_step(settings: TrainSettings) -> Callable[[], None]:
    """Returns a function that takes a step as `scripts/train.py` does."""
    model, batch = _network(settings), _random_batch(settings)
    trainer, averages = TrainStep(settings, model), MovingAverages(model, settings.ema_rates)

    def take() -> None:
        trainer.take(batch, 500)
        averages.update(500)

    return take


def _plain_step(settings: TrainSettings) -> Callable[[], None]:
    """The same in plain float32: no autocast, AdamW and averages one tensor at a time."""
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
