"""`manifest.csv` of a virtual trial: a row per subject and dose, whose files are named relative to its folder."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from guided_diffusion.errors import InputError
from guided_diffusion.gate import open_regular
from guided_diffusion.pet.csv_rows import read_csv_rows
from guided_diffusion.pet.damage import damage_as
from guided_diffusion.pet.text import number_of_cell, printable

MANIFEST = "manifest.csv"
SETTINGS = "trial.json"
SPLITS = ("train", "validation", "test")
MAX_HEADING_BYTES = 2**16
MANIFEST_COLUMNS = (
    "subject", "seed", "tracer", "scanner", "dose", "split", "voxel_mm",
    "pair", "low_dose", "normal_dose", "truth", "labels",
)  # fmt: skip
_OF_CASES = ("low_dose", "normal_dose", "truth", "labels")
# Those that no table of another program has, which may well list subjects, tracers and splits.
_OWN_COLUMNS = frozenset(("voxel_mm", "pair"))
# A further column, which older manifests lack: how much of the normal dose's noise is taken from what a pair aims at.
CLEAN_SHARE = "clean_share"


@dataclass(frozen=True)
class Case:
    """One subject at one dose (as a fraction of the normal dose) and its NIfTI files.

    `name` is the path of the low-dose file in the trial's folder without its suffix, such as sub-0000/low_dose_1-20; in
    a folder of results, the results of this case have the same path.
    """

    name: str
    subject: str
    tracer: str
    scanner: str
    dose: float
    split: str
    low_dose: Path
    normal_dose: Path
    truth: Path
    labels: Path


def is_trial(folder: Path) -> bool:
    """Whether a folder has a trial's manifest: damaged perhaps, but no table of others, who use the name too.

    Beside the settings that scripts/simulate.py wrote any manifest counts, elsewhere one with columns of its own.
    """
    manifest = folder / MANIFEST
    if not manifest.is_file():
        return False
    with open_regular(manifest) as file:
        columns = re.split("[,;\t]", file.readline(MAX_HEADING_BYTES).decode("utf-8-sig", "ignore"))
    return (folder / SETTINGS).is_file() or not _OWN_COLUMNS.isdisjoint(name.strip(' "\r\n') for name in columns)


def read_manifest(folder: Path, columns: Sequence[str] = MANIFEST_COLUMNS) -> list[dict[str, str]]:
    """The rows in their order; missing values at the end of a row are "".

    columns: required columns. Raises InputError if there is no manifest, it cannot be read, or it lacks a column.
    """
    manifest = folder / MANIFEST
    if not manifest.is_file():
        raise InputError(f"{manifest}: no such file; give the folder of a virtual trial (scripts/simulate.py --out)")
    damaged = f"{manifest}: is no table in UTF-8; is it the manifest of scripts/simulate.py?"
    with damage_as(damaged), open_regular(manifest) as file:
        names, rows = read_csv_rows(file)
    for column in columns:
        if column not in names:
            raise InputError(f"{manifest}: no column {column!r}; is it the manifest of scripts/simulate.py?")
    return rows


def file_of(folder: Path, row: dict[str, str], column: str) -> Path:
    """The file that a row names in a column. Raises InputError where it lies outside the folder or is not there."""
    named = f"{folder / MANIFEST}: the {column.replace('_', ' ')} '{printable(row[column])}'"
    with damage_as(f"{named} is no name of a file"):
        path = (folder / row[column]).resolve()
        is_file = path.is_file()
    if not path.is_relative_to(folder.resolve()):
        raise InputError(f"{named} lies outside the data set")
    if not is_file:
        raise InputError(f"{named} is not there; is the simulation complete?")
    return path


def share_of(folder: Path, text: str, column: str) -> float:
    """The number of a cell in a column of shares, from 0 to 1; a dose is above 0. Raises InputError for other text."""
    share = number_of_cell(text)
    if not 0 <= share <= 1 or (column == "dose" and share == 0):
        least = "above 0 to 1" if column == "dose" else "from 0 to 1"
        raise InputError(
            f"{folder / MANIFEST}: {column} '{printable(text)}' is no number {least}, such as 0.05 or 1/20"
        )
    return share


def read_cases(folder: Path) -> list[Case]:
    """Every case of a trial in the manifest's order.

    Raises InputError if there is no manifest, if scripts/simulate.py did not write it, if a file is missing, or if it
    was made for training alone.
    """
    return [_case(folder, row) for row in read_manifest(folder)]


def _case(folder: Path, row: dict[str, str]) -> Case:
    dose = share_of(folder, row["dose"], "dose")
    if row["pair"] and not any(row[kind] for kind in _OF_CASES):
        raise InputError(
            f"{folder / MANIFEST}: this trial has pairs for training only, no scans; simulate one with --native True"
        )
    files = {kind: file_of(folder, row, kind) for kind in _OF_CASES}
    name = str(files["low_dose"].relative_to(folder.resolve())).removesuffix(".nii.gz")
    return Case(name, row["subject"], row["tracer"], row["scanner"], dose, row["split"], **files)
