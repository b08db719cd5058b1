"""Exceptions whose message is for the user, and text made safe for a terminal."""

import errno
import os
import unicodedata

_ADVICE_ON_PATHS = {
    errno.EACCES: "check the permissions of it and of the folders above it",
    errno.EPERM: "check the permissions of it and of the folders above it",
    errno.ENAMETOOLONG: "name one file or folder",
}
_SHOWN_OF_PATH = 200  # characters


def one_line(text: object) -> str:
    """Text for a message or a log: control characters, line breaks and what cannot be encoded become '?'.

    Names of files and values of headers may hold anything, a terminal's commands among it.
    """
    return "".join("?" if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") else c for c in str(text))


class InputError(Exception):
    """Bad input or usage: says on one line what is wrong, in which file, and what to do.

    Scripts that end with it have exit code 2.
    """

    def __init__(self, message: object = ""):
        super().__init__(one_line(message))


class Failure(Exception):
    """A failure of the machine or the program though the input is right; says on one line what failed, where and why.

    Scripts that end with it have exit code 1.
    """

    def __init__(self, message: object = ""):
        super().__init__(one_line(message))


def refused_path(error: BaseException) -> InputError | None:
    """The InputError to raise if the system refused a path, such as one in another user's folder; else None."""
    advice = _ADVICE_ON_PATHS.get(error.errno) if isinstance(error, OSError) and error.filename is not None else None
    if advice is None:
        return None
    return InputError(f"{os.fsdecode(error.filename)[:_SHOWN_OF_PATH]}: {error.strerror}; {advice}")
