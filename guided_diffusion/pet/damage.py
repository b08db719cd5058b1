"""Turns whatever a library raises on a damaged file into a one-line error."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from guided_diffusion.errors import Failure, InputError

_OF_THE_MACHINE = (errno.EMFILE, errno.ENFILE, errno.ESTALE)


@contextmanager
def damage_as(message: str, *passing: type[Exception]) -> Iterator[None]:
    """Turns every exception inside into InputError(message), except InputError itself and those in `passing`.

    That too many files are open, or a network's file system has lost one, says nothing of the file: it is a Failure.

    For calls of libraries that parse untrusted bytes: on damaged files they raise exceptions of any kind, from
    ZeroDivisionError to classes of their own. Code of this program should not be inside.
    """
    try:
        yield
    except (InputError, *passing):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _OF_THE_MACHINE:
            raise Failure(f"{error.filename or message.split(':')[0]}: {error.strerror}") from None
        raise InputError(message) from None
