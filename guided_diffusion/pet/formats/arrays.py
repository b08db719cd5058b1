"""Plain arrays in files: the published `.npz` and MATLAB's `.mat`. Nothing that is loaded is executed."""

import math
import threading
import zipfile
from pathlib import Path
from typing import BinaryIO

import numpy as np

from guided_diffusion.errors import InputError
from guided_diffusion.files import atomic_write
from guided_diffusion.gate import check_memory, open_regular, open_zip
from guided_diffusion.pet.damage import damage_as
from guided_diffusion.pet.formats import matlab
from guided_diffusion.pet.formats.declaration import Format, Request, StoredArray
from guided_diffusion.pet.formats.stated_units import quoted, suv_unit
from guided_diffusion.pet.grid import check_size, check_voxel_mm
from guided_diffusion.pet.text import printable

DAMAGED = "is no complete .npz file (its checksums may not fit); copy or make it again"
# NumPy parses headers as Python, of which CPython (3.11.7 and others) counts the depth of all threads together: now and
# then it raises SystemError (github.com/python/cpython/issues/106905).
_ONE_HEADER = threading.Lock()
# The part of a zip member's own header before its name; the lengths of name and extra field are its last four bytes.
LOCAL_HEADER_BYTES = 30


def read_channel(path: Path, channel: int, *, channels: int | None = None) -> StoredArray:
    """Reads one channel of a `.npz` (`arr_0` [2, X, Y, Z] or [X, Y, Z]) or the array `suv` of a `.mat`.

    Args:
        channels: the number of channels that the file must have; None takes [X, Y, Z] as well.

    Raises:
        InputError: the file is damaged, holds pickled objects, lacks the array, or has the wrong number of axes.
    """
    if path.suffix.lower() == ".mat":
        return _read_mat(path)
    return _read_npz(path, channel, channels)


def map_npz(path: Path) -> np.memmap | None:
    """`arr_0` of a `.npz`, whole and of any dtype of real numbers, as a read-only view of the file.

    The file is read once, to compare its checksums; after that only the parts that are used. None where the array is
    compressed: it cannot be mapped.

    Raises:
        InputError: the file is damaged, holds pickled objects, or lacks the array.
    """
    with damage_as(f"{path}: {DAMAGED}"):
        with open_zip(path, DAMAGED) as archive:
            member = _main_member(archive, path)
            if member.compress_type != zipfile.ZIP_STORED:
                return None
            with archive.open(member) as stream:
                shape, fortran_order, dtype = _read_npy_header(stream, path)
                npy_header_bytes = stream.tell()
            _check_voxels(shape, dtype, member.file_size - npy_header_bytes, path)
        # The header before the member may be padded otherwise than the archive's directory says: its lengths count.
        with open_regular(path) as file:
            file.seek(member.header_offset + LOCAL_HEADER_BYTES - 4)
            lengths = np.frombuffer(_read_exactly(file, 4), dtype="<u2")
        offset = member.header_offset + LOCAL_HEADER_BYTES + int(lengths.sum()) + npy_header_bytes
        return np.memmap(path, dtype, mode="r", offset=offset, shape=shape, order="F" if fortran_order else "C")


def load_npz(path: Path) -> np.ndarray:
    """`arr_0` of a `.npz`, whole and of any dtype of real numbers, in memory.

    Raises:
        InputError: the file is damaged, holds pickled objects, or lacks the array.
    """
    with damage_as(f"{path}: {DAMAGED}"), open_zip(path, DAMAGED) as archive:
        member = _main_member(archive, path)
        with archive.open(member) as stream:
            shape, fortran_order, dtype = _read_npy_header(stream, path)
            _check_voxels(shape, dtype, member.file_size - stream.tell(), path)
            check_memory(math.prod(shape) * dtype.itemsize, path)
            content = _read_exactly(stream, math.prod(shape) * dtype.itemsize)
        return np.frombuffer(content, dtype=dtype).reshape(shape, order="F" if fortran_order else "C")


