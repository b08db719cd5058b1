"""A run's log: lines on the terminal of rank 0, and with their times in a file."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from guided_diffusion.dist_util import communicator

_LOGGER = logging.getLogger("guided_diffusion")


def log(message: str) -> None:
    """Say something to the user; only rank 0 is heard."""
    _LOGGER.info(message)


@contextmanager
def to_folder(folder: str | Path, name: str = "log.txt") -> Iterator[None]:
    """Within the block, `log` writes to stderr and appends to a file in `folder`, on rank 0."""
    if communicator().rank != 0:
        yield
        return
    terminal = logging.StreamHandler(sys.stderr)
    file = logging.FileHandler(Path(folder) / name, encoding="utf-8")
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
