"""Where every image file from outside is opened: regular files only, gzip undone by what is inside."""

import gzip
import os
import stat
from pathlib import Path
from typing import BinaryIO

from guided_diffusion.errors import InputError
from guided_diffusion.pet.damage import damage_as

GZIP_MAGIC = b"\x1f\x8b"
# Enough for the signature of every format, DICOM's at byte 128 and NIfTI's at byte 344 among them.
HEAD_BYTES = 512


def open_regular(path: Path) -> BinaryIO:
    """Opens a file to read its bytes as they are.

    Raises:
        InputError: there is no such file, it is no regular one (a pipe, a device), or it cannot be opened.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise InputError(f"{path}: is no regular file; it is not opened")
        return open(path, "rb")
    except OSError as error:
        raise InputError(f"{path}: cannot be opened: {error.strerror}") from None


def open_unpacked(path: Path) -> BinaryIO:
    """Opens a file to read its bytes, unpacked if they are gzipped, whatever the name says.

    Raises:
        InputError: as `open_regular`.
    """
    file = open_regular(path)
    packed = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
    file.seek(0)
    return _OwningGzip(file) if packed else file


def head_of(path: Path) -> bytes:
    """The first HEAD_BYTES bytes of a file, unpacked; fewer where it is shorter.

    Raises:
        InputError: as `open_regular`, or the gzip is damaged.
    """
    with damage_as(f"{path}: is damaged (its gzip cannot be unpacked); copy it again"), open_unpacked(path) as file:
        return file.read(HEAD_BYTES)


class _OwningGzip(gzip.GzipFile):
    """A gzip reader that closes the file below with itself."""

    def __init__(self, file: BinaryIO):
        super().__init__(fileobj=file, mode="rb")
        self.myfileobj = file
