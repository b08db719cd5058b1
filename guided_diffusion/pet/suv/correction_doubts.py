"""Whether the decay factors of the slices fit what DecayCorrection says the image is corrected to."""

import math
from collections.abc import Sequence

from pydicom import Dataset

from guided_diffusion.pet.formats import dicom_tags as tags
from guided_diffusion.pet.suv.drug import half_life_s
from guided_diffusion.pet.suv.injection import delay_s, growth
from guided_diffusion.pet.suv.overrides import SUVError, SUVOverrides
from guided_diffusion.pet.suv.slice_times import acquisitions
from guided_diffusion.pet.suv.start_evidence import AGREEING_STARTS_S, start_by_decay_factor

# What the activity at two moments differs by where they are taken for one, and where they are certainly two.
ONE_MOMENT, TWO_MOMENTS = 1.01, 1.05
# Part of the decay between the first slices and the last that their factors must at least show.
LEAST_DECAY_SHOWN = 0.1


def doubts_of_correction(
    datasets: Sequence[Dataset], drug: Dataset, overrides: SUVOverrides, delay: float
) -> tuple[str, ...]:
    """A notice where the factors fit a correction to the injection and the header says START, or the other way round.

    delay: seconds from the injection to what the image is taken to be corrected to, 0 for ADMIN.
    """
    try:
        half_life = half_life_s(drug, overrides)
        found = start_by_decay_factor(datasets, acquisitions(datasets), half_life)
        if found is None:
            return ()
        by_factors = growth(delay_s(datasets, drug, found, half_life, overrides), half_life)
    except SUVError:  # times that this image's SUV does not need
        return ()
    taken = growth(delay, half_life)
    is_admin = taken == 1 and by_factors > TWO_MOMENTS
    is_start = taken > TWO_MOMENTS and 1 / ONE_MOMENT < by_factors < ONE_MOMENT
    if not (is_admin or is_start):
        return ()
    to = "the scan's start" if is_admin else "the injection"
    return (
        f"{tags.state(datasets[0], 'DecayFactor')}, which fits a correction to {to}, but"
        f" {tags.state(datasets[0], 'DecayCorrection')}; SUV may be {max(taken, by_factors):.2f} times too"
        f" {'low' if is_admin else 'high'}",
    )


def doubts_of_beds(datasets: Sequence[Dataset], half_life_s: float, overrides: SUVOverrides) -> tuple[str, ...]:
    """A notice where DecayCorrection is START, but the factors of beds acquired one after the other are the same.

    Each bed is then corrected to its own start, or not at all. half_life_s: seconds.
    """
    factors = [tags.number(dataset, "DecayFactor") for dataset in datasets]
    if overrides.scan_start is not None or any(factor is None or factor < 1 for factor in factors):
        return ()
    try:
        scanned = [moment.at for moment in acquisitions(datasets)]
    except SUVError:  # times that this image's SUV does not need
        return ()
    apart_s = (max(scanned) - min(scanned)).total_seconds()
    decay = growth(apart_s, half_life_s)
    is_shown = math.log(max(factors) / min(factors)) >= LEAST_DECAY_SHOWN * math.log(decay)
    if apart_s <= AGREEING_STARTS_S or decay < ONE_MOMENT or is_shown:
        return ()
    return (
        f"{tags.state(datasets[0], 'DecayFactor')} in slices acquired {apart_s / 60:.0f} min apart too, but"
        f" {tags.state(datasets[0], 'DecayCorrection')}; if each bed is corrected to its own start, SUV of the last is"
        f" {decay:.2f} times too low",
    )
