"""The flags and pairs that a run was trained with, and the steps at which they changed, as recorded in headers.

A history is a list of entries {"from_step": int, "flags": dict} of plain values. The first entry has all flags that
determine the weights and, as a further one, a digest of the pairs; each later one those that were changed before that
step.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from guided_diffusion import logger
from guided_diffusion.config import Role, flags_of, flags_with
from guided_diffusion.dist_util import communicator
from guided_diffusion.image_datasets import Pair
from guided_diffusion.training.run_files import Start
from guided_diffusion.training.settings import TrainSettings

History = list[dict[str, Any]]

_PAIRS = "pairs_sha256"


def history_of_run(settings: TrainSettings, pairs: Sequence[Pair], start: Start | None) -> History:
    """The history of a run from its first step to its next, with these pairs to train on.

    Logs, in one line, the flags that differ from those at the start of the run, and in another whether the pairs do.
    The history of a run saved without one starts here.
    """
    flags = flags_of_weights(settings) | {_PAIRS: digest_of_pairs(pairs)}
    if start is None or start.optimiser is None:
        return [{"from_step": 1, "flags": flags}]
    recorded = start.weights.header.training.get("history", []) if start.weights.header else []
    history = extended(recorded, flags, start.optimiser["step"] + 1)
    began: dict[str, Any] = {}
    for entry in history:
        began |= {name: value for name, value in entry["flags"].items() if name not in began}
    differences = [name for name, value in began.items() if name in flags and flags[name] != value]
    if _PAIRS in differences:
        differences.remove(_PAIRS)
        logger.log(
            "notice: the pairs differ from those that the run began with: other files, sizes, doses or subjects in"
            f" --data_dir {settings.data.data_dir}"
        )
    if differences:
        changes = ", ".join(f"{name} {began[name]!r} -> {flags[name]!r}" for name in differences)
        logger.log(f"notice: flags differ from those that the run began with: {changes}")
    return history


def flags_of_weights(settings: TrainSettings) -> dict[str, Any]:
    """The flags that determine the weights, except those that cannot change during a run.

    Of folders only the name is kept. The number of crops per step counts over all ranks, since its division into ranks
    and `batch_size` has no effect on the weights.
    """
    flags: dict[str, Any] = {}
    for config in (settings.data, settings.optimisation, settings.model):
        declared = flags_of(type(config))
        for name in flags_with([Role.TRAINING, Role.ARITHMETIC], type(config)):
            value = getattr(config, name)
            flags[name] = Path(value).name if declared[name].is_path else value
    return flags | {"crops_per_step": communicator().size * flags.pop("batch_size")}


def digest_of_pairs(pairs: Sequence[Pair]) -> str:
    """SHA-256 of what tells the pairs of two runs apart: subjects, names and sizes of files, doses and references.

    Wherever the folder lies, the same pairs have the same digest.
    """
    listed = [
        (pair.subject, pair.path.name, pair.path.stat().st_size, pair.dose, pair.reference_noise) for pair in pairs
    ]
    return hashlib.sha256(json.dumps(sorted(listed)).encode()).hexdigest()


def extended(history: History, flags: dict[str, Any], from_step: int) -> History:
    """The history, and an entry with the flags that change at `from_step`, if any do."""
    in_force = {name: value for entry in history for name, value in entry["flags"].items()}
    changed = {name: value for name, value in flags.items() if name not in in_force or in_force[name] != value}
    return [*history, {"from_step": from_step, "flags": changed}] if changed else history
