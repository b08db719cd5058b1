"""Turns whatever a library raises on a damaged file into a one-line error."""

from collections.abc import Iterator
from contextlib import contextmanager

from guided_diffusion.errors import InputError


@contextmanager
def damage_as(message: str, *passing: type[Exception]) -> Iterator[None]:
    """Turns every exception inside into InputError(message), except InputError itself and those in `passing`.

    For calls of libraries that parse untrusted bytes: on damaged files they raise exceptions of any kind, from
    ZeroDivisionError to classes of their own. Code of this program should not be inside.
    """
    try:
        yield
    except (InputError, *passing):
        raise
    except Exception:
        raise InputError(message) from None
