"""What a series' headers say of the scan's start beside the series time, which others may have set or changed.

Each function gives None where the headers say nothing, disagree, or say what cannot be true.
"""

import datetime
import math
from collections.abc import Sequence

from pydicom import Dataset
from pydicom.valuerep import format_number_as_ds

from guided_diffusion.pet.formats import dicom_tags as tags
from guided_diffusion.pet.suv import private_tags
from guided_diffusion.pet.suv.private_tags import GE_SCAN_DATE_TIME, SIEMENS_DECAY_DATE_TIME, PrivateElement
from guided_diffusion.pet.suv.slice_times import LONGEST_SCAN, SOME_DAY, Moment, mean_rate_s, time_of_day

# Clocks in headers are rounded to seconds, and so are bed times.
ROUNDING = datetime.timedelta(seconds=1)
AGREEING_STARTS_S = 60.0
VENDORS_STARTS = (SIEMENS_DECAY_DATE_TIME, GE_SCAN_DATE_TIME)


def start_besides(datasets: Sequence[Dataset], scanned: Sequence[Moment], half_life_s: float) -> Moment | None:
    """The scan's start: as the vendor recorded it, by the decay factors of the slices, or by their reference times.

    scanned: when the slices were acquired. half_life_s: the one that the scanner corrected with.
    """
    earliest = min(scanned, key=lambda moment: moment.at)
    by_vendors = (_vendors_start(datasets, private, earliest) for private in VENDORS_STARTS)
    computed = (how(datasets, scanned, half_life_s) for how in (start_by_decay_factor, _start_by_reference_time))
    return next((found for found in (*by_vendors, *computed) if found is not None), None)


def restate_start(dataset: Dataset, start: datetime.datetime, acquired: datetime.datetime, half_life_s: float) -> None:
    """Makes a slice's header say of the scan's start what a user says of it: vendors' records of another one go.

    acquired: when the slice was.
    """
    for private in VENDORS_STARTS:
        tag = private_tags.tag_of(dataset, private)
        if tag is not None and tag in dataset:
            del dataset[tag]
    duration_s, since_start_s = _duration_s(dataset), (acquired - start).total_seconds()
    middle_s = since_start_s + (mean_rate_s(duration_s, half_life_s) if duration_s else 0.0)
    if "DecayFactor" in dataset:
        dataset.DecayFactor = format_number_as_ds(2.0 ** (middle_s / half_life_s))
    if "FrameReferenceTime" in dataset:
        reference_s = since_start_s if _is_of_ge(dataset) else middle_s
        dataset.FrameReferenceTime = format_number_as_ds(1000 * reference_s)


def _vendors_start(datasets: Sequence[Dataset], private: PrivateElement, earliest: Moment) -> Moment | None:
    """GE's record of the scan's start, or Siemens' of what decay is corrected to: later processing leaves both."""
    starts = set()
    for dataset in datasets:
        moment = private_tags.text(dataset, private)
        offset = tags.text(dataset, "TimezoneOffsetFromUTC")
        starts.add(None if tags.is_blanked(moment) else tags.parse_date_time(moment, offset))
    if None in starts or len(starts) != 1:
        return None
    at = starts.pop()
    if not earliest.dated:
        at = SOME_DAY + time_of_day(at)
    if not -ROUNDING <= earliest.at - at <= LONGEST_SCAN:
        return None
    vendor = "GE" if private is GE_SCAN_DATE_TIME else "Siemens"
    name = tags.name_tag(private_tags.tag_of(datasets[0], private) or private.usual_tag)
    return Moment(at, earliest.dated, f"{vendor} {name}")


def start_by_decay_factor(datasets: Sequence[Dataset], scanned: Sequence[Moment], half_life_s: float) -> Moment | None:
    """A slice's decay factor is the activity at the scan's start, relative to its mean over the frame."""
    offsets = []
    for dataset in datasets:
        factor, duration_s = tags.number(dataset, "DecayFactor"), _duration_s(dataset)
        if factor is None or factor < 1 or duration_s is None:
            return None
        offsets.append(half_life_s * math.log2(factor) - mean_rate_s(duration_s, half_life_s))
    return _agreed(scanned, offsets, "DecayFactor")


def _start_by_reference_time(
    datasets: Sequence[Dataset], scanned: Sequence[Moment], half_life_s: float
) -> Moment | None:
    """QIBA's formula: acquisition - (FrameReferenceTime - time of the mean count rate).

    It finds the scan's start also where the first beds are missing. GE's reference times are those at which frames
    begin, so that there is nothing to take off, and that of the first frame is 0.
    """
    offsets = []
    for dataset in datasets:
        reference_ms, duration_s = tags.number(dataset, "FrameReferenceTime"), _duration_s(dataset)
        if reference_ms is None or duration_s is None or reference_ms < 0:
            return None
        if _is_of_ge(dataset):
            offsets.append(reference_ms / 1000)
        elif reference_ms == 0:
            return None
        else:
            offsets.append(reference_ms / 1000 - mean_rate_s(duration_s, half_life_s))
    return _agreed(scanned, offsets, "FrameReferenceTime")


def _agreed(scanned: Sequence[Moment], offsets_s: Sequence[float], keyword: str) -> Moment | None:
    """The start that lies so many seconds before each slice's acquisition, if all slices agree on it."""
    if max(map(abs, offsets_s)) > LONGEST_SCAN.total_seconds():
        return None  # not initialised, perhaps
    starts = [moment.at - datetime.timedelta(seconds=offset) for moment, offset in zip(scanned, offsets_s, strict=True)]
    start, earliest = min(starts), min(moment.at for moment in scanned)
    if (max(starts) - start).total_seconds() > AGREEING_STARTS_S:
        return None
    if not -2 * ROUNDING <= earliest - start <= LONGEST_SCAN:
        return None
    return Moment(start, scanned[0].dated, f"scan start by {tags.name_tag(keyword)}")


def _duration_s(dataset: Dataset) -> float | None:
    duration_ms = tags.number(dataset, "ActualFrameDuration")
    return duration_ms / 1000 if duration_ms is not None and duration_ms > 0 else None


def _is_of_ge(dataset: Dataset) -> bool:
    return (tags.text(dataset, "Manufacturer") or "").upper().startswith("GE")
