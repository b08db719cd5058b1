"""Loading weights without executing code, and saving them atomically.

A file is checked before anything is built from it: its checksums, the kinds of its tensors, its header.

A checkpoint is either a plain state dict (the published layout) or a dictionary with "header" and "state_dict".
"""

import hashlib
import io
import os
import pickle
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from guided_diffusion.config import Header
from guided_diffusion.config.header_checks import check_header
from guided_diffusion.errors import InputError
from guided_diffusion.files import atomic_write
from guided_diffusion.fitting_flags import OPTIONAL_PARTS, advice_on_flags
from guided_diffusion.gate import check_memory, check_zip, open_regular, pointer_remark, remote_storage
from guided_diffusion.pet.text import printable
from guided_diffusion.stand_ins import load_with_stand_ins
from guided_diffusion.wrapped_weights import StateDict, find_weights, has_weights

_ALONE = "save its weights alone: torch.save(model.state_dict(), FILE)"


class ForeignObjectsError(InputError):
    """A file holds more than tensors and plain values."""


@dataclass(frozen=True)
class Checkpoint:
    """Weights, and the header of our own checkpoints (None for a plain state dict).

    sha256: of the bytes that they were read from. notices: lines for the user on how they were found.
    """

    state_dict: StateDict
    header: Header | None
    sha256: str = ""
    notices: tuple[str, ...] = ()


def read_bytes(path: str) -> bytes:
    """The bytes of a file, a regular one if it is local. Raises InputError where it is missing or cannot be fetched."""
    with _open(path) as file:
        check_memory(file.seek(0, os.SEEK_END), path)
        file.seek(0)
        try:
            return file.read()
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({_first_line(error)})") from None


@contextmanager
def _open(path: str) -> Iterator[BinaryIO]:
    """The file, a regular one if it is local."""
    if "://" not in path:
        if not Path(path).exists():
            raise InputError(f"{path}: no such checkpoint")
        with open_regular(path) as file:
            yield file
        return
    blobfile = remote_storage()
    try:
        if not blobfile.exists(path):
            raise InputError(f"{path}: no such checkpoint")
        with blobfile.BlobFile(path, "rb") as file:
            yield file
    except blobfile.Error as error:
        raise InputError(f"{path}: cannot be fetched ({_first_line(error)})") from None


def parse_plain(
    content: bytes, path: str, map_location: torch.device | str = "cpu", *, stand_ins: bool = False
) -> dict:
    """Whatever dictionary of tensors and plain values a file's bytes hold; nothing in them is executed.

    stand_ins: take empty stand-ins for other objects. Raises InputError for a truncated or foreign file, and for one
    that its own checksums say is damaged; ForeignObjectsError for other objects.
    """
    _check_kind(content, path)
    if content.startswith(b"PK"):
        damaged = "not a readable PyTorch checkpoint (its checksums do not fit)"
        check_zip(io.BytesIO(content), len(content), path, damaged)
        _check_archive(content, path)
    with warnings.catch_warnings():
        try:
            warnings.simplefilter("ignore")  # PyTorch says much about other programs' files
            if stand_ins:
                plain = load_with_stand_ins(content, map_location)
            else:
                plain = torch.load(io.BytesIO(content), map_location=map_location, weights_only=True)
        except pickle.UnpicklingError:
            raise ForeignObjectsError(
                f"{path}: holds more than tensors and plain values, so it is not loaded; {_ALONE}"
            ) from None
        except Exception as error:  # PyTorch's readers raise many exceptions on damaged files
            raise InputError(f"{path}: not a readable PyTorch checkpoint ({_first_line(error)})") from None
    if not isinstance(plain, dict):
        raise InputError(f"{path}: holds a {type(plain).__name__}, not a state dict; {_ALONE}")
    return plain


def _parse_with_weights(content: bytes, path: str, map_location: torch.device | str = "cpu") -> dict:
    """`parse_plain`, which also accepts other objects beside a network's weights."""
    try:
        return parse_plain(content, path, map_location)
    except ForeignObjectsError as refusal:
        try:
            plain = parse_plain(content, path, map_location, stand_ins=True)
        except InputError:
            raise refusal from None
        if not has_weights(plain):
            raise refusal from None
        return plain


def _check_kind(content: bytes, path: str) -> None:
    """Raises InputError for what often stands in a checkpoint's place, with a way out."""
    pointer = pointer_remark(content)
    if pointer is not None:
        raise InputError(f"{path}: {pointer}")
    if not content:
        raise InputError(f"{path}: not a readable PyTorch checkpoint: it is empty; copy or download it again")
    if content[8:9] == b"{" and int.from_bytes(content[:8], "little") <= len(content) - 8:
        raise InputError(f"{path}: is in the safetensors format; save its tensors with torch.save")
    if content.lstrip()[:1] == b"<":
        raise InputError(f"{path}: not a readable PyTorch checkpoint but a web page; download the file itself")
    if content.startswith(b"\x1f\x8b"):
        raise InputError(f"{path}: not a readable PyTorch checkpoint but packed with gzip; unpack it first")
    if not content.startswith((b"PK", b"\x80")):  # a zip, or a pickle
        raise InputError(f"{path}: not a readable PyTorch checkpoint but a file of another program; {_ALONE}")


