"""A user's values in place of tags, bounds of what can be true, and the errors that refuse the rest."""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from pydicom import Dataset

from guided_diffusion.errors import InputError
from guided_diffusion.pet.formats import dicom_tags as tags
from guided_diffusion.pet.text import printable

# People get between about 1 MBq and a few GBq. Smaller numbers are in kBq or MBq whatever the header says.
MIN_DOSE_BQ, MAX_DOSE_BQ = 1e6, 1e11
MAX_WEIGHT_KG = 500.0
_HOUR_OF_ONE_DIGIT = re.compile(r"\d:\d\d.*")


class SUVError(InputError):
    """No trustworthy SUV factor follows from the header; says which tag and value prevent it."""


@dataclass(frozen=True)
class SUVOverrides:
    """A user's values in place of missing or wrong tags.

    weight_kg: body weight in kg. dose_bq: injected activity in Bq at `injection_time`. injection_time: HHMMSS,
    HH:MM:SS, or with the date before it (YYYYMMDDHHMMSS, YYYY-MM-DDTHH:MM:SS); a single digit of hours gets its zero.
    half_life_s: seconds. scan_start: the time that the image is decay-corrected to, written as injection_time is.
    """

    weight_kg: float | None = None
    dose_bq: float | None = None
    injection_time: str | None = None
    half_life_s: float | None = None
    scan_start: str | None = None

    def __post_init__(self) -> None:
        for name in ("injection_time", "scan_start"):
            time = getattr(self, name)
            if time is not None and _HOUR_OF_ONE_DIGIT.fullmatch(time):
                object.__setattr__(self, name, f"0{time}")

    def given(self) -> dict[str, object]:
        """Those that were given, for the run's record."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @property
    def remark(self) -> str:
        """Text for a record that names the values used; empty where none was given."""
        return f"; given by the user: {', '.join(self.given())}" if self.given() else ""


def suvbw_of_bqml(weight_kg: float, dose_bq: float) -> float:
    """SUVbw per Bq/mL for an image that is decay-corrected to the injection of `dose_bq`.

    Raises:
        SUVError: weight or dose cannot be true.
    """
    if not is_weight(weight_kg):
        raise SUVError(f"a weight of {weight_kg:g} kg cannot be true; give the body weight in kg")
    if not is_dose(dose_bq):
        raise SUVError(f"a dose of {dose_bq:g} Bq cannot be true; give the injected activity in Bq, not in kBq or MBq")
    return weight_kg * 1000 / dose_bq


def is_weight(value: float | None) -> bool:
    """Whether a body weight in kg is possible."""
    return value is not None and 0 < value <= MAX_WEIGHT_KG


def is_dose(value: float | None) -> bool:
    """Whether an injected activity in Bq is possible."""
    return value is not None and MIN_DOSE_BQ <= value <= MAX_DOSE_BQ


def refusal(dataset: Dataset, keyword: str | tuple[int, int], reason: str) -> SUVError:
    """'no SUV: <tag> is <value>; <reason>'."""
    state = tags.state(dataset, keyword)
    if isinstance(keyword, str) and keyword.endswith("Time") and tags.is_blanked(tags.text(dataset, keyword)):
        state += ", as de-identification leaves it"
    return SUVError(f"no SUV: {state}; {reason}")


def refuse_override(flag: str, value: object) -> None:
    """Raises SUVError where a flag was given: called once its value turned out impossible."""
    if value is not None:
        raise SUVError(f"{flag} {printable(value)} cannot be true; check its unit")


def refuse_unused(overrides: SUVOverrides, names: Sequence[str], why: str) -> None:
    """Raises SUVError for given values that the factor does not use: records would claim that it did."""
    unused = " ".join(f"--{name}" for name in overrides.given() if name in names)
    if unused:
        raise SUVError(f"{unused} cannot change this image's SUV, because {why}; leave it out")
