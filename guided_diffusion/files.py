"""Writing files so that no partial file ever has the final name, and nothing outside the folder changes."""

import csv
import errno
import hashlib
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from guided_diffusion.errors import Failure, InputError

# Errors of writing that are the disk's or its server's: nothing that a user gave is wrong.
_DISK_ERRORS = (
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO,
    errno.EROFS, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.ENODEV,
)  # fmt: skip
_CANNOT_SYNC = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)  # of some network file systems
_REMOTE = re.compile("[a-z][a-z0-9]+:/")  # s3://bucket and so on; a Path has lost one of the slashes
_TEMPORARY = re.compile(r"\.[0-9a-f]{16}~.+")


def temporary_beside(path: Path) -> Path:
    """A hidden, unpredictable name beside `path`, with the same suffixes."""
    return path.with_name(f".{secrets.token_hex(8)}~{path.name}")


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary path beside `path`, with the same suffixes; renames it to `path` once it is safely on disk.

    The folder is made where it is missing. A link at `path` is replaced, not followed. On any exception the temporary
    file is removed and `path` is left as it was.

    Raises:
        InputError: the folder cannot be made or written, or another folder stands at `path`.
        Failure: the disk is full or fails.
    """
    path = Path(path)
    _check_local(path)
    temporary = temporary_beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir() and not path.is_symlink():
            raise InputError(f"cannot write {path}: a folder of this name stands there; remove it or choose another")
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o666))
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}; choose a folder that can be written") from None
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(path)
    except OSError as error:
        raise disk_failure(error, path) or error from None
    finally:
        with suppress(OSError):  # where the disk is gone, so is the file
            temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """A text file in UTF-8, written whole or not at all. Raises as `atomic_write`."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _check_local(path: Path) -> None:
    """Raises InputError for names that a folder of this machine could have, but which mean another place."""
    if _REMOTE.match(str(path)):
        raise InputError(f"cannot write to {path}: results are written to local folders; copy them from there")
    if any(part.endswith("\r") for part in path.parts):
        raise InputError(f"cannot write to {path}: a script with Windows line ends named it; convert it (dos2unix)")
    if path.parts[:1] == ("~",):
        raise InputError(f"cannot write to {path}: the shell has not replaced ~ (in quotes or after =); write it out")


def _sync(path: Path) -> None:
    """Wait until a file is on the disk, if its file system can tell."""
    with path.open("rb+") as file:
        try:
            os.fsync(file.fileno())
        except OSError as error:
            if error.errno not in _CANNOT_SYNC:
                raise


def disk_failure(error: OSError, path: Path) -> Failure | None:
    """The Failure to raise if an error in writing `path` is the disk's (full, over quota, gone); else None."""
    if error.errno not in _DISK_ERRORS:
        return None
    try:
        free = f"{shutil.disk_usage(path.parent).free / 2**20:.0f} MiB are free"
    except OSError:
        return Failure(f"cannot write {path}: {error.strerror}; check its disk and run it again")
    return Failure(f"cannot write {path}: {error.strerror} ({free}); make room or check the disk, and run it again")


def check_space(folder: Path, needed: int) -> None:
    """Raises Failure where the disk of a folder has less than `needed` bytes left."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise Failure(
            f"{folder}: about {needed / 2**20:.0f} MiB will be written, and {free / 2**20:.0f} MiB are free;"
            " make room, or choose another folder"
        )


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_code(places: Iterable[Path]) -> str:
    """SHA-256 of Python files and CSV tables: those named, and all below the folders named."""
    digest = hashlib.sha256()
    for place in places:
        for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
            if path.suffix in (".py", ".csv"):
                digest.update(path.read_bytes())
    return digest.hexdigest()


def write_table(path: Path, columns: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Write a CSV file in UTF-8: the names of its columns, then its rows; None is an empty cell.

    Bytes of file names that are not UTF-8 are written as escapes.
    """
    with (
        atomic_write(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def writable_folder(path: str | os.PathLike[str], within: str | os.PathLike[str] | None = None) -> Path:
    """Make the folder if it is missing, and check that it can be written.

    within: a folder that no link on the way may lead out of.

    Raises:
        InputError: nothing can be written into it, or it lies outside `within`.
    """
    path = Path(path)
    _check_local(path)
    if within is not None and not path.resolve().is_relative_to(Path(within).resolve()):
        raise InputError(f"cannot write into {path}: a link leads from there to another place; remove the link")
    probe = temporary_beside(path / "probe")
    try:
        path.mkdir(parents=True, exist_ok=True)
        os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o666))
        probe.unlink()
    except OSError as error:
        raise InputError(f"cannot write into {path}: {error.strerror}; choose another folder") from None
    return path


def open_appending(path: str | os.PathLike[str]) -> int:
    """A descriptor that appends to a regular file, made where it is missing.

    Raises:
        InputError: a link, a pipe, a device or a folder stands there, or it cannot be written.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o666)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}; remove it or choose another folder") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InputError(f"cannot write {path}: is no regular file; remove it or choose another folder")
    return descriptor


def remove_whatever(path: Path) -> None:
    """Remove a file, a folder with its contents, or a link (not its target). Does nothing if nothing is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Remove temporary files that killed runs left in a folder. Only for the folder's sole writer."""
    for path in folder.iterdir():
        if _TEMPORARY.fullmatch(path.name):
            remove_whatever(path)
