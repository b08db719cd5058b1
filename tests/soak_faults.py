"""What the soak does to files: to inputs, to kept patches, to finished results and to sets of training."""

import gzip
import os
import random
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np

Damage = Callable[[Path, random.Random], None]


def flip(path: Path, rng: random.Random) -> None:
    """One bit of a file."""
    content = bytearray(path.read_bytes())
    if content:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def flip_inside(path: Path, rng: random.Random) -> None:
    """One bit of the middle half of a file, where the numbers stand."""
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content) // 4, 3 * len(content) // 4)] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def cut(path: Path, rng: random.Random) -> None:
    path.write_bytes(path.read_bytes()[: rng.randrange(max(path.stat().st_size, 1))])


def empty(path: Path, _rng: random.Random) -> None:
    path.write_bytes(b"")


def overwrite(path: Path, rng: random.Random) -> None:
    path.write_bytes(rng.randbytes(rng.randrange(1, 4000)))


def pipe(path: Path, _rng: random.Random) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def link(path: Path, _rng: random.Random) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to("/etc/hostname")


def folder(path: Path, _rng: random.Random) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()


def senseless_json(path: Path, rng: random.Random) -> None:
    path.write_text(rng.choice(("[]", "null", "[" * 50_000, "7", "{", '{"key": 3, "files": 1}')))


KEPT: dict[str, Damage] = {
    "kept patch: bit flipped": flip,
    "kept patch: cut": cut,
    "kept patch: emptied": empty,
    "kept patch: overwritten": overwrite,
    "kept patch: a pipe in its place": pipe,
    "kept patch: a link in its place": link,
    "kept patch: a folder in its place": folder,
}
FINISHED: dict[str, Damage] = {
    "result: bit flipped": flip,
    "result: cut": cut,
    "result: emptied": empty,
    "result: missing": lambda path, _rng: path.unlink(),
    "result: a link in its place": link,
}
MANIFEST: dict[str, Damage] = {
    "run.json: senseless": senseless_json,
    "run.json: cut": cut,
    "run.json: overwritten": overwrite,
}
TRAINING: dict[str, Damage] = {
    "training set: bit flipped": flip_inside,
    "training set: cut": cut,
    "training set: emptied": empty,
}


def _npz(path: Path, value: float) -> None:
    np.savez(path, arr_0=np.full((2, 16, 16, 16), value, np.float32))


def _bomb(path: Path, _rng: random.Random) -> None:
    image = nib.Nifti1Image(np.ones((4, 4, 4), np.float32), np.eye(4))
    path.with_suffix(".nii.gz").write_bytes(gzip.compress(image.to_bytes() + bytes(2**28), 1))


# Makers of inputs that cannot be used, each for a path ending in .npz.
BAD_INPUTS: dict[str, Damage] = {
    "input: bit flipped": lambda path, rng: (path.write_bytes(_good(path)), flip_inside(path, rng)),
    "input: cut": lambda path, rng: (path.write_bytes(_good(path)), cut(path, rng)),
    "input: emptied": empty,
    "input: NaN": lambda path, _rng: _npz(path, np.nan),
    "input: Bq/mL": lambda path, _rng: _npz(path, 50_000),
    "input: pickled": lambda path, _rng: np.savez(path, arr_0=np.array([{}], dtype=object)),
    "input: unfolds to gigabytes": _bomb,
}


def _good(path: Path) -> bytes:
    return (path.parent / "a_good.npz").read_bytes()
