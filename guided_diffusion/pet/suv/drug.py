"""The injection in a series' headers: one item for all slices, its activity and its half-life."""

from collections.abc import Sequence

from pydicom import Dataset

from guided_diffusion.pet.formats import dicom_tags as tags
from guided_diffusion.pet.suv import nuclides
from guided_diffusion.pet.suv.agreement import same_value
from guided_diffusion.pet.suv.overrides import (
    SUVError,
    SUVOverrides,
    is_dose,
    refusal,
    refuse_override,
)

SEQUENCE = "RadiopharmaceuticalInformationSequence"
# The tag of an item, and the flag that replaces it.
ITEM_TAGS = {
    "RadionuclideTotalDose": "dose_bq",
    "RadionuclideHalfLife": "half_life_s",
    "RadiopharmaceuticalStartTime": "injection_time",
    "RadiopharmaceuticalStartDateTime": "injection_time",
}
# Rb-82, the shortest-lived in use, has 75 s; I-124, the longest that is injected, 4.2 days.
MIN_HALF_LIFE_S, MAX_HALF_LIFE_S = 60.0, 1e6


def drug_of(datasets: Sequence[Dataset], overrides: SUVOverrides) -> tuple[Dataset, str]:
    """The item of the radiopharmaceutical sequence that holds for all slices, and a remark where there was a choice.

    Of several items the one with a plausible activity is taken if there is just one, or if they agree. What the user
    gave is not compared.

    Raises:
        SUVError: the slices, or the items of a slice, say different things.
    """
    compared = [keyword for keyword, flag in ITEM_TAGS.items() if flag not in overrides.given()]
    chosen = [_item_of_slice(dataset, compared) for dataset in datasets]
    first, remark = chosen[0]
    for item, _ in chosen[1:]:
        for keyword in compared:
            if not same_value(first, item, keyword):
                raise SUVError(
                    f"no SUV: {tags.name_tag(keyword)} differs between the slices: {tags.shown(first, keyword)} and"
                    f" {tags.shown(item, keyword)}; separate the two, or give --{ITEM_TAGS[keyword]}"
                )
    return first, remark


def dose_bq(drug: Dataset, overrides: SUVOverrides) -> float:
    """The injected activity in Bq.

    Raises:
        SUVError: it is missing, or no possible activity.
    """
    dose = overrides.dose_bq if overrides.dose_bq is not None else tags.number(drug, "RadionuclideTotalDose")
    if not is_dose(dose):
        refuse_override("--dose_bq", overrides.dose_bq)
        raise refusal(drug, "RadionuclideTotalDose", "it must be in Bq; give --dose_bq")
    return dose


def half_life_s(drug: Dataset, overrides: SUVOverrides) -> float:
    """The half-life in s, which must be that of the nuclide that the header names.

    Raises:
        SUVError: it is missing, or cannot be true.
    """
    if overrides.half_life_s is not None:
        if not MIN_HALF_LIFE_S <= overrides.half_life_s <= MAX_HALF_LIFE_S:
            refuse_override("--half_life_s", overrides.half_life_s)
        return overrides.half_life_s
    half_life, named = tags.number(drug, "RadionuclideHalfLife"), nuclide_of(drug)
    advice = f"give --half_life_s {nuclides.HALF_LIVES_S[named]:g}" if named else "give --half_life_s"
    if half_life is None or half_life <= 0:
        raise refusal(drug, "RadionuclideHalfLife", f"it must be in seconds; {advice}")
    doubt = nuclides.doubt_half_life(half_life, named)
    if doubt is not None:
        raise refusal(drug, "RadionuclideHalfLife", f"{doubt}; it must be in seconds; {advice}")
    if not MIN_HALF_LIFE_S <= half_life <= MAX_HALF_LIFE_S:
        raise refusal(drug, "RadionuclideHalfLife", f"it must be in seconds; {advice}")
    return half_life


def nuclide_of(drug: Dataset) -> str | None:
    """The positron emitter that the item names, by its code or in the name of the drug; None if it names none."""
    for keyword in ("RadionuclideCodeSequence", "RadiopharmaceuticalCodeSequence"):
        for code in tags.items(drug, keyword):
            if tags.text(code, "CodeValue") == "C-111A1":
                return "F-18"
            named = nuclides.nuclide_in(tags.text(code, "CodeMeaning"))
            if named is not None:
                return named
    return nuclides.nuclide_in(tags.text(drug, "Radiopharmaceutical"))


def _item_of_slice(dataset: Dataset, compared: Sequence[str]) -> tuple[Dataset, str]:
    items = tags.items(dataset, SEQUENCE) or [Dataset()]
    different = [k for k in compared if not all(same_value(items[0], item, k) for item in items[1:])]
    if not different:
        return items[0], ""
    with_dose = [number for number, item in enumerate(items) if is_dose(tags.number(item, "RadionuclideTotalDose"))]
    if len(with_dose) == 1 and "RadionuclideTotalDose" in compared:
        number = with_dose[0]
        return items[number], f"; item {number + 1} of {len(items)} drugs, the only one with an activity"
    flags = " ".join(dict.fromkeys(f"--{ITEM_TAGS[keyword]}" for keyword in different))
    raise SUVError(
        f"no SUV: {tags.name_tag(SEQUENCE)} has {len(items)} items that differ in {tags.name_tag(different[0])};"
        f" say which was injected: give {flags}"
    )
