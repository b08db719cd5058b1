"""DICOM files whose whole data set is deflated: their size is checked before pydicom unpacks them at once."""

import struct
import zlib
from typing import BinaryIO

from guided_diffusion.errors import InputError
from guided_diffusion.gate import check_unfolded, unfolded_limit

_SYNTAX = b"1.2.840.10008.1.2.1.99"
_META_BYTES = 2**14
# The preamble, "DICM", and the first element: File Meta Information Group Length (0002,0000), UL, 4 bytes.
_LENGTH_ELEMENT = b"DICM\x02\x00\x00\x00UL\x04\x00"
_LENGTH_AT, _META_AT = 140, 144
_CHUNK = 2**16


def check_deflated(stream: BinaryIO, name: str) -> None:
    """Unpacks a deflated data set piece by piece without keeping it; leaves the stream at its start.

    Raises InputError for one that unpacks to more than is plausible, and for a deflated file that does not say where
    its data set begins.
    """
    first = stream.read(_META_BYTES)
    stream.seek(0)
    if _SYNTAX not in first:
        return
    if first[128:_LENGTH_AT] != _LENGTH_ELEMENT:
        raise InputError(f"{name}: is deflated, but does not say where; export it again")
    stream.seek(_META_AT + struct.unpack_from("<I", first, _LENGTH_AT)[0])
    unpacker, packed, total = zlib.decompressobj(-zlib.MAX_WBITS), 0, 0
    while not unpacker.eof and (piece := unpacker.unconsumed_tail or stream.read(_CHUNK)):
        before = len(unpacker.unconsumed_tail)
        packed += 0 if before else len(piece)
        total += len(unpacker.decompress(piece, _CHUNK))
        if total > unfolded_limit(packed):
            check_unfolded(total, packed, name)
    stream.seek(0)
