"""A run's log: lines on the terminal of rank 0, and with their times in a file."""

import atexit
import io
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from guided_diffusion.dist_util import communicator, on_root
from guided_diffusion.errors import one_line
from guided_diffusion.files import open_appending, writable_folder

_LOGGER = logging.getLogger("guided_diffusion")
_stack = ExitStack()
atexit.register(_stack.close)
_folder = ""


class _FileHandler(logging.StreamHandler):
    """Writes lines to a file as long as possible, and reports once on stderr when it no longer is.

    A log that cannot be written, as on a full disk, must not end the run.
    """

    _silent = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002
        error = sys.exc_info()[1]
        if not self._silent:
            self._silent = True
            print(f"notice: the log can no longer be written: {error}", file=sys.stderr, flush=True)


def log(*parts: object, **_others: object) -> None:
    """Write a line for the user, on rank 0 only: the parts with blanks between them, as published scripts give them."""
    _LOGGER.info("%s", one_line(" ".join(map(str, parts)).rstrip()))


def environment_folder() -> str | None:
    """The folder that the environment's OPENAI_LOGDIR names, as in the published code; None if it names none."""
    return os.environ.get("OPENAI_LOGDIR") or None


def configure(dir: str | Path | None = None, **_others: object) -> None:
    """Log into a folder from here on, as scripts for the published code do first.

    Without one, that of the environment's OPENAI_LOGDIR is used, as in the published code, or a temporary one is made,
    which the log names. All ranks call this together.
    """
    global _folder
    _stack.close()
    wanted = dir or environment_folder()
    _folder = communicator().bcast(on_root(_make_folder, wanted))
    _stack.enter_context(to_folder(_folder))
    if not wanted:
        log(f"notice: no folder was given: logging to {_folder}")


def get_dir() -> str:
    """The folder that `configure` was given or made; "" before."""
    return _folder


def _make_folder(wanted: str | Path | None) -> str:
    return str(writable_folder(wanted)) if wanted else tempfile.mkdtemp(prefix="guided_diffusion-")


@contextmanager
def to_folder(folder: str | Path) -> Iterator[None]:
    """Within the block, `log` writes to stderr and appends to `log.txt` in `folder`, on rank 0.

    Raises InputError if anything but a regular file is in its place; links are not followed.
    """
    if communicator().rank != 0:
        yield
        return
    # Line by line and unbuffered: what a full disk refuses is not tried again when the file is closed.
    with open(open_appending(Path(folder) / "log.txt"), "ab", buffering=0) as raw:
        stream = io.TextIOWrapper(raw, encoding="utf-8", write_through=True)
        terminal, file = logging.StreamHandler(sys.stderr), _FileHandler(stream)
        file.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        _LOGGER.setLevel(logging.INFO)
        for handler in (terminal, file):
            _LOGGER.addHandler(handler)
        try:
            yield
        finally:
            for handler in (terminal, file):
                _LOGGER.removeHandler(handler)
                handler.close()
