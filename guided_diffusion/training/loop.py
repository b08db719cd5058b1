"""The training loop, with everything that makes a run reproducible, resumable and observable.

Crops, noise and timesteps are identified by (seed, step, item), so a run that was killed and continued ends with the
same weights as one that was not. All ranks train; only rank 0 averages, validates and writes.
"""

import copy
import math
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from guided_diffusion import logger
from guided_diffusion.checkpoints import StateDict, save_checkpoint, save_plain
from guided_diffusion.config import Header
from guided_diffusion.dist_util import communicator, on_root, raise_together
from guided_diffusion.errors import Failure, InputError
from guided_diffusion.image_datasets import CropSource
from guided_diffusion.machine.half_precision import has_bfloat16
from guided_diffusion.methods.registry import METHODS
from guided_diffusion.ranks.stalls import sign_of_life, working
from guided_diffusion.training.averages import MovingAverages
from guided_diffusion.training.batches import Batch, batches
from guided_diffusion.training.progress import VALIDATION_COLUMNS, ProgressInterval, progress_bar, progress_columns
from guided_diffusion.training.ranks import gathered
from guided_diffusion.training.run_files import ProgressTable, Start
from guided_diffusion.training.run_pictures import draw_curves, draw_example
from guided_diffusion.training.saved_sets import (
    begin_set,
    ema_path,
    model_path,
    optimiser_path,
    prune,
    write_digests,
)
from guided_diffusion.training.settings import TrainSettings
from guided_diffusion.training.step import TrainStep
from guided_diffusion.training.stop import Stop, stop_on_signals
from guided_diffusion.training.validation import Score, Validator


