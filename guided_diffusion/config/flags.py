"""Declarations of command-line flags: a field of a frozen dataclass with its default, help, choices and role.

Parsers, presets, the keys of finished work, and what headers compare and record are derived from these declarations.
"""

import dataclasses
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any

_ROLE, _PATHS = "role", ("FILE", "DIR", "PATH")


class Role(Enum):
    """What a flag affects."""

    NETWORK = "the network, and the grid and scale that it is trained on; fixed by a header"
    PROCESS = "the diffusion process that the network is trained on; fixed by a header"
    TRAINING = "the weights that training finds"
    STEPS = "the steps of sampling; no effect on methods of a single network call"
    REALISATIONS = "how many images are sampled; no effect on methods that have one answer only"
    REFERENCE = "which image is estimated; no effect on methods that do not estimate the noise-free one"
    DRAWING = "the images drawn about a predicted mean; no effect on methods that draw none"
    SAMPLING = "how a volume is cut into patches, given noise and computed"
    ARITHMETIC = "rounding only: precision, and how much is computed at once"
    IMAGES = "the values of the images that are read or written"
    MACHINE = "time and memory, not the result"
    FILES = "which files are read, written and checked, not the values in them"


# A checkpoint's header says these of its network; what else is given changes how it is used.
FIXED_BY_HEADER = frozenset({Role.NETWORK, Role.PROCESS})
# Two runs that differ in nothing else have equal results.
WITHOUT_RESULT = frozenset({Role.MACHINE, Role.FILES})


@dataclass(frozen=True)
class Flag:
    """A declared flag.

    kind: type of the value. default: `dataclasses.MISSING` if the flag must be given. choices: allowed values, None for
    any. shown: text for the default in the help, instead of its value. may_be_empty: for paths, whether an empty text
    has a meaning; otherwise it is refused on the command line, as an unset variable of a shell.
    """

    name: str
    kind: type
    default: Any
    help: str
    role: Role
    choices: tuple[str, ...] | None
    metavar: str | None
    shown: str | None
    may_be_empty: bool

    @property
    def required(self) -> bool:
        """Whether there is no default."""
        return self.default is dataclasses.MISSING

    @property
    def is_path(self) -> bool:
        """Whether it names a file or a folder, by its metavar."""
        return self.metavar in _PATHS

    @property
    def explanation(self) -> str:
        """The text of `--help`: the help, what the choices mean, and the default."""
        if self.shown is None and (self.required or self.default in (None, "")):
            return self.help
        value = " ".join(map(str, self.default)) if isinstance(self.default, tuple) else self.default
        return f"{self.help} (default: {self.shown or value or repr(value)})"


def flag(
    default: Any,
    text: str,
    role: Role,
    *,
    choices: Iterable[str] | Mapping[str, str] | None = None,
    metavar: str | None = None,
    shown: str | None = None,
    may_be_empty: bool = False,
) -> Any:
    """A dataclass field that is a command-line flag, see `Flag`.

    choices: names, or names with their meanings, which are added to the help.
    """
    if isinstance(choices, Mapping):
        text += ". " + "; ".join(f"{name}: {meaning}" for name, meaning in choices.items())
    declared = {_ROLE: role, "help": text, "choices": choices and tuple(choices), "metavar": metavar, "shown": shown}
    return field(default=default, metadata=declared | {"may_be_empty": may_be_empty})


def threads_flag() -> Any:
    """The flag of every command that computes over ranks."""
    return flag(0, "CPU threads per rank; 0: the cores of a node, shared equally among its ranks", Role.MACHINE)


def stall_flag() -> Any:
    """The flag of every command whose ranks wait for each other."""
    return flag(
        None,
        "end the job if a rank makes no progress for this long; 0: never",
        Role.MACHINE,
        shown="ten times the longest step so far, at least a minute",
    )


def flags_of(*configs: type) -> dict[str, Flag]:
    """The declared flags of configurations by name, in their order; fields that are no flags are left out."""
    return {item.name: _flag(item) for config in configs for item in fields(config) if _ROLE in item.metadata}


def flags_with(roles: Iterable[Role], *configs: type) -> tuple[str, ...]:
    """Names of the flags of configurations that have one of these roles, in their order."""
    wanted = set(roles)
    return tuple(name for name, declared in flags_of(*configs).items() if declared.role in wanted)


def field_names(config: type) -> list[str]:
    """Names of a configuration's fields, in order."""
    return [item.name for item in fields(config)]


def _flag(item: dataclasses.Field) -> Flag:
    kind = item.type
    if isinstance(kind, types.UnionType):
        (kind,) = (part for part in typing.get_args(kind) if part is not types.NoneType)
    return Flag(item.name, kind, item.default, **item.metadata)
