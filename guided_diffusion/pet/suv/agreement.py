"""Checks that the slices of a series agree on what SUV depends on."""

from collections.abc import Sequence

from pydicom import Dataset

from guided_diffusion.pet.formats import dicom_tags as tags
from guided_diffusion.pet.suv.overrides import SUVError, SUVOverrides

# Tags that must be the same in all slices, and the flag that replaces each, where there is one.
COMPARED = {
    "Units": None,
    "DecayCorrection": None,
    "CorrectedImage": None,
    "SUVType": None,
    "PatientWeight": "weight_kg",
    "PatientSize": None,
    "PatientSex": None,
    "TimezoneOffsetFromUTC": None,
}


def check_slices_agree(datasets: Sequence[Dataset], overrides: SUVOverrides, names: Sequence[str] = ()) -> None:
    """Refuses a series whose slices are of different units, corrections or bodies. names: the slices' files.

    Raises:
        SUVError: names the tag and two of its values.
    """
    first = datasets[0]
    for keyword, flag in COMPARED.items():
        if flag is not None and flag in overrides.given():
            continue
        for number, other in enumerate(datasets):
            if not same_value(first, other, keyword):
                advice = f", or give --{flag}" if flag else ", or export the series again"
                files = f" (first in {names[number]})" if names else ""
                raise SUVError(
                    f"no SUV: {tags.name_tag(keyword)} differs between the slices: {tags.shown(first, keyword)} and"
                    f" {tags.shown(other, keyword)}{files}; separate the two{advice}"
                )


def same_value(one: Dataset, other: Dataset, keyword: str) -> bool:
    """Whether a tag says the same in two data sets: as a number where it is one, else as texts in any order."""
    numbers = tags.number(one, keyword), tags.number(other, keyword)
    if None not in numbers:
        return numbers[0] == numbers[1]
    return set(tags.texts(one, keyword)) == set(tags.texts(other, keyword))
