"""Checks of untrusted files: only regular files are opened, and unpacking is bounded while it runs.

Every reader passes its file through here first. A few kilobytes can unpack to gigabytes, reading a named pipe can block
for ever, and the checksums in zip and gzip files help only readers that compare them.
"""

import gzip
import os
import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import BinaryIO

from guided_diffusion.errors import InputError
from guided_diffusion.machine.free_memory import available_bytes

# Bounds of the size that a packed file unpacks to: in bytes, and in times its own size. Volumes of noise shrink to a
# third, virtual patients to a fiftieth; deflate's own limit is 1032.
UNFOLDED_BYTES = 2**27
UNFOLDED_RATIO = 200

DAMAGED_ZIP = "is no complete .zip file (its checksums do not fit); copy it again"

_CHUNK = 2**20
_RETRIES = 8  # of a request to a server, with pauses that double from a tenth of a second
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def open_regular(path: str | Path, *, follow: bool = True) -> BinaryIO:
    """Opens a regular file for reading; never blocks on a pipe or a device.

    follow: whether a link may stand for the file. Raises InputError.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    try:
        _check_kind(os.stat(path, follow_symlinks=follow), path)  # before opening, which may do something to a device
        descriptor = os.open(path, flags)
        _check_kind(os.fstat(descriptor), path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    return os.fdopen(descriptor, "rb")


def remote_storage() -> ModuleType:
    """The module blobfile, imported only for remote paths, because that takes a fifth of a second.

    It gives up after a while: by itself it would try for ever where a machine has no network.
    """
    import blobfile

    blobfile.configure(retry_limit=_RETRIES, log_callback=lambda _line: None)
    return blobfile


def read_small(path: str | Path, limit: int = 2**24) -> bytes:
    """The content of one of our own small files, which is never a link. Raises InputError, also for a larger one."""
    with open_regular(path, follow=False) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise InputError(f"{path}: is larger than such a file ever is")
    return content


def pointer_remark(head: bytes) -> str | None:
    """Advice on a file that only points to content not fetched by Git LFS or DataLad, by its head; else None."""
    if head.startswith(b"version https://git-lfs"):
        return "is a pointer of Git LFS to a file that was not fetched; run git lfs pull"
    if head.startswith((b"/annex/objects/", b"../.git/annex/")):
        return "is a pointer of git-annex to a file that was not fetched; run datalad get or git annex get"
    return None


def admit(path: str | Path) -> int:
    """Checks a file and returns how many bytes it unpacks to: those of a zip's members, of a gzip's stream, its own.

    Raises InputError for all but a regular file, for a zip or gzip that is damaged by its own checksums, and for one
    that unpacks to an implausible size.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        first = file.read(4)
        file.seek(0)
        if first[:2] == b"\x1f\x8b":
            return _check_gzip(file, size, path)
        if first[:2] == b"PK":
            return check_zip(file, size, path)
        return size


@contextmanager
def open_zip(path: str | Path, damaged: str = DAMAGED_ZIP) -> Iterator[zipfile.ZipFile]:
    """A zip that `check_zip` accepts, open inside the context. Raises InputError."""
    with open_regular(path) as file:
        check_zip(file, os.fstat(file.fileno()).st_size, path, damaged)
        file.seek(0)
        with zipfile.ZipFile(file) as archive:
            yield archive


def check_zip(file: BinaryIO, size: int, name: object, damaged: str = DAMAGED_ZIP) -> int:
    """Compares every member of a zip with its checksum; returns the number of bytes that they unpack to.

    size: of the whole file. damaged: what is said of a file that is no whole zip. Raises InputError.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            if any(member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for member in members):
                raise InputError(f"{name}: is packed in an unusual way; make it again as an ordinary zip (deflate)")
            if any(member.flag_bits & 1 for member in members):
                raise InputError(f"{name}: is encrypted; unpack it first")
            total = sum(member.file_size for member in members)
            check_unfolded(total, size, name)
            if sum(member.compress_size for member in members) > size:
                raise InputError(f"{name}: {damaged}")
            for member in members:
                with archive.open(member) as stream:  # which compares the checksum at its end
                    while stream.read(_CHUNK):
                        pass
    except InputError:
        raise
    except Exception:  # whatever the library raises
        raise InputError(f"{name}: {damaged}") from None
    return total


def check_unfolded(unfolded: int, packed: int, name: object) -> None:
    """Raises InputError if a compressed file of this size cannot plausibly unpack to so many bytes."""
    if unfolded > unfolded_limit(packed):
        raise InputError(
            f"{name}: {packed:,} bytes would unfold to {unfolded:,} or more, as no image does; not opened any further"
        )


def unfolded_limit(packed: int) -> int:
    """Largest plausible unpacked size in bytes of a compressed file of this size."""
    return UNFOLDED_BYTES + UNFOLDED_RATIO * packed


def check_memory(needed: int, name: object) -> None:
    """Raises InputError if reading needs more memory (in bytes) than is free."""
    left = available_bytes()
    if left is not None and needed > left:
        raise InputError(
            f"{name}: takes {needed / 2**30:.1f} GiB of memory, but {left / 2**30:.1f} GiB are free;"
            " use a machine with more, or check the header"
        )


def _check_gzip(file: BinaryIO, size: int, name: object) -> int:
    """Decompresses a gzip stream chunk by chunk to check it; returns its unpacked length."""
    limit, total = unfolded_limit(size), 0
    try:
        with gzip.GzipFile(fileobj=file) as stream:  # which compares the checksum and the length at its end
            while total <= limit and (piece := stream.read(_CHUNK)):
                total += len(piece)
    except Exception:  # whatever the library raises
        raise InputError(
            f"{name}: is damaged or shorter than its header says (its checksum does not fit); copy it again"
        ) from None
    check_unfolded(total, size, name)
    return total


def _check_kind(status: os.stat_result, path: str | Path) -> None:
    if stat.S_ISREG(status.st_mode):
        return
    kind = next((kind for is_kind, kind in _KINDS if is_kind(status.st_mode)), "a link")
    raise InputError(f"{path}: is {kind}, not a file; remove it or name another")