def _check_archive(content: bytes, path: str) -> None:
    """Raises InputError for a zip, whole by its checksums, that is none of `torch.save`."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = {name.rpartition("/")[2] for name in archive.namelist()}
    if "constants.pkl" in names:
        raise InputError(f"{path}: is a TorchScript program, not weights; {_ALONE}")
    if "data.pkl" not in names:
        held = printable(_first_of(sorted(names)))
        raise InputError(f"{path}: not a readable PyTorch checkpoint but an archive of {held}; unpack it")


def read_plain(path: str) -> dict:
    """`parse_plain` of a local or remote file. Raises InputError as it does, and for a missing file."""
    return parse_plain(read_bytes(path), path)


def parse_checkpoint(content: bytes, path: str) -> Checkpoint:
    """Weights, as stored, and header of a checkpoint, taken out of what training programs wrap them in.

    Raises InputError as `parse_plain` does, for entries that are no weights or have no names, and for a header that
    makes no sense.
    """
    plain = _parse_with_weights(content, path)
    header = None
    if "header" in plain:
        check_header(plain["header"], path)
        header = Header.from_dict(plain["header"], path)
    state_dict, notices = find_weights(plain, path)
    for name, value in state_dict.items():
        if not isinstance(value, Tensor):
            raise InputError(f"{path}: not a state dict: {printable(name)} is no tensor")
        _check_weights(name, value, path)
    return Checkpoint(state_dict, header, hashlib.sha256(content).hexdigest(), notices)


def load_checkpoint(path: str) -> Checkpoint:
    """`parse_checkpoint` of a local or remote file."""
    return parse_checkpoint(read_bytes(path), path)


def parse_state_dict(content: bytes, path: str, map_location: torch.device | str) -> dict[str, Any]:
    """A file's weights, or its whole content where it holds none, as the state of an optimiser."""
    plain = _parse_with_weights(content, path, map_location)
    return find_weights(plain, path)[0] if has_weights(plain) else plain


def _check_weights(name: str, value: Tensor, path: str) -> None:
    """Raises InputError for what is no array of finite floating-point numbers in memory."""
    if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
        kind = "quantised" if value.is_quantized else "without values" if value.is_meta else "sparse"
        raise InputError(f"{path}: {printable(name)} is {kind}; save plain weights (state_dict of float tensors)")
    if not value.is_floating_point():
        raise InputError(f"{path}: {printable(name)} holds {str(value.dtype).removeprefix('torch.')}, no weights")
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise InputError(f"{path}: {printable(name)} claims more values than the file holds; it is damaged")
    if value.numel() and not torch.isfinite(torch.stack(torch.aminmax(value.float()))).all():
        raise InputError(f"{path}: {printable(name)} has NaN or infinite weights; the training that made it failed")


def save_checkpoint(path: Path, state_dict: StateDict, header: Header) -> None:
    """Write weights with their header, atomically."""
    save_plain(path, {"header": header.as_dict(), "state_dict": state_dict})


def save_plain(path: Path, content: dict) -> None:
    """Write a dictionary of tensors and plain values, atomically. Raises as `files.atomic_write`."""
    with atomic_write(path) as temporary, open(temporary, "wb") as file:  # torch refuses names without a suffix
        try:
            torch.save(content, file)
        except RuntimeError as error:  # of ending a file that could not be written
            raise error.__context__ if isinstance(error.__context__, OSError) else error from None


def load_weights(model: nn.Module, state_dict: StateDict, path: str) -> None:
    """Put weights into a model by name, as float32.

    Raises InputError that names the first missing, unexpected and misshapen tensors and the flags that would fit.
    """
    ours = model.state_dict()
    missing = [name for name in ours if name not in state_dict]
    unexpected = [name for name in state_dict if name not in ours]
    misshapen = [
        f"{name} is {tuple(state_dict[name].shape)}, the flags ask for {tuple(ours[name].shape)}"
        for name in ours
        if name in state_dict and state_dict[name].shape != ours[name].shape
    ]
    if missing or unexpected or misshapen:
        kinds = {"missing": missing, "unexpected": unexpected, "misshapen": misshapen}
        found = "; ".join(f"{kind}: {_first_of(names)}" for kind, names in kinds.items() if names)
        parts = {name.partition(".")[0] for name in (*ours, *OPTIONAL_PARTS)}
        if not (missing or misshapen) and not any(name.partition(".")[0] in parts for name in unexpected):
            raise InputError(f"{path}: holds more than the network's weights ({found}); {_ALONE}")
        raise InputError(f"{path}: the weights do not fit the flags ({found}); {advice_on_flags(state_dict)}")
    model.load_state_dict({name: value.float() for name, value in state_dict.items()}, assign=True)


def _first_of(names: list[str]) -> str:
    return names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:200]
