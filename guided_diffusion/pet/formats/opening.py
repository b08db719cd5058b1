"""Opening of image files from outside: regular files only, and gzip recognised by content."""

import gzip
from pathlib import Path
from typing import BinaryIO

from guided_diffusion.gate import admit, open_regular
from guided_diffusion.pet.damage import damage_as

GZIP_MAGIC = b"\x1f\x8b"
# Enough for the signature of every format, DICOM's at byte 128 and NIfTI's at byte 344 among them.
HEAD_BYTES = 512


def open_unpacked(path: Path) -> BinaryIO:
    """Opens a regular file to read its bytes, unpacked if they are gzipped, whatever the name says.

    Raises:
        InputError: there is no such file, it is no regular one (a pipe, a device), or it cannot be opened; its
            gzip is damaged, or unpacks to more than is plausible.
    """
    file = _unpacked(path)
    if isinstance(file, _OwningGzip):
        admit(path)
    return file


def head_of(path: Path) -> bytes:
    """The first HEAD_BYTES bytes of a file, unpacked; fewer where it is shorter. Nothing beyond them is checked.

    Raises:
        InputError: there is no such regular file, or its gzip is damaged right there.
    """
    with damage_as(f"{path}: is damaged (its gzip cannot be unpacked); copy it again"), _unpacked(path) as file:
        return file.read(HEAD_BYTES)


def _unpacked(path: Path) -> BinaryIO:
    file = open_regular(path)
    packed = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
    file.seek(0)
    return _OwningGzip(file) if packed else file


class _OwningGzip(gzip.GzipFile):
    """A gzip reader that closes the file below with itself."""

    def __init__(self, file: BinaryIO):
        super().__init__(fileobj=file, mode="rb")
        self.myfileobj = file
