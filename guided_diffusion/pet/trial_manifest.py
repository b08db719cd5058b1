"""`manifest.csv` of a virtual trial: a row per subject and dose, whose files are named relative to its folder."""

import csv
from collections.abc import Sequence
from pathlib import Path

from guided_diffusion.errors import InputError
from guided_diffusion.pet.damage import damage_as

MANIFEST = "manifest.csv"
MANIFEST_COLUMNS = (
    "subject", "seed", "tracer", "scanner", "dose", "split", "voxel_mm",
    "pair", "low_dose", "normal_dose", "truth", "labels",
)  # fmt: skip


def is_trial(folder: Path) -> bool:
    """Whether a folder has a trial's manifest."""
    return (folder / MANIFEST).is_file()


def read_manifest(folder: Path, columns: Sequence[str] = MANIFEST_COLUMNS) -> list[dict[str, str]]:
    """The rows in their order; what is missing at the end of a row is "".

    columns: those that must be there. Raises InputError where there is no manifest, it cannot be read, or it lacks
    one of them.
    """
    manifest = folder / MANIFEST
    if not manifest.is_file():
        raise InputError(f"{manifest}: no such file; give the folder of a virtual trial (scripts/simulate.py --out)")
    damaged = f"{manifest}: is no table in UTF-8; is it the manifest of scripts/simulate.py?"
    with damage_as(damaged), open(manifest, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file, restval="")
        names, rows = reader.fieldnames or (), list(reader)
    for column in columns:
        if column not in names:
            raise InputError(f"{manifest}: no column {column!r}; is it the manifest of scripts/simulate.py?")
    return rows


def file_of(folder: Path, row: dict[str, str], column: str) -> Path:
    """The file that a row names in a column. Raises InputError where it lies outside the folder or is not there."""
    path = (folder / row[column]).resolve()
    named = f"{folder / MANIFEST}: the {column.replace('_', ' ')} {row[column]!r}"
    if not path.is_relative_to(folder.resolve()):
        raise InputError(f"{named} lies outside the data set")
    if not path.is_file():
        raise InputError(f"{named} is not there; is the simulation complete?")
    return path
