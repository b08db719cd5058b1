"""The files of a training run: `model######.pt`, `ema_<rate>_######.pt` and `opt######.pt` of every save, and progress.

The number is that of finished steps. `opt` is written last, so where it stands the set is complete.
"""

import csv
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guided_diffusion.checkpoints import Checkpoint, load_checkpoint, read_plain
from guided_diffusion.errors import InputError
from guided_diffusion.files import atomic_write


@dataclass(frozen=True)
class Start:
    """Where a run begins: weights to start from, and what is needed to continue where they were left."""

    weights_path: Path
    weights: Checkpoint
    averages: dict[str, Checkpoint]
    optimiser: dict[str, Any] | None


def model_path(folder: Path, step: int) -> Path:
    """Weights as trained."""
    return folder / f"model{step:06d}.pt"


def ema_path(folder: Path, rate: str, step: int | str) -> Path:
    """A moving average of the weights; `step` may be "best"."""
    return folder / (f"ema_{rate}_{step:06d}.pt" if isinstance(step, int) else f"ema_{rate}_{step}.pt")


def optimiser_path(folder: Path, step: int) -> Path:
    """Everything else that continuing takes."""
    return folder / f"opt{step:06d}.pt"


def find_start(save_dir: Path, resume_checkpoint: str, rates: Iterable[str]) -> Start | None:
    """Where to begin: at the run in `save_dir` if it holds one, else at `resume_checkpoint`, else anew (None).

    A `resume_checkpoint` inside `save_dir` goes before its newest. Weights with `opt######.pt` beside them are
    continued, others only give the first weights. Raises InputError for files that are remote, missing or unreadable,
    and for an `opt######.pt` of another program.
    """
    if "://" in resume_checkpoint:
        raise InputError(
            f"--resume_checkpoint {resume_checkpoint}: training begins with local files; copy it here, and to continue"
            " its run the ema_* and opt* beside it"
        )
    newest = _newest(save_dir)
    path = Path(resume_checkpoint) if resume_checkpoint else newest
    if newest is not None and path.resolve().parent != save_dir.resolve():
        path = newest
    if path is None:
        return None
    weights = load_checkpoint(str(path))
    step = step_of(path)
    if step is None or not optimiser_path(path.parent, step).exists():
        return Start(path, weights, {}, None)
    optimiser = read_plain(str(optimiser_path(path.parent, step)))
    if "step" not in optimiser:
        raise InputError(
            f"{optimiser_path(path.parent, step)}: of another program, as the published one; to begin a new run with"
            f" the weights beside it, copy {path.name} into a folder of its own"
        )
    averages = {rate: load_checkpoint(str(ema_path(path.parent, rate, step))) for rate in rates}
    return Start(path, weights, averages, optimiser)


def step_of(path: Path) -> int | None:
    """The number in `model######.pt`, None for another name."""
    match = re.fullmatch(r"model(\d{6,})\.pt", path.name)
    return int(match[1]) if match else None


def _newest(folder: Path) -> Path | None:
    """The model of the newest complete set of files."""
    steps = [int(match[1]) for path in folder.glob("opt*.pt") if (match := re.fullmatch(r"opt(\d{6,})\.pt", path.name))]
    return model_path(folder, max(steps)) if steps else None


class ProgressTable:
    """A CSV file that grows by a row at a time.

    Opened by a run that continues at `step`, it first loses the rows that will be computed again.
    """

    def __init__(self, path: Path, columns: Iterable[str], step: int):
        self._path = path
        self._columns = list(columns)
        kept = [row for row in self.read() if int(row["step"]) <= step]
        with atomic_write(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self._columns, lineterminator="\n", extrasaction="ignore")
            writer.writeheader()
            writer.writerows(kept)

    def read(self) -> list[dict[str, str]]:
        """The rows as text; none where there is no file. Raises InputError for another kind of file."""
        if not self._path.exists():
            return []
        with open(self._path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        if rows and not str(rows[0].get("step", "")).isdigit():
            raise InputError(f"{self._path}: not a table of a training run; choose another --save_dir")
        return rows

    def add(self, row: dict[str, Any]) -> None:
        """Append a row; columns that it lacks stay empty, numbers keep six digits."""
        rounded = {name: f"{value:.6g}" if isinstance(value, float) else value for name, value in row.items()}
        with open(self._path, "a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self._columns, lineterminator="\n").writerow(rounded)