class TrainingRun:
    """Trains `model` until a limit of the settings is reached.

    All ranks build and run it alike, within their process group. model: float32, on its device, with its initial
    weights (those of `start`, if given). validator: None on ranks other than 0, and for runs without validation.
    provenance: description of data and command for headers. loader_threads: threads that prepare crops on this rank.
    """

    def __init__(
        self,
        settings: TrainSettings,
        model: nn.Module,
        source: CropSource,
        validator: Validator | None,
        start: Start | None,
        provenance: dict[str, Any],
        loader_threads: int = 1,
    ):
        self.settings = settings
        self.model = model
        self.source = source
        self.validator = validator
        self.provenance = provenance
        self.loader_threads = loader_threads
        self.folder = Path(settings.run.save_dir)
        self._is_root = communicator().rank == 0
        self.trainer = TrainStep(settings, model)
        self.averages = MovingAverages(model, settings.ema_rates if self._is_root else ())
        self.step = 0
        self.minutes_before = 0.0
        # The best score, and the low dose's on the crops that it was measured on, by which these are known.
        self.best, self._best_low_dose = -math.inf, None
        self._last_score: Score | None = None
        self._began_from = start.began_from if start else ""
        self._start_step: int | None = None
        if start is not None and start.optimiser is not None:
            self._continue_from(start)
        self._began = time.monotonic()
        on_root(self._open_tables)

    @property
    def global_batch(self) -> int:
        """Crops per step, on all ranks together."""
        return communicator().size * self.settings.optimisation.batch_size

    def _continue_from(self, start: Start) -> None:
        """Restore everything except the weights from a saved set."""
        state = start.optimiser
        for rate in self.averages.by_rate:
            self.averages.load(rate, start.averages[rate].state_dict)
        self.trainer.load_state_dict(state)
        self.step = self._start_step = state["step"]
        self.minutes_before = state["minutes"]
        self.best, self._best_low_dose = state["best"], state.get("best_low_dose")
        # Sets that were saved before there were several ranks do not hold their number.
        saved, now = state.get("ranks"), communicator().size
        if saved not in (None, now):
            logger.log(f"{saved} rank(s) until now, {now} from here on")

    def _open_tables(self) -> None:
        method = METHODS[self.settings.optimisation.method]
        self._progress = ProgressTable(self.folder / "progress.csv", progress_columns(method.terms), self.step)
        self._validations = ProgressTable(self.folder / "validation.csv", VALIDATION_COLUMNS, self.step)

    @property
    def minutes(self) -> float:
        """Time spent on training, in all runs together."""
        return self.minutes_before + self._minutes_of_this_run()

    def _minutes_of_this_run(self) -> float:
        return (time.monotonic() - self._began) / 60

    def run(self) -> None:
        """Train until a limit is reached or a rank's process is asked to stop, then save."""
        run = self.settings.run
        saved_at = self.step
        on_gpu = self.trainer.device.type == "cuda"
        stream = batches(self.source, self.trainer.items, self.step, self.loader_threads, pinned=on_gpu)
        with stop_on_signals() as stop, closing(stream), progress_bar(self.step, self._last_step()) as bar:
            interval = ProgressInterval()
            while not self._at_last_step():
                waiting = time.monotonic()
                batch, mistake = _next_or_mistake(stream)
                interval.waited += time.monotonic() - waiting
                if self._agree_to_end(stop, mistake):
                    break
                with working(f"step {self.step + 1}"):
                    report = self.trainer.take(batch, self.step)
                    sign_of_life()
                self.step += 1
                self.averages.update(self.step)
                interval.add(report, batch.low_dose.numel() * communicator().size)
                bar.update()
                if self.step % run.log_interval == 0:
                    on_root(self._report, interval.row(), bar)
                    interval = ProgressInterval()
                with interval.paused():
                    if run.validation_interval and self.step % run.validation_interval == 0:
                        on_root(self._validate)
                    if self.step % run.save_interval == 0:
                        on_root(self._save)
                        saved_at = self.step
            # Within the block, so that a signal that comes again does not end the process while it saves.
            if saved_at != self.step:
                on_root(self._save)
        logger.log(f"ended after {self.step} steps and {self.minutes:.1f} minutes")

    def _agree_to_end(self, stop: Stop, mistake: InputError | None) -> bool:
        """Whether all ranks stop here, because one was asked to or rank 0's time is up.

        Raises InputError on every rank if one of them cannot continue.
        """
        out_of_time = 0 < self.settings.run.max_minutes <= self._minutes_of_this_run()
        here = torch.tensor([mistake is not None, stop.asked, self._is_root and out_of_time])
        stuck, asked, limit = gathered(here.int()).bool().unbind(dim=1)
        if stuck.any():
            raise_together(mistake)
        if asked.any() and not asked[0]:
            logger.log(f"rank {asked.nonzero()[0].item()} was asked to stop: ending after this step")
        return bool(asked.any() or limit.any())

    def _at_last_step(self) -> bool:
        last = self._last_step()
        return last > 0 and self.step >= last

    def _last_step(self) -> int:
        """The step that ends the run, 0 if none does."""
        return min(filter(None, (self.settings.run.max_steps, self.settings.optimisation.lr_anneal_steps)), default=0)

    def _report(self, row: dict[str, float], bar: tqdm) -> None:
        """Write a row of the progress table, and show it beside the progress bar."""
        self._progress.add({"step": self.step, "minutes": self.minutes} | row)
        standing = f"loss {row['loss']:.3g}, {row['voxels_per_s'] / 1e6:.3f} Mvoxels/s"
        if self._last_score is not None:
            standing += f", PSNR {self._last_score.psnr_denoised:.2f} dB, SSIM {self._last_score.ssim_denoised:.4f}"
        if self.settings.run.max_minutes:
            standing += f", {self._minutes_of_this_run():.0f} of {self.settings.run.max_minutes:g} minutes"
        bar.set_postfix_str(standing)

    def _validate(self) -> None:
        """Score the first moving average, draw the run's pictures, and keep the average if it is the best so far."""
        if self.validator is None:
            return
        rate = self.settings.ema_rates[0]
        average = self.averages.by_rate[rate]
        score = self._last_score = self._score(average)
        about = {"step": self.step, "minutes": self.minutes, "ema_rate": rate}
        self._validations.add(about | {name: value for name, value in vars(score).items() if name != "example"})
        if score.psnr_low_dose != self._best_low_dose:
            if self.best > -math.inf:
                logger.log("notice: other validation crops than before: which average is the best is found anew")
            self.best, self._best_low_dose = -math.inf, score.psnr_low_dose
        better = score.psnr_denoised > self.best
        logger.log(
            f"step {self.step}: validation PSNR {score.psnr_denoised:.2f} dB, SSIM {score.ssim_denoised:.4f};"
            f" low dose {score.psnr_low_dose:.2f} dB, {score.ssim_low_dose:.4f}"
            + ("; the best so far" if better else "")
        )
        try:
            self._draw(score)
            if better:
                save_checkpoint(ema_path(self.folder, rate, "best"), average, self._header(rate, score))
                self.best = score.psnr_denoised
        except (Failure, InputError) as error:
            # As on a full disk. The steps since the last save would be lost.
            logger.log(f"notice: training goes on to its next save, although: {error}")

    def _draw(self, score: Score) -> None:
        """Write the run's pictures."""
        draw_curves(self.folder / "curves.png", self._progress.read(), self._validations.read())
        draw_example(
            self.folder / "validation_slice.png",
            score.example,
            self.settings.preprocessing.suv_max,
            self.settings.preprocessing.voxel_mm,
            f"step {self.step}",
        )

    def _score(self, weights: StateDict) -> Score:
        """The validator's score of a copy of the network with these weights, in the precision that inference uses."""
        model = copy.deepcopy(self.model).eval()
        model.load_state_dict(weights)
        reduced = self.settings.sampler.bfloat16 and has_bfloat16(self.trainer.device)
        return self.validator.score(model.to(torch.bfloat16) if reduced else model)

    def _header(self, rate: str | None, score: Score | None = None) -> Header:
        """The header of the weights as they are now; `rate` is None for the weights as trained."""
        training = self.provenance | {"step": self.step, "minutes": round(self.minutes, 1), "ema_rate": rate}
        if score is not None:
            training |= {
                "validation_psnr": round(score.psnr_denoised, 3),
                "validation_psnr_low_dose": round(score.psnr_low_dose, 3),
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
        """Write the weights, their moving averages, the optimiser's state and the digests; then delete old sets."""
        begin_set(self.folder, self.step)
        save_checkpoint(model_path(self.folder, self.step), self.model.state_dict(), self._header(None))
        for rate, average in self.averages.by_rate.items():
            save_checkpoint(ema_path(self.folder, rate, self.step), average, self._header(rate))
        state = {
            "step": self.step,
            "minutes": self.minutes,
            "best": self.best,
            "best_low_dose": self._best_low_dose,
            "ranks": communicator().size,
            "began_from": self._began_from,
        }
        save_plain(optimiser_path(self.folder, self.step), state | self.trainer.state_dict())
        write_digests(self.folder, self.step, tuple(self.averages.by_rate))
        prune(self.folder, self.settings.run.keep_sets, self.step, self._start_step)
        logger.log(f"step {self.step}: saved {model_path(self.folder, self.step)}")


def _next_or_mistake(stream: Iterator[Batch]) -> tuple[Batch | None, InputError | None]:
    """The next batch, or the reason why there is none."""
    try:
        return next(stream), None
    except InputError as mistake:
        return None, mistake
