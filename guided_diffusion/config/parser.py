"""Command-line parsers built from declared flags, and settings read from parsed flags."""

import argparse
import typing
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from guided_diffusion.config.flags import Flag, Role, flags_of
from guided_diffusion.errors import InputError

T = TypeVar("T")

_METAVARS = {bool: "True|False", int: "N", float: "X", str: "TEXT", Path: "PATH"}


class Parser(argparse.ArgumentParser):
    """An argument parser that raises InputError for mistakes, like the rest of the program.

    Its description keeps its line breaks.
    """

    def __init__(self, description: str | None = None):
        super().__init__(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)

    def error(self, message: str) -> NoReturn:
        """Raises InputError with the message."""
        raise InputError(f"{message}; see --help")


def str2bool(text: str | bool) -> bool:
    """True or False as the published flags write them, in any case."""
    if isinstance(text, bool):
        return text
    if text.lower() in ("true", "t", "yes", "y", "1"):
        return True
    if text.lower() in ("false", "f", "no", "n", "0"):
        return False
    raise argparse.ArgumentTypeError(f"{text!r} is neither True nor False")


def add_flags(
    parser: argparse._ActionsContainer,
    *configs: type,
    roles: Collection[Role] = tuple(Role),
    given_only: bool = False,
    choices: Mapping[str, Iterable[str]] | None = None,
) -> None:
    """Add a command-line flag, with its help, for each declared flag of the configurations.

    roles: only flags of these roles. given_only: flags that are not given are missing from the parsed arguments,
    instead of having their defaults. choices: allowed values by the names of flags, for those defined by a table
    elsewhere.
    """
    for name, declared in flags_of(*configs).items():
        if choices and name in choices:
            declared = replace(declared, choices=tuple(choices[name]))
        if declared.role in roles:
            default = argparse.SUPPRESS if given_only else declared.default
            options = {"required": True} if declared.required else {"default": default}
            parser.add_argument(f"--{name}", help=declared.explanation.replace("%", "%%"), **options, **_form(declared))


def add_dict_to_argparser(parser: argparse._ActionsContainer, defaults: Mapping[str, Any]) -> None:
    """A flag per entry, typed like its default: booleans as True/False, None as text."""
    for name, value in defaults.items():
        kind = str if value is None else type(value)
        parser.add_argument(f"--{name}", default=value, **_of_kind(kind, None))


def args_to_dict(args: argparse.Namespace, keys: Collection[str]) -> dict[str, Any]:
    """The named arguments as a dictionary."""
    return {key: getattr(args, key) for key in keys}


def read_flags(config: type[T], given: Mapping[str, Any]) -> T:
    """A configuration from parsed arguments, or from any that hold its flags; those missing keep their defaults."""
    values = {name: given[name] for name in flags_of(config) if name in given}
    return config(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def refuse_without_effect(given: Mapping[str, Any], names: Iterable[str], why: str) -> None:
    """Raises InputError, with the reason, for the first of these flags that is given.

    given: parsed arguments of flags added as `given_only`, or they would all count as given.
    """
    for name in names:
        if name in given:
            raise InputError(f"--{name} {why}")


def values_of(given: Mapping[str, Any], *configs: type) -> dict[str, Any]:
    """Flags that Python code gives, as the command line reads their texts: 0.05 for a text, "False" for a boolean.

    Those that are None count as not given. Raises InputError for values that the command line refuses.
    """
    parser = Parser()
    add_flags(parser, *configs, given_only=True)
    words = [f"--{name}={as_word(value)}" for name, value in given.items() if value is not None]
    return vars(parser.parse_args(words))


def as_word(value: object) -> str:
    """A value as a command line has it, in one word: numbers that belong together as a comma list."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


class _PathGiven(argparse.Action):
    """A path, see `_check_path`; not a type, since argparse converts defaults too, some of which are empty."""

    def __init__(self, *args: Any, kind: type, **options: Any):
        super().__init__(*args, **options)
        self._kind = kind

    def __call__(
        self, _parser: argparse.ArgumentParser, namespace: argparse.Namespace, value: str, _option: str | None = None
    ) -> None:
        _check_path(self, value)
        setattr(namespace, self.dest, self._kind(value))


def _check_path(action: argparse.Action, text: str) -> None:
    """Raises argparse.ArgumentError for a path that a shell has made something else than was meant."""
    if not text:
        raise argparse.ArgumentError(action, "is empty: an unset variable?")
    if Path(text).parts[:1] == ("~",):
        raise argparse.ArgumentError(
            action, f"{text}: the shell has not replaced ~ (in quotes or after =); write it out"
        )


class _FixedCount(argparse.Action):
    """A fixed count of numbers, as words of their own or as a comma list."""

    def __init__(self, *args: Any, kind: type, count: int, **options: Any):
        super().__init__(*args, **options)
        self._kind, self._count = kind, count

    def __call__(
        self,
        _parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Sequence[str],
        _option: str | None = None,
    ) -> None:
        try:
            numbers = tuple(self._kind(part) for word in values for part in word.split(","))
        except ValueError:
            numbers = ()
        if len(numbers) != self._count:
            raise argparse.ArgumentError(self, f"{' '.join(values)!r} is not {self._count} numbers")
        setattr(namespace, self.dest, numbers)


class _Appended(argparse.Action):
    """A flag that may be given several times: its values as a tuple."""

    def __call__(
        self, _parser: argparse.ArgumentParser, namespace: argparse.Namespace, value: Any, _option: str | None = None
    ) -> None:
        setattr(namespace, self.dest, (*(getattr(namespace, self.dest, None) or ()), value))


class _AppendedPath(_Appended):
    """A path that may be given several times."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, value: Any, option: str | None = None
    ) -> None:
        _check_path(self, value)
        super().__call__(parser, namespace, value, option)


def _form(declared: Flag) -> dict[str, Any]:
    """Arguments for argparse that a flag's values need: type, number, choices, and their name in the help."""
    if declared.choices is not None:
        return {"choices": declared.choices, "metavar": declared.metavar}
    if typing.get_origin(declared.kind) is not tuple:
        if declared.is_path and not declared.may_be_empty:
            return {"action": _PathGiven, "kind": declared.kind, "metavar": declared.metavar}
        return _of_kind(declared.kind, declared.metavar)
    kind, *others = typing.get_args(declared.kind)
    if others == [...]:
        return {"action": _AppendedPath if declared.is_path else _Appended} | _of_kind(kind, declared.metavar)
    return {"action": _FixedCount, "nargs": "+", "kind": kind, "count": 1 + len(others), "metavar": declared.metavar}


def _of_kind(kind: type, metavar: str | None) -> dict[str, Any]:
    """A single value. A boolean that is given without one is True."""
    alone = {"nargs": "?", "const": True} if kind is bool else {}
    return {"type": str2bool if kind is bool else kind, "metavar": metavar or _METAVARS[kind], **alone}
