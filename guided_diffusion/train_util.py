"""Training: one step after the other, with everything that makes a run repeatable, resumable and worth watching.

Crops, noise and timesteps are named by (seed, step, item), so a run that was killed and continued ends with the same
weights as one that was not.
"""

import copy
import math
import signal
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from guided_diffusion import logger
from guided_diffusion.checkpoints import StateDict, save_checkpoint, save_plain
from guided_diffusion.config import Header
from guided_diffusion.errors import InputError
from guided_diffusion.image_datasets import CropSource
from guided_diffusion.losses import WEIGHTINGS
from guided_diffusion.methods import METHODS
from guided_diffusion.resample import create_named_schedule_sampler
from guided_diffusion.train_config import TrainSettings
from guided_diffusion.train_files import ProgressTable, Start, ema_path, model_path, optimiser_path
from guided_diffusion.unet import UNetModel
from guided_diffusion.validation import Score, Validator

# Names of the random numbers of a step, apart from those of its crops.
TIMESTEP_STREAM, DROPOUT_STREAM = 3, 4

PROGRESS_COLUMNS = (
    "step", "minutes", "loss", "mse", "vb", "loss_q0", "loss_q1", "loss_q2", "loss_q3",
    "grad_norm", "lr", "voxels_per_s", "waiting_for_data",
)  # fmt: skip
VALIDATION_COLUMNS = ("step", "minutes", "ema_rate", "psnr_low_dose", "psnr_denoised")


@dataclass(frozen=True)
class Batch:
    """Crops of one step, normalised, [N, 1, Z, X, Y], and noise of their shape."""

    low_dose: Tensor
    normal_dose: Tensor
    noise: Tensor


def batches(source: CropSource, batch_size: int, first_step: int) -> Iterator[Batch]:
    """The batches of all steps from `first_step` on. The next one is prepared while the last one is used."""
    with ThreadPoolExecutor(1) as pool:
        upcoming = pool.submit(_batch, source, batch_size, first_step)
        step = first_step
        while True:
            batch = upcoming.result()
            step += 1
            upcoming = pool.submit(_batch, source, batch_size, step)
            yield batch


def _batch(source: CropSource, batch_size: int, step: int) -> Batch:
    crops = [source.crop(step, item) for item in range(batch_size)]
    return Batch(
        *(
            torch.from_numpy(np.stack([getattr(crop, name) for crop in crops]))
            for name in ("low_dose", "normal_dose", "noise")
        )
    )


def effective_ema_rate(rate: float, step: int) -> float:
    """A moving average forgets faster in its first steps, so that it does not remember the untrained weights."""
    return min(rate, (1 + step) / (10 + step))


