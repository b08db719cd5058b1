"""How a reader declares its formats: name, suffixes, signature and the function that reads a file."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from guided_diffusion.pet.suv import SUVOverrides


@dataclass(frozen=True)
class StoredArray:
    """The array read from a file.

    data: float32 [i, j, k]. affine: 4x4 (mm, RAS+), None where the file has none. unit: as the file states it, or as
    it is taken. source: the rest, for the record; says whether the unit is stated.
    """

    data: np.ndarray
    format: str
    affine: np.ndarray | None = None
    unit: str = "SUV"
    source: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    """The wanted part of a file: one channel of a pair, which must have `channels` (None: it may be a volume)."""

    channel: int = 0
    channels: int | None = None
    overrides: SUVOverrides | None = None


@dataclass(frozen=True)
class Format:
    """A format of volumes: one file, or two of one name, per volume.

    suffixes: in lower case, the longest first. recognises: whether a file begins as this format does; formats without
    a signature never do, and are known by their suffix. read: raises InputError.
    """

    name: str
    suffixes: tuple[str, ...]
    recognises: Callable[[bytes], bool]
    read: Callable[[Path, Request], StoredArray]
