"""Writing a file so that nobody ever sees half of it under its final name."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from guided_diffusion.errors import InputError


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary path beside `path`, with the same suffixes; renames it to `path` once it is safely on disk.

    The folder is made where it is missing. On any exception the temporary file is removed and `path` is left as it was.

    Raises:
        InputError: the folder cannot be made or written.
    """
    path = Path(path)
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}; choose a folder that can be written") from None
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def writable_folder(path: str | os.PathLike[str]) -> Path:
    """The folder, made where it is missing.

    Raises:
        InputError: nothing can be written into it.
    """
    path = Path(path)
    probe = path / f".probe-{os.getpid()}"
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(f"cannot write into {path}: {error.strerror}; choose another folder") from None
    return path