class TrainLoop:
    """Trains `model` until a limit of the settings is reached.

    model: in float32, on its device, with its first weights; those of `start` if there is one. validator:
    None for a run without validation. provenance: what headers say about the run's data and command.
    """

    def __init__(
        self,
        settings: TrainSettings,
        model: UNetModel,
        source: CropSource,
        validator: Validator | None,
        start: Start | None,
        provenance: dict[str, Any],
    ):
        options = settings.optimisation
        self.settings = settings
        self.model = model.train()
        self.source = source
        self.validator = validator
        self.provenance = provenance
        self.folder = Path(settings.run.save_dir)
        self.device = next(model.parameters()).device
        self.diffusion = METHODS[options.method].create_process(settings.diffusion)
        self._weighting = WEIGHTINGS[options.loss_weighting]
        self.schedule_sampler = create_named_schedule_sampler(options.schedule_sampler, self.diffusion.num_timesteps)
        self.optimiser = torch.optim.AdamW(model.parameters(), lr=options.lr, weight_decay=options.weight_decay)
        # The published rule: the scale's binary logarithm grows every step and falls by one at an overflow.
        self.scaler = torch.amp.GradScaler(
            self.device.type,
            init_scale=2.0**20,
            growth_factor=2.0**options.fp16_scale_growth,
            backoff_factor=0.5,
            growth_interval=1,
            enabled=settings.model.use_fp16,
        )
        self.step = 0
        self.minutes_before = 0.0
        self.best = -math.inf
        self.averages = {rate: _copy_of(self.model.state_dict()) for rate in settings.ema_rates}
        if start is not None and start.optimiser is not None:
            self._continue_from(start)
        self._began = time.monotonic()
        self._progress = ProgressTable(self.folder / "progress.csv", PROGRESS_COLUMNS, self.step)
        self._validations = ProgressTable(self.folder / "validation.csv", VALIDATION_COLUMNS, self.step)

    def _continue_from(self, start: Start) -> None:
        """Take over everything but the weights from a saved set."""
        state = start.optimiser
        for rate, checkpoint in start.averages.items():
            for name, value in self.averages[rate].items():
                value.copy_(checkpoint.state_dict[name])
        self.optimiser.load_state_dict(state["optimiser"])
        self.scaler.load_state_dict(state["scaler"])
        self.schedule_sampler.load_state_dict(state["schedule_sampler"])
        self.step = state["step"]
        self.minutes_before = state["minutes"]
        self.best = state["best"]

    @property
    def minutes(self) -> float:
        """Time spent on training, in all runs together."""
        return self.minutes_before + (time.monotonic() - self._began) / 60

    def run(self) -> None:
        """Train until a limit is reached or the process is asked to stop, then save."""
        options, run = self.settings.optimisation, self.settings.run
        saved_at = self.step
        batch_stream = batches(self.source, options.batch_size, self.step)
        with _stop_on_signals() as stop, self._progress_bar() as bar:
            interval = _Interval()
            while not (stop.asked or self._at_a_limit()):
                waiting = time.monotonic()
                batch = next(batch_stream)
                interval.waited += time.monotonic() - waiting
                interval.add(self._train_step(batch), batch.noise.numel())
                bar.update()
                if self.step % run.log_interval == 0:
                    row = interval.row()
                    self._progress.add({"step": self.step, "minutes": self.minutes} | row)
                    bar.set_postfix_str(self._standing(row))
                    interval = _Interval()
                if run.validation_interval and self.step % run.validation_interval == 0:
                    self._validate()
                if self.step % run.save_interval == 0:
                    self._save()
                    saved_at = self.step
        batch_stream.close()
        if saved_at != self.step:
            self._save()
        logger.log(f"ended after {self.step} steps and {self.minutes:.1f} minutes")

    def _standing(self, row: dict[str, float]) -> str:
        """What the progress bar says beside the steps."""
        standing = f"loss {row['loss']:.3g}, {row['voxels_per_s'] / 1e6:.3f} Mvoxels/s"
        if self.settings.run.max_minutes:
            standing += f", {self._minutes_of_this_run():.0f} of {self.settings.run.max_minutes:g} minutes"
        return standing

    def _minutes_of_this_run(self) -> float:
        return self.minutes - self.minutes_before

    def _at_a_limit(self) -> bool:
        last, most = self._last_step(), self.settings.run.max_minutes
        return (last > 0 and self.step >= last) or (most > 0 and self._minutes_of_this_run() >= most)

    def _last_step(self) -> int:
        """The step that ends the run, 0 if none does."""
        return min(filter(None, (self.settings.run.max_steps, self.settings.optimisation.lr_anneal_steps)), default=0)

    @contextmanager
    def _progress_bar(self) -> Iterator[tqdm]:
        """A bar on a terminal, nothing elsewhere."""
        with tqdm(
            total=self._last_step() or None, initial=self.step, unit="step", desc="training", disable=None
        ) as bar:
            yield bar

    def _learning_rate(self) -> float:
        """Of the next step: the published linear descent to 0, after an optional linear ascent."""
        options = self.settings.optimisation
        rate = options.lr
        if options.lr_anneal_steps:
            rate *= 1 - self.step / options.lr_anneal_steps
        if self.step < options.lr_warmup_steps:
            rate *= (self.step + 1) / options.lr_warmup_steps
        return rate

    def _train_step(self, batch: Batch) -> dict[str, float]:
        """One step of the optimiser and of the moving averages. Returns what there is to report of it."""
        options = self.settings.optimisation
        rate = self._learning_rate()
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        torch.manual_seed(int(self._generator(DROPOUT_STREAM).integers(2**63)))
        timesteps, weights = self._draw_timesteps(len(batch.noise))
        report = self._accumulate_gradients(batch, timesteps, weights)
        self.scaler.unscale_(self.optimiser)
        limit = options.grad_clip or math.inf
        report["grad_norm"] = torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit).item()
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.optimiser.zero_grad(set_to_none=True)
        self.step += 1
        self._update_averages()
        return report | {"lr": rate}

    def _generator(self, stream: int, item: int = 0) -> np.random.Generator:
        """Random numbers by the name (seed, purpose, step, item)."""
        return np.random.default_rng([self.settings.optimisation.seed, stream, self.step, item])

    def _draw_timesteps(self, count: int) -> tuple[Tensor, Tensor]:
        """Timesteps and loss weights of a batch, each [N]."""
        draws = [self.schedule_sampler.sample(1, self._generator(TIMESTEP_STREAM, item)) for item in range(count)]
        timesteps, weights = (torch.cat(values) for values in zip(*draws, strict=True))
        return timesteps, weights

    def _accumulate_gradients(self, batch: Batch, timesteps: Tensor, weights: Tensor) -> dict[str, float]:
        """Gradients of the mean weighted loss of a batch, over microbatches. Returns the mean loss and its terms."""
        count = len(timesteps)
        size = self.settings.optimisation.microbatch
        totals: dict[str, float] = defaultdict(float)
        by_quartile: dict[str, list[float]] = defaultdict(list)
        for part in torch.arange(count).split(size if size > 0 else count):
            low_dose, normal_dose, noise, t = (
                values[part].to(self.device) for values in (batch.low_dose, batch.normal_dose, batch.noise, timesteps)
            )
            with self._autocast():
                terms = self.diffusion.training_losses(self.model, normal_dose, t, {"low_res": low_dose}, noise)
            weighted = terms["loss"] * weights[part].to(self.device) * self._weighting(low_dose, normal_dose)
            self.scaler.scale(weighted.sum() / count).backward()
            losses = terms["loss"].detach().float().cpu()
            if not self.scaler.is_enabled() and not losses.isfinite().all():
                raise InputError(
                    f"{self.folder}: the loss of step {self.step} is not finite; lower --lr or set --grad_clip"
                )
            self.schedule_sampler.update(timesteps[part], losses)
            for name, values in terms.items():
                totals[name] += values.detach().sum().item() / count
            for step, loss in zip(timesteps[part].tolist(), losses.tolist(), strict=True):
                by_quartile[f"loss_q{4 * step // self.diffusion.num_timesteps}"].append(loss)
        return totals | {name: float(np.mean(values)) for name, values in by_quartile.items()}

    def _autocast(self) -> torch.autocast:
        """Float32 weights, computing in the precision of the settings."""
        half = torch.float16 if self.settings.model.use_fp16 else torch.bfloat16
        reduced = self.settings.model.use_fp16 or self.settings.optimisation.precision == "bfloat16"
        return torch.autocast(self.device.type, half, enabled=reduced)

    @torch.no_grad()
    def _update_averages(self) -> None:
        weights = self.model.state_dict()
        for rate, average in self.averages.items():
            share = 1 - effective_ema_rate(float(rate), self.step)
            for name, value in average.items():
                value.lerp_(weights[name], share)

    def _validate(self) -> None:
        """Score the first moving average, and keep it if it is the best so far."""
        if self.validator is None:
            return
        rate = self.settings.ema_rates[0]
        score = self.validator.score(self._for_sampling(self.averages[rate]))
        self._validations.add(
            {
                "step": self.step,
                "minutes": self.minutes,
                "ema_rate": rate,
                "psnr_low_dose": score.low_dose,
                "psnr_denoised": score.denoised,
            }
        )
        better = score.denoised > self.best
        logger.log(
            f"step {self.step}: validation PSNR {score.denoised:.2f} dB, low dose {score.low_dose:.2f} dB"
            + (", the best so far" if better else "")
        )
        if better:
            self.best = score.denoised
            save_checkpoint(ema_path(self.folder, rate, "best"), self.averages[rate], self._header(rate, score))

    def _for_sampling(self, weights: StateDict) -> UNetModel:
        """A copy of the network with the given weights, in the precision that the header recommends for sampling."""
        model = copy.deepcopy(self.model).eval()
        model.load_state_dict(weights)
        return model.to(torch.bfloat16) if self.settings.sampler.bfloat16 else model

    def _header(self, rate: str | None, score: Score | None = None) -> Header:
        """The header of the weights as they are now; `rate` is None for the weights as trained."""
        training = self.provenance | {"step": self.step, "minutes": round(self.minutes, 1), "ema_rate": rate}
        if score is not None:
            training |= {
                "validation_psnr": round(score.denoised, 3),
                "validation_psnr_low_dose": round(score.low_dose, 3),
            }
        return Header(
            method=self.settings.optimisation.method,
            model=replace(self.settings.model, use_fp16=False),
            diffusion=self.settings.diffusion,
            preprocessing=self.settings.preprocessing,
            sampler=self.settings.sampler,
            training=training,
        )

    def _save(self) -> None:
        """Write model, moving averages and, last, what continuing takes."""
        save_checkpoint(model_path(self.folder, self.step), self.model.state_dict(), self._header(None))
        for rate, average in self.averages.items():
            save_checkpoint(ema_path(self.folder, rate, self.step), average, self._header(rate))
        state = {
            "step": self.step,
            "minutes": self.minutes,
            "best": self.best,
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
            "schedule_sampler": self.schedule_sampler.state_dict(),
        }
        save_plain(optimiser_path(self.folder, self.step), state)
        logger.log(f"step {self.step}: saved {model_path(self.folder, self.step)}")


