"""The methods that can be trained and run, by the name in a checkpoint's header.

A method is a file of this folder whose `METHOD` is an `interfaces.Method`. Training and inference do not depend on
which method they run.
"""

import importlib
import pkgutil

from guided_diffusion import methods
from guided_diffusion.errors import InputError
from guided_diffusion.interfaces import Method


def _discovered() -> dict[str, Method]:
    """The methods of this folder by name, in alphabetical order."""
    names = sorted(module.name for module in pkgutil.iter_modules(methods.__path__))
    files = [importlib.import_module(f"{methods.__name__}.{name}") for name in names if name != "registry"]
    found = [file.METHOD for file in files if hasattr(file, "METHOD")]
    return {method.name: method for method in found}


METHODS = _discovered()


def method_named(name: str, where: str) -> Method:
    """A method by its name. Raises InputError, saying `where` the name stands, for an unknown one."""
    if name not in METHODS:
        *others, last = METHODS
        raise InputError(f"{where} {name!r} is unknown: this version knows {', '.join(others)} and {last}")
    return METHODS[name]
