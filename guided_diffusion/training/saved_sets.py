"""The sets of files that training saves: `model######.pt`, `ema_<rate>_######.pt` and `opt######.pt` of one step.

The number is that of finished steps. `digests######.json` is empty while a set is being written and finally contains
the SHA-256 of its files, so that complete, damaged and unfinished sets can be told apart. Sets of earlier
versions have no such file.
"""

import json
import re
from pathlib import Path

from guided_diffusion.errors import InputError
from guided_diffusion.files import sha256_of, write_text

_STEP = re.compile(r"(?:model|opt)(\d{6,})\.pt")
_UNFINISHED = "{}\n"


def model_path(folder: Path, step: int) -> Path:
    """Weights as trained."""
    return folder / f"model{step:06d}.pt"


def ema_path(folder: Path, rate: str, step: int | str) -> Path:
    """A moving average of the weights; `step` may be "best"."""
    return folder / (f"ema_{rate}_{step:06d}.pt" if isinstance(step, int) else f"ema_{rate}_{step}.pt")


def optimiser_path(folder: Path, step: int) -> Path:
    """Everything else that is needed to continue."""
    return folder / f"opt{step:06d}.pt"


def digests_path(folder: Path, step: int) -> Path:
    """The SHA-256 of every other file of the set."""
    return folder / f"digests{step:06d}.json"


def step_of(path: Path) -> int | None:
    """The number in `model######.pt`, None for another name."""
    match = _STEP.fullmatch(path.name)
    return int(match[1]) if match and path.name.startswith("model") else None


def saved_steps(folder: Path) -> list[int]:
    """The steps of which a folder has weights or the optimiser's state, newest first, without unfinished sets."""
    return [step for step in _begun_steps(folder) if not _is_unfinished(folder, step)]


def _begun_steps(folder: Path) -> list[int]:
    """The steps of all sets, newest first."""
    return sorted({int(match[1]) for path in folder.iterdir() if (match := _STEP.fullmatch(path.name))}, reverse=True)


def begin_set(folder: Path, step: int) -> None:
    """Mark the set as being written, so that it is recognised as incomplete if the run is killed meanwhile."""
    write_text(digests_path(folder, step), _UNFINISHED)


def _is_unfinished(folder: Path, step: int) -> bool:
    record = digests_path(folder, step)
    return record.is_file() and record.stat().st_size == len(_UNFINISHED) and record.read_text() == _UNFINISHED


def write_digests(folder: Path, step: int, rates: tuple[str, ...]) -> None:
    """Complete a set whose other files are written."""
    paths = [model_path(folder, step), *(ema_path(folder, rate, step) for rate in rates), optimiser_path(folder, step)]
    write_text(digests_path(folder, step), json.dumps({path.name: sha256_of(path) for path in paths}, indent=2) + "\n")


def has_digests(folder: Path, step: int) -> bool:
    """Whether the set has digests to be checked against."""
    return digests_path(folder, step).is_file()


def check_set(folder: Path, step: int) -> None:
    """Raises InputError if a file of the set is missing or differs from what was saved."""
    for path in (model_path(folder, step), optimiser_path(folder, step)):
        if not path.is_file():
            raise InputError(f"{path}: is missing, and without it the run does not go on from step {step}")
    if not has_digests(folder, step):
        return
    record = digests_path(folder, step)
    try:
        digests = {str(name): str(digest) for name, digest in json.loads(record.read_text()).items()}
    except (OSError, ValueError, AttributeError, RecursionError):
        raise InputError(f"{record}: is damaged") from None
    for name, digest in digests.items():
        path = folder / Path(name).name
        if not path.is_file():
            raise InputError(f"{path}: is missing, and without it the run does not go on from step {step}")
        if sha256_of(path) != digest:
            raise InputError(f"{path}: is damaged: its bytes are not those that were saved")


def prune(folder: Path, kept: int, step: int, start: int | None) -> None:
    """Delete the oldest sets of a run that has just saved `step`, until `kept` of them are left; 0 keeps all.

    Incomplete sets of killed runs are always deleted. Sets without digests, which may be another program's, are kept,
    as are sets after `step` and that of `start`, which the run's command may name.
    """
    steps = [saved for saved in saved_steps(folder) if saved <= step and has_digests(folder, saved)]
    unfinished = [begun for begun in _begun_steps(folder) if _is_unfinished(folder, begun)]
    for old in unfinished + (steps[kept:] if kept else []):
        if old == start:
            continue
        optimiser_path(folder, old).unlink(missing_ok=True)
        for path in (model_path(folder, old), *folder.glob(f"ema_*_{old:06d}.pt")):
            path.unlink(missing_ok=True)
        digests_path(folder, old).unlink()
