"""The scans, weights and pairs of a soak, and what undisturbed runs make of them."""

import random
import time
from pathlib import Path

import numpy as np
import torch

import guided_diffusion.commands.denoise
import guided_diffusion.commands.train  # noqa: F401 (both loaded before runs are forked)
from guided_diffusion.checkpoints import load_checkpoint, save_checkpoint
from guided_diffusion.script_util import create_model
from tests.denoising import SMALL_HEADER, samples_in
from tests.golden_weights import fill
from tests.soak_jobs import ForkedJob, Job
from tests.training_runs import TINY

GOOD = ("a_good", "z_good")


class Stage:
    """Scans, weights and pairs, and what undisturbed runs make of them."""

    def __init__(self, folder: Path, rng: random.Random):
        self.folder, self.rng = folder, rng
        torch.set_num_threads(1)  # a process with threads of its own is not to be forked
        self.model = folder / "small.pt"
        network = fill(create_model(SMALL_HEADER.model, SMALL_HEADER.diffusion))
        save_checkpoint(self.model, network.state_dict(), SMALL_HEADER)
        self.scans, self.pairs = folder / "scans", folder / "pairs"
        self.scans.mkdir()
        self.pairs.mkdir()
        numbers = np.random.default_rng(0)
        for name in GOOD:
            np.savez(self.scans / f"{name}.npz", arr_0=numbers.gamma(2.0, 1.0, (10, 12, 61)).astype(np.float32))
        for name in ("one", "two"):
            np.savez(self.pairs / f"{name}.npz", arr_0=numbers.gamma(2.0, 1.0, (2, 16, 20, 12)).astype(np.float32))
        self._references: dict[tuple, dict[str, np.ndarray]] = {}
        self._count = 0

    def new_folder(self) -> Path:
        self._count += 1
        return self.folder / f"out{self._count}"

    def _start(self, script: str, arguments: list[object], ranks: int, **how: int | None) -> Job | ForkedJob:
        self._count += 1
        log = self.folder / f"stderr{self._count}"
        if ranks == 1:
            return ForkedJob(script, arguments, log, **how)
        return Job(script, arguments, ranks, log)

    def denoise(self, out: Path, flags: list[object], ranks: int, **how: int | None) -> Job | ForkedJob:
        arguments = ["--base_samples", self.scans, "--model_path", self.model, "--save_dir", out, "--resume", True]
        return self._start("scripts/test.py", [*arguments, "--threads", 1, *flags], ranks, **how)

    def train(self, out: Path, ranks: int) -> Job | ForkedJob:
        flags = TINY | {"data_dir": self.pairs, "save_dir": out, "max_steps": 12, "save_interval": 3, "batch_size": 1}
        arguments = [text for name, value in flags.items() for text in (f"--{name}", value)]
        return self._start("scripts/train.py", arguments, ranks)

    def reference(self, flags: list[object], ranks: int) -> dict[str, np.ndarray]:
        """What an undisturbed run makes of the good scans, and how long it takes, as `seconds`."""
        key = (*map(str, flags), min(ranks, 2))
        if key not in self._references:
            out, began = self.new_folder(), time.monotonic()
            job = self.denoise(out, flags, min(ranks, 2))
            if not job.ends_within() or job.exit_code not in (0, 2):
                raise RuntimeError(f"the undisturbed run failed: {job.says()}")
            self._references[key] = {name: samples_in(out / name) for name in GOOD}
            self._references[key]["seconds"] = np.array(time.monotonic() - began)
        return self._references[key]

    def trained(self, ranks: int) -> dict[str, torch.Tensor]:
        """Weights after an undisturbed training, under the names of their files, and its `seconds`."""
        key = ("train", ranks)
        if key not in self._references:
            out, began = self.new_folder(), time.monotonic()
            job = self.train(out, ranks)
            if not job.ends_within() or job.exit_code != 0:
                raise RuntimeError(f"the undisturbed training failed: {job.says()}")
            self._references[key] = last_weights(out)
            self._references[key]["seconds"] = torch.tensor(time.monotonic() - began)
        return self._references[key]


def last_weights(out: Path) -> dict[str, torch.Tensor]:
    found = {}
    for file in (out / "model000012.pt", out / "ema_0.9_000012.pt"):
        found |= {f"{file.name} {name}": value for name, value in load_checkpoint(str(file)).state_dict.items()}
    return found
