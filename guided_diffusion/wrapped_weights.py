"""Extracts weights from the structures that training programs wrap them in.

DistributedDataParallel and torch.compile add "module." and "_orig_mod." to names, programs save a dictionary whose
entry "model", "state_dict" or "ema" holds the weights, and a module around the network prefixes the name of its
attribute. The entry or prefix is found by the names of the network's own parameters, not from a list.
"""

import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

from torch import Tensor

from guided_diffusion.errors import InputError

StateDict = dict[str, Tensor]

# A parameter of every network that is told a timestep, the published one among them. The local networks have none:
# their weights are files of this program, which are read as they are.
_TIME_EMBEDDING = "time_embed.0.weight"

# Parts of names that wrappers put in and no network has.
_WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}

# Buffers of counters that profilers (thop, ptflops) leave in a network.
_COUNTERS = {"total_ops", "total_params"}

# An entry is an average if "ema" is a word of its name, and none of these is.
_AVERAGE, _NEGATIONS = "ema", {"no", "non", "not", "without"}
_WORDS = re.compile("[A-Z]+(?![a-z])|[A-Z]?[a-z]+")

_DEPTH = 3  # of dictionaries in each other
_MOST = 1000  # dictionaries in a file: a few that hold each other can be walked through for ever


def find_weights(plain: dict, path: str) -> tuple[StateDict, tuple[str, ...]]:
    """A network's weights by their plain names, and notices on where in the file they were.

    Of several sets of weights, the moving average (one named "ema") is used; one whose parameters have no names cannot
    be, with a notice. Raises InputError for entries that are not tensors or have no names, and for several sets of
    which none or more than one is an average.
    """
    _check_few(plain, path)
    found = dict(_weights_in(plain, ()))
    if not found:
        return _as_they_are(plain, path), ()
    place = _chosen(list(found), path)
    if not isinstance(found[place].get(_TIME_EMBEDDING), Tensor):
        raise InputError(
            f"{path}: the weights are no tensors; convert NumPy arrays by torch.from_numpy, and save again"
        )
    notices = []
    if place not in ((), ("state_dict",)):
        notices.append(f"{path}: the weights are those of its entry {'.'.join(place)!r}")
    if len(found) > 1:
        others = ", ".join(repr(".".join(other)) for other in found if other != place)
        notices.append(f"{path}: of several weights the average {'.'.join(place)!r} is used, not {others}")
    nameless = _nameless_average(plain)
    if nameless and not _says_average(place):
        notices.append(
            f"{path}: the average {nameless!r} is left out, since it lacks the names of the parameters: the weights are"
            " those before averaging; to use it, save it as a state dict of the network"
        )
    return found[place], tuple(notices)


def _check_few(plain: dict, path: str) -> None:
    """Raises InputError for a file with more nested dictionaries than any training program writes."""
    if sum(1 for _ in islice(_dictionaries(plain, _DEPTH), _MOST + 1)) > _MOST:
        raise InputError(f"{path}: holds too many nested dictionaries to be weights")


def _dictionaries(entries: dict, depth: int) -> Iterator[dict]:
    """Every dictionary down to a depth."""
    yield entries
    if depth > 0:
        for name, value in entries.items():
            if isinstance(name, str) and isinstance(value, dict):
                yield from _dictionaries(value, depth - 1)


def has_weights(plain: dict) -> bool:
    """Whether the content of a file includes a network's weights."""
    return any(_weights_in(plain, ()))


def _weights_in(entries: Any, place: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], StateDict]]:
    """Every set of weights in nested dictionaries, and the keys and prefixes that lead to it."""
    if not isinstance(entries, dict) or len(place) > _DEPTH:
        return
    names = {name: _plain_name(name) for name in entries if isinstance(name, str)}
    embeddings = [
        plain for plain in names.values() if plain == _TIME_EMBEDDING or plain.endswith(f".{_TIME_EMBEDDING}")
    ]
    for prefix in dict.fromkeys(plain.removesuffix(_TIME_EMBEDDING) for plain in embeddings):
        weights = {
            plain.removeprefix(prefix): entries[name]
            for name, plain in names.items()
            if plain.startswith(prefix)
            and (prefix or isinstance(entries[name], Tensor))
            and not _is_count(plain, entries[name])
        }
        yield (*place, *prefix.split(".")[:-1]), weights
    if not embeddings:
        for name, value in entries.items():
            if isinstance(name, str):
                yield from _weights_in(value, (*place, name))


def _is_count(name: str, value: Any) -> bool:
    """Whether an entry is a number that training programs store beside the weights, such as that of updates."""
    if _is_counter(name):
        return True
    return isinstance(value, Tensor) and (value.ndim == 0 or (value.numel() == 1 and not value.is_floating_point()))


def _is_counter(name: str) -> bool:
    return name.rpartition(".")[2] in _COUNTERS


def _nameless_average(plain: dict) -> str | None:
    """The name of an average that torch_ema keeps as a list, or LitEma under names without their dots; else None."""
    for entries in _dictionaries(plain, _DEPTH):
        for name, value in entries.items():
            if name == "shadow_params" and isinstance(value, list):
                return name
            if isinstance(name, str) and name.endswith(_TIME_EMBEDDING.replace(".", "")) and isinstance(value, Tensor):
                return name.partition(".")[0]
    return None


def _plain_name(name: str) -> str:
    """A parameter's name without what wrappers put into it."""
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def _chosen(places: list[tuple[str, ...]], path: str) -> tuple[str, ...]:
    """The only place, or the one whose names say most often that it is an average (ema.ema_model, not ema.model)."""
    says = {place: _says_average(place) for place in places}
    candidates = [place for place in places if len(places) == 1 or says[place] == max(1, *says.values())]
    if len(candidates) != 1:
        listed = ", ".join(repr(".".join(place)) for place in places)
        raise InputError(f"{path}: holds several weights ({listed}): save the one that is meant into a file of its own")
    return candidates[0]


def _says_average(place: tuple[str, ...]) -> int:
    """How many of the names on the way to an entry say that it is an average."""
    words = [{word.lower() for word in _WORDS.findall(part)} for part in place]
    return sum(_AVERAGE in each and not each & _NEGATIONS for each in words)


def _as_they_are(plain: dict, path: str) -> StateDict:
    """The entries unchanged; loading them reports what does not fit the network."""
    if {"state", "param_groups"} <= plain.keys() or "optimiser" in plain:
        raise InputError(
            f"{path}: is the state of an optimiser; name the weights (model or ema) that were saved with it"
        )
    state_dict = plain.get("state_dict", plain)
    if not isinstance(state_dict, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state_dict.items()
    ):
        raise InputError(f"{path}: not a state dict: some of its entries are no tensors or have no names")
    return {_plain_name(name): value for name, value in state_dict.items() if not _is_counter(name)}
