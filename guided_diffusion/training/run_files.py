"""What a training run starts from, and the tables in its folder."""

import csv
import errno
import io
import itertools
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guided_diffusion import logger
from guided_diffusion.checkpoints import Checkpoint, load_checkpoint, read_plain
from guided_diffusion.errors import InputError
from guided_diffusion.files import atomic_write, sha256_of
from guided_diffusion.gate import open_regular
from guided_diffusion.pet.text import number_of
from guided_diffusion.training.saved_sets import (
    check_set,
    ema_path,
    model_path,
    optimiser_path,
    saved_steps,
    step_of,
)


class OtherRatesError(InputError):
    """A set is whole, but has moving averages of other rates."""


@dataclass(frozen=True)
class Start:
    """The start of a run: initial weights and, to continue a run, its state.

    began_from: SHA-256 of the weights that the run was initialised with, empty if there were none.
    """

    weights_path: Path
    weights: Checkpoint
    averages: dict[str, Checkpoint]
    optimiser: dict[str, Any] | None
    began_from: str = ""


def find_start(
    save_dir: Path, resume_checkpoint: str, rates: Iterable[str], begins_with: str | None = None
) -> Start | None:
    """Finds the start: the run in `save_dir` if there is one, else `resume_checkpoint`, else None.

    A `resume_checkpoint` inside `save_dir` takes precedence over its newest set. Elsewhere, weights with `opt######.pt`
    beside them are continued, and others only initialise a new run, as do those of the method `begins_with`. Damaged
    sets at the end of the run in `save_dir` are skipped with a notice. Raises InputError for files that are remote,
    missing or unreadable, for an `opt######.pt` of another program, and if `save_dir` holds a run that the command does
    not continue.
    """
    if "://" in resume_checkpoint:
        raise InputError(
            f"--resume_checkpoint {resume_checkpoint}: training begins with local files; copy it here, and to continue"
            " its run the ema_* and opt* beside it"
        )
    path = Path(resume_checkpoint) if resume_checkpoint else None
    is_inside = path is not None and path.resolve().parent == save_dir.resolve()
    if not saved_steps(save_dir):
        return None if path is None else read_start(path, rates, begins_with)
    if not is_inside:
        start = _newest_intact(save_dir, rates)
        if path is not None:
            _check_same_beginning(path, start, save_dir)
        return start
    if not path.exists():
        raise InputError(f"{path}: no such checkpoint")
    step = step_of(path)
    if step is None or not optimiser_path(save_dir, step).exists():
        raise InputError(
            f"--resume_checkpoint {path}: does not continue the run in {save_dir}, whose files a new run would replace;"
            " choose another --save_dir for a new run, or to continue a model######.pt with its opt######.pt beside it"
        )
    check_set(save_dir, step)
    return read_start(path, rates)


def read_start(path: Path, rates: Iterable[str], begins_with: str | None = None) -> Start:
    """The set that a `model######.pt` belongs to; only the weights if there is no `opt######.pt` beside them, or if
    they are of the method `begins_with`, whose optimiser's state fits no other network.

    Raises InputError for files that are missing, damaged or of another program.
    """
    step = step_of(path)
    weights = load_checkpoint(str(path))
    is_alone = step is None or not optimiser_path(path.parent, step).exists()
    if is_alone or is_of_method(weights, begins_with):
        return Start(path, weights, {}, None, sha256_of(path))
    optimiser = read_plain(str(optimiser_path(path.parent, step)))
    if "step" not in optimiser:
        raise InputError(
            f"{optimiser_path(path.parent, step)}: of another program, as the published one; to begin a new run with"
            f" the weights beside it, copy {path.name} into a folder of its own"
        )
    if optimiser["step"] != step:
        raise InputError(f"{optimiser_path(path.parent, step)}: holds the state of step {optimiser['step']}")
    averages = {rate: load_checkpoint(str(_average_of(path.parent, rate, step))) for rate in rates}
    return Start(path, weights, averages, optimiser, optimiser.get("began_from", ""))


def is_of_method(weights: Checkpoint, name: str | None) -> bool:
    """Whether the header of the weights names this method."""
    return weights.header is not None and weights.header.method == name


