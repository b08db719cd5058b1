"""What a virtual trial on disk holds: the cases that its manifest lists."""

import csv
from dataclasses import dataclass
from pathlib import Path

from guided_diffusion.errors import InputError
from guided_diffusion.pet.trial import MANIFEST_COLUMNS

MANIFEST = "manifest.csv"


@dataclass(frozen=True)
class Case:
    """One subject at one dose (a fraction, 1 is normal) and its NIfTI files.

    `name` is the low-dose file below the trial's folder without its suffix, such as sub-0000/low_dose_1-20. It is also
    where the results of this case lie in a folder of results.
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
    """Whether a folder has a trial's manifest."""
    return (folder / MANIFEST).is_file()


def read_cases(folder: Path) -> list[Case]:
    """Every case of a trial in the manifest's order.

    Raises InputError where there is no manifest, or one that scripts/simulate.py did not write, or a file is missing.
    """
    manifest = folder / MANIFEST
    if not manifest.is_file():
        raise InputError(f"{manifest}: no such file; give the folder of a virtual trial (scripts/simulate.py --out)")
    with open(manifest, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = sorted(set(MANIFEST_COLUMNS) - set(reader.fieldnames or ()))
        if missing:
            raise InputError(f"{manifest}: no column {missing[0]!r}; is it the manifest of scripts/simulate.py?")
        return [_case(folder, row) for row in reader]


def _case(folder: Path, row: dict[str, str]) -> Case:
    manifest = folder / MANIFEST
    try:
        dose = float(row["dose"])
    except (TypeError, ValueError):
        raise InputError(f"{manifest}: the dose {row['dose']!r} is not a number") from None
    files = {}
    for kind in ("low_dose", "normal_dose", "truth", "labels"):
        path = (folder / (row[kind] or "")).resolve()
        if not path.is_relative_to(folder.resolve()):
            raise InputError(f"{manifest}: {row[kind]!r} lies outside the data set")
        if not path.is_file():
            raise InputError(f"{manifest}: {row[kind]!r} is not there; is the simulation complete?")
        files[kind] = path
    name = str(files["low_dose"].relative_to(folder.resolve())).removesuffix(".nii.gz")
    return Case(name, row["subject"], row["tracer"], row["scanner"], dose, row["split"], **files)
