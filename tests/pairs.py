"""Reading a subject's pair of low dose and normal dose whole, as no part of the library needs to."""

from pathlib import Path

from guided_diffusion.pet.formats.arrays import StoredArray, read_channel


def read_pair(path: Path) -> tuple[StoredArray, StoredArray]:
    """Low dose and normal dose of an `.npz` whose `arr_0` is [2, X, Y, Z]."""
    return read_channel(path, 0, channels=2), read_channel(path, 1, channels=2)
