"""What a virtual trial on disk holds: the cases that its manifest lists."""

from dataclasses import dataclass
from pathlib import Path

from guided_diffusion.errors import InputError
from guided_diffusion.pet.trial_manifest import MANIFEST, file_of, read_manifest


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


def read_cases(folder: Path) -> list[Case]:
    """Every case of a trial in the manifest's order.

    Raises InputError where there is no manifest, or one that scripts/simulate.py did not write, or a file is missing.
    """
    return [_case(folder, row) for row in read_manifest(folder)]


def _case(folder: Path, row: dict[str, str]) -> Case:
    try:
        dose = float(row["dose"])
    except ValueError:
        raise InputError(f"{folder / MANIFEST}: the dose {row['dose']!r} is not a number") from None
    files = {kind: file_of(folder, row, kind) for kind in ("low_dose", "normal_dose", "truth", "labels")}
    name = str(files["low_dose"].relative_to(folder.resolve())).removesuffix(".nii.gz")
    return Case(name, row["subject"], row["tracer"], row["scanner"], dose, row["split"], **files)
