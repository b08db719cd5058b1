"""A run's log: lines on the terminal of rank 0, and with their times in a file."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from guided_diffusion.dist_util import communicator
from guided_diffusion.errors import one_line
from guided_diffusion.files import open_appending

_LOGGER = logging.getLogger("guided_diffusion")


def log(message: str) -> None:
    """Say something to the user; only rank 0 is heard."""
    _LOGGER.info("%s", one_line(message))


@contextmanager
def to_folder(folder: str | Path, name: str = "log.txt") -> Iterator[None]:
    """Within the block, `log` writes to stderr and appends to a file in `folder`, on rank 0.

    Raises InputError where something else than a regular file stands there: a link is not followed.
    """
    if communicator().rank != 0:
        yield
        return
    with open(open_appending(Path(folder) / name), "a", encoding="utf-8") as stream:
        terminal, file = logging.StreamHandler(sys.stderr), logging.StreamHandler(stream)
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