def _copy_of(weights: StateDict) -> StateDict:
    return {name: value.detach().clone() for name, value in weights.items()}


class _Interval:
    """What has happened since the last row of the progress table."""

    def __init__(self) -> None:
        self.waited = 0.0
        self._began = time.monotonic()
        self._voxels = 0
        self._values: dict[str, list[float]] = defaultdict(list)

    def add(self, report: dict[str, float], voxels: int) -> None:
        """Take note of a step."""
        self._voxels += voxels
        for name, value in report.items():
            self._values[name].append(value)

    def row(self) -> dict[str, float]:
        """Means over the steps, voxels per second, and the fraction of the time that was spent waiting for data."""
        seconds = time.monotonic() - self._began
        means = {name: float(np.mean(values)) for name, values in self._values.items()}
        return means | {"voxels_per_s": self._voxels / seconds, "waiting_for_data": self.waited / seconds}


class _Stop:
    asked = False


@contextmanager
def _stop_on_signals() -> Iterator[_Stop]:
    """Within the block, the first interrupt or termination signal asks for an end; another one enforces it."""
    stop = _Stop()

    def ask(number: int, _frame: object) -> None:
        stop.asked = True
        logger.log(f"{signal.Signals(number).name}: ending after this step")
        signal.signal(number, previous[number])

    previous = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
