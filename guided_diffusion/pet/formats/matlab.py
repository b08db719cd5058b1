"""MATLAB's `.mat`: the array `suv` in version 5 (`-v6`, `-v7`) or version 7.3 (HDF5).

Version 5 is read here rather than with SciPy, whose reader crashes the process on some damaged files. The layout is
that of "MAT-File Format" (The MathWorks): a header of 128 bytes, then elements consisting of a tag (type, bytes) and
content; each variable is one element, or one element packed with zlib.
"""

import math
import os
import struct
import zlib
from pathlib import Path

import h5py
import numpy as np

from guided_diffusion.errors import InputError
from guided_diffusion.gate import check_memory, check_unfolded, open_regular, unfolded_limit
from guided_diffusion.pet.damage import damage_as
from guided_diffusion.pet.formats import hdf5_child
from guided_diffusion.pet.grid import check_size

NAME = "suv"
HEADER_BYTES = 128
# An image is larger; a matrix of registration, or one for each frame, is not.
LARGEST_MATRIX_BYTES = 2**14
_MATRIX, _PACKED = 14, 15
_NUMERIC = range(6, 16)  # classes of arrays: double, single and the integers
# Types in which the numbers are stored, often smaller than that of the array.
_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_COMPLEX = 0x800


def read(path: Path) -> np.ndarray:
    """The array `suv` [X, Y, Z] as float32.

    Raises:
        InputError: the file is damaged, has no such array, or one of another kind or size than an image's.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        check_memory(size, path)
        with damage_as(f"{path}: is no complete .mat file; copy or make it again"):
            if h5py.is_hdf5(path):
                return hdf5_child.read(path, NAME)
            data = array_of_version_5(file.read(), NAME, path)
    if data is None:
        raise InputError(f"{path}: has no array named {NAME}")
    if data.ndim != 3:
        raise InputError(f"{path}: {NAME} has shape {list(data.shape)[:8]}, not [X, Y, Z] of real numbers")
    with np.errstate(over="ignore", invalid="ignore"):  # beyond float32 is infinite, which is refused
        return np.ascontiguousarray(data, dtype=np.float32)


def holds_matrix(path: Path) -> bool:
    """Whether a `.mat` is what registration leaves beside an image: no array `suv`, and too small for an image.

    SPM writes version 5, ANTs version 4, and FLIRT the numbers of a 4x4 matrix as text. A damaged file is none.

    Raises:
        InputError: the file cannot be opened.
    """
    with open_regular(path) as file:
        content = file.read(LARGEST_MATRIX_BYTES + 1)
    if len(content) > LARGEST_MATRIX_BYTES:
        return False
    if not content.startswith(b"MATLAB "):
        return _is_text_of_matrix(content) or _is_matrix_of_version_4(content)
    try:
        with damage_as(f"{path}: is no complete .mat file"):
            return array_of_version_5(content, NAME, path) is None
    except InputError:
        return False


def _is_text_of_matrix(content: bytes) -> bool:
    try:
        return len([float(word) for word in content.split()]) == 16
    except ValueError:
        return False


def _is_matrix_of_version_4(content: bytes) -> bool:
    """By the five numbers that it begins with: type, rows, columns, whether it is complex, length of the name."""
    if len(content) <= 20:
        return False
    kind, rows, columns, imaginary, length = struct.unpack_from("<5i", content)
    return 0 <= kind < 100 and rows > 0 and columns > 0 and imaginary in (0, 1) and 20 + max(length, 0) < len(content)


def array_of_version_5(content: bytes, name: str, path: Path) -> np.ndarray | None:
    """The array of this name in a file of version 5, of real numbers as they are stored; None if there is none.

    Raises InputError, or what slicing and unpacking damaged bytes raises.
    """
    if len(content) < HEADER_BYTES or content[126:128] not in (b"IM", b"MI"):
        raise InputError(f"{path}: is no complete .mat file of a version that is known; save it with -v7 or -v7.3")
    order = "<" if content[126:128] == b"IM" else ">"
    place = HEADER_BYTES
    while place + 8 <= len(content):
        kind, size = struct.unpack_from(order + "II", content, place)
        body = content[place + 8 : place + 8 + size]
        if len(body) < size:
            raise InputError(f"{path}: is no complete .mat file; copy or make it again")
        if kind == _PACKED:
            body = _unpack(body, path)
            kind, size = struct.unpack_from(order + "II", body)
            body = body[8 : 8 + size]
            place += 8 + struct.unpack_from(order + "I", content, place + 4)[0]
        else:
            place += 8 + size
        data = _array_of(body, name, order, path) if kind == _MATRIX else None
        if data is not None:
            return data
    return None


def _unpack(packed: bytes, path: Path) -> bytes:
    """Undoes zlib, whose checksum is compared, as far as is plausible."""
    limit = unfolded_limit(len(packed))
    unpacker = zlib.decompressobj()
    content = unpacker.decompress(packed, limit + 1)
    check_unfolded(len(content), len(packed), path)
    if not unpacker.eof:
        raise InputError(f"{path}: is no complete .mat file; copy or make it again")
    return content


def _array_of(body: bytes, wanted: str, order: str, path: Path) -> np.ndarray | None:
    """The numbers of a matrix element if it has the wanted name, else None."""
    flags, place = _element(body, 0, order)
    dimensions, place = _element(body, place, order)
    name, place = _element(body, place, order)
    if name[1].rstrip(b"\0") != wanted.encode():
        return None
    word = struct.unpack_from(order + "I", flags[1])[0]
    shape = tuple(struct.unpack(f"{order}{len(dimensions[1]) // 4}i", dimensions[1]))
    if word & 0xFF not in _NUMERIC or word & _COMPLEX:
        raise InputError(f"{path}: {wanted} is no array of real numbers")
    check_size(shape, path)
    (kind, numbers), _ = _element(body, place, order)
    stored = np.frombuffer(numbers, np.dtype(_STORED[kind]).newbyteorder(order))
    if stored.size != math.prod(shape):
        raise InputError(f"{path}: is shorter or longer than its header says; copy or make it again")
    return stored.reshape(shape, order="F")


def _element(body: bytes, place: int, order: str) -> tuple[tuple[int, bytes], int]:
    """(type, content) of the element at a place, and where the next one begins. Up to 4 bytes stand in the tag."""
    kind, size = struct.unpack_from(order + "II", body, place)
    if kind >> 16:
        kind, size, start, following = kind & 0xFFFF, kind >> 16, place + 4, place + 8
    else:
        start, following = place + 8, place + 8 + size + -size % 8
    content = body[start : start + size]
    if len(content) < size:
        raise EOFError
    return (kind, content), following