def read_statement(path: Path) -> tuple[np.ndarray | None, str | None]:
    """The affine (4x4, mm, RAS+) and the unit that a `.npz` states for its array, each None where it states none.

    Raises:
        InputError: the file is damaged, or says what is no affine or no unit of SUV.
    """
    with damage_as(f"{path}: {DAMAGED}"), open_regular(path) as file, zipfile.ZipFile(file) as archive:
        return _statement(archive, path)


def read_dose(path: Path) -> float | None:
    """The dose of the low dose of a pair as a fraction of the other's, None where the `.npz` does not state it.

    Raises:
        InputError: the file is damaged, or what it states is no fraction.
    """
    with damage_as(f"{path}: {DAMAGED}"), open_regular(path) as file, zipfile.ZipFile(file) as archive:
        if "dose.npy" not in archive.namelist():
            return None
        dose = _read_small(archive, "dose.npy", path)
    if dose.shape != () or dose.dtype.kind not in "fiu" or not 0 < dose <= 1:
        raise InputError(f"{path}: its dose is no fraction of the normal dose from 0 to 1")
    return float(dose)


def write(path: Path, **members: np.ndarray) -> None:
    """Writes a `.npz`, whole or not at all. Uncompressed: noisy float32 voxels shrink by a sixth at best."""
    with atomic_write(path) as temporary:
        np.savez(temporary, **members)


def _read_npz(path: Path, channel: int, channels: int | None) -> StoredArray:
    with damage_as(f"{path}: {DAMAGED}"), open_zip(path, DAMAGED) as archive:
        member = _main_member(archive, path)
        with archive.open(member) as stream:
            data = _read_npy_channel(stream, member.file_size, channel, channels, path)
        affine, unit = _statement(archive, path)
    source = {"format": "npz", "suv": "taken as SUV"}
    if unit is not None:
        source |= {"suv": f"the file says {unit}", "stored_units": unit, "unit_stated": True}
    return StoredArray(data, "npz", affine, unit or "SUV", source)


def _statement(archive: zipfile.ZipFile, path: Path) -> tuple[np.ndarray | None, str | None]:
    names = archive.namelist()
    affine = _checked_affine(_read_small(archive, "affine.npy", path), path) if "affine.npy" in names else None
    unit = _checked_unit(str(_read_small(archive, "unit.npy", path)), path) if "unit.npy" in names else None
    return affine, unit


def _main_member(archive: zipfile.ZipFile, path: Path) -> zipfile.ZipInfo:
    names = archive.namelist()
    if "arr_0.npy" not in names:
        held = printable(", ".join(sorted(n.removesuffix(".npy") for n in names)) or "nothing")
        raise InputError(f"{path}: has no arr_0 (it holds {held}); save the volume with numpy.savez(file, volume)")
    return archive.getinfo("arr_0.npy")


def _checked_affine(affine: np.ndarray, path: Path) -> np.ndarray:
    """float64 4x4, voxel index -> mm, that can be inverted."""
    if affine.shape != (4, 4) or affine.dtype.kind not in "fiu" or not np.isfinite(affine).all():
        raise InputError(f"{path}: its affine is no 4x4 matrix of finite numbers")
    if not np.array_equal(affine[3], [0, 0, 0, 1]) or abs(np.linalg.det(affine)) < 1e-9:
        raise InputError(f"{path}: its affine is no invertible map of voxels to mm with the last row 0 0 0 1")
    check_voxel_mm(tuple(np.linalg.norm(affine[:3, :3], axis=0)), str(path))
    return affine.astype(np.float64)


def _checked_unit(unit: str, path: Path) -> str:
    """SUV by body weight, lean mass or body surface, in the project's spelling."""
    basis = suv_unit(unit)
    if basis is None:
        raise InputError(f"{path}: its unit is {quoted(unit)}, which is no SUV; convert it to SUV by body weight")
    return basis


def _read_npy_header(stream: BinaryIO, path: Path) -> tuple[tuple[int, ...], bool, np.dtype]:
    try:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        with _ONE_HEADER:
            shape, fortran_order, dtype = read(stream)
    except ValueError:
        raise InputError(f"{path}: holds something that is no numpy array; make it again") from None
    if dtype.hasobject:
        raise InputError(f"{path}: holds pickled objects, which could run code; save a plain numeric array")
    return shape, fortran_order, dtype


