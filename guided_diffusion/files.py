"""Writing files so that nothing partial ever stands under its final name."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from guided_diffusion.errors import InputError


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, with the same suffixes, that takes its name when the block ends well.

    The content reaches the disk before the name does. If the block fails, the temporary file goes and an older `path`
    stays as it was.
    """
    path = Path(path)
    temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    try:
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def writable_folder(path: Path) -> Path:
    """The folder, made if missing. Raises InputError if nothing can be written into it."""
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".tmp-{os.getpid()}-probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(f"{path}: cannot write into this folder ({error.strerror}); choose another one") from None
    return path