def _average_of(folder: Path, rate: str, step: int) -> Path:
    """The average of a rate in a set, whichever way the rate is written (0.9 or 0.90).

    Raises InputError if the set has no average, and OtherRatesError that names the rates that there are.
    """
    path = ema_path(folder, rate, step)
    if path.exists():
        return path
    averages = {
        other.name.removeprefix("ema_").rpartition("_")[0]: other for other in folder.glob(f"ema_*_{step:06d}.pt")
    }
    if not averages:
        raise InputError(f"{path}: no such checkpoint; the set has no average")
    same = [other for text, other in averages.items() if number_of(text) == float(rate)]
    if not same:
        raise OtherRatesError(
            f"{path}: no such checkpoint; the run has --ema_rate {','.join(sorted(averages))}: give that, or another"
            " --save_dir for a new run"
        )
    return same[0]


def _newest_intact(folder: Path, rates: Iterable[str]) -> Start:
    """The newest intact set of the run in a folder.

    Raises the InputError of the newest if none is intact, and OtherRatesError for one that is, but has other averages.
    """
    mistakes = []
    for step in saved_steps(folder):
        try:
            check_set(folder, step)
            return read_start(model_path(folder, step), rates)
        except OtherRatesError:
            raise
        except InputError as mistake:
            mistakes.append(mistake)
            logger.log(f"notice: {mistake}; looking for an older set")
    raise InputError(f"{mistakes[0]}; no older set in {folder} is whole: choose another --save_dir to begin a new run")


def _check_same_beginning(path: Path, start: Start, folder: Path) -> None:
    """Raises InputError if the run was started from other weights than the command now names."""
    begun = start.optimiser.get("began_from") if start.optimiser else None
    if begun is not None and path.exists() and sha256_of(path) != begun:
        what = "other weights" if begun else "no weights"
        raise InputError(
            f"--resume_checkpoint {path}: the run in {folder} was begun from {what}; choose another --save_dir"
        )


class ProgressTable:
    """A CSV file to which rows are appended one at a time.

    When a run continues at `step`, rows that will be computed again and rows after a damaged one are removed first.
    """

    def __init__(self, path: Path, columns: Iterable[str], step: int):
        self._path = path
        self._columns = list(columns)
        self._lacks_rows = False
        kept = [row for row in self.read() if int(row["step"]) <= step]
        with atomic_write(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self._columns, lineterminator="\n", extrasaction="ignore")
            writer.writeheader()
            writer.writerows(kept)

    def read(self) -> list[dict[str, str]]:
        """The rows as text; empty if there is no file. Raises InputError for another kind of file.

        Zeros or half a row at the end, as left by a crash of the machine, are skipped with a notice.
        """
        if not self._path.exists():
            return []
        with open_regular(self._path) as file:
            text = file.read().decode("utf-8", "replace")
        if text and not text.startswith("step,"):
            raise InputError(f"{self._path}: not a table of a training run; choose another --save_dir")
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
        whole = list(itertools.takewhile(_is_whole, rows))
        if len(whole) < len(rows):
            logger.log(f"notice: {self._path}: damaged from row {len(whole) + 1} on, which is left out")
        return whole

    def add(self, row: dict[str, Any]) -> None:
        """Append a row; columns that it lacks stay empty, numbers keep six digits.

        A row that cannot be written, as on a full disk, is left out, with a notice the first time: steps since the last
        save would be lost if it ended the run.
        """
        rounded = {name: f"{value:.6g}" if isinstance(value, float) else value for name, value in row.items()}
        text = io.StringIO(newline="")
        csv.DictWriter(text, self._columns, lineterminator="\n").writerow(rounded)
        try:
            _append(self._path, text.getvalue().encode())
        except OSError as error:
            if not self._lacks_rows:
                self._lacks_rows = True
                logger.log(
                    f"notice: {self._path}: {error.strerror}; rows are left out, and training goes on: make room before"
                    " the next save"
                )


def _append(path: Path, content: bytes) -> None:
    """Append to a file everything or, as an OSError says, nothing: after half a row no other could be read."""
    with open(path, "ab", buffering=0) as file:
        before = file.tell()
        if file.write(content) < len(content):
            file.truncate(before)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _is_whole(row: dict[str | None, Any]) -> bool:
    """Whether a row has a step, as many values as the table has columns, and numbers only."""
    if None in row or None in row.values() or not row["step"].isdecimal():
        return False
    try:
        for value in row.values():
            float(value or 0)
    except ValueError:
        return False
    return True