def _check_voxels(shape: tuple[int, ...], dtype: np.dtype, held: int, path: Path) -> None:
    """Real numbers, no more of them than the last three axes of a PET volume have nor than `held` bytes hold."""
    if dtype.kind not in "fiu":
        raise InputError(f"{path}: arr_0 holds {dtype} values, not real numbers")
    check_size(shape[-3:], path)
    if held < math.prod(shape) * dtype.itemsize:
        raise InputError(f"{path}: is shorter than its header says; copy or make it again")


def _read_npy_channel(stream: BinaryIO, size: int, channel: int, channels: int | None, path: Path) -> np.ndarray:
    """Streams one channel, so that the other takes no memory."""
    shape, fortran_order, dtype = _read_npy_header(stream, path)
    wanted = "[2, X, Y, Z]" if channels else "[X, Y, Z] or [2, X, Y, Z]"
    pair = len(shape) == 4 and shape[0] == 2
    if not (pair or (channels is None and len(shape) == 3)):
        raise InputError(f"{path}: arr_0 has shape {list(shape)}, not {wanted}")
    _check_voxels(shape, dtype, size - stream.tell(), path)
    check_memory(math.prod(shape) * dtype.itemsize if fortran_order else 4 * math.prod(shape[-3:]), path)
    if fortran_order:  # the channels are interleaved: no way to read only one
        content = _read_exactly(stream, math.prod(shape) * dtype.itemsize)
        whole = np.frombuffer(content, dtype=dtype).reshape(shape, order="F")
        return np.ascontiguousarray(whole[channel] if pair else whole, dtype=np.float32)
    data = np.empty(shape[-3:], np.float32)
    row_bytes = data[0].size * dtype.itemsize
    if pair:
        for _ in range(channel * data.shape[0]):
            _read_exactly(stream, row_bytes)
    for row in data:
        row[:] = np.frombuffer(_read_exactly(stream, row_bytes), dtype=dtype).reshape(row.shape)
    return data


def _read_exactly(stream: BinaryIO, count: int) -> bytes:
    content = stream.read(count)
    if len(content) < count:
        raise EOFError
    return content


def _read_small(archive: zipfile.ZipFile, name: str, path: Path) -> np.ndarray:
    with archive.open(name) as stream:
        shape, fortran_order, dtype = _read_npy_header(stream, path)
        if archive.getinfo(name).file_size > 4096:
            raise InputError(f"{path}: its member {name} is too large for what it should be")
        return np.frombuffer(stream.read(), dtype=dtype).reshape(shape, order="F" if fortran_order else "C")[()]


def _read_mat(path: Path) -> StoredArray:
    return StoredArray(matlab.read(path), "mat", source={"format": "mat", "suv": "taken as SUV"})


def _npz_as_requested(path: Path, request: Request) -> StoredArray:
    return _as_suv(_read_npz(path, request.channel, request.channels), path, request)


def _mat_as_requested(path: Path, request: Request) -> StoredArray:
    return _as_suv(_read_mat(path), path, request)


def _as_suv(stored: StoredArray, path: Path, request: Request) -> StoredArray:
    flags = " ".join(f"--{name}" for name in request.overrides.given()) if request.overrides is not None else ""
    if flags:
        raise InputError(f"{path}: arrays (.npz, .mat) are taken as SUV already, so {flags} has no use; leave it out")
    return stored


def _is_npz(head: bytes) -> bool:
    """A zip whose first member is a numpy array."""
    length = int.from_bytes(head[26:28], "little")
    return head.startswith(b"PK\3\4") and head[LOCAL_HEADER_BYTES : LOCAL_HEADER_BYTES + length].endswith(b".npy")


def _is_mat(head: bytes) -> bool:
    return head.startswith(b"MATLAB ")


# A .mat of version 7.3 begins like any other HDF5 file where MATLAB did not write it, so its suffix decides.
FORMATS = (
    Format("npz", (".npz",), _is_npz, _npz_as_requested),
    Format("mat", (".mat",), _is_mat, _mat_as_requested),
)
NAMES = tuple(known.name for known in FORMATS)
"""Names of the formats that hold an array and need not say its unit or its place in space."""
