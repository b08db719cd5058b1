"""Acquisition times of the slices of a series, with dates or without."""

import datetime
import math
from collections.abc import Sequence
from dataclasses import dataclass

from pydicom import Dataset

from guided_diffusion.pet.formats import dicom_tags as tags
from guided_diffusion.pet.suv.overrides import SUVError, refusal

# No acquisition takes longer from its first bed or frame to its last.
LONGEST_SCAN = datetime.timedelta(hours=6)
HALF_A_DAY = datetime.timedelta(hours=12)
# Stands for the day of a scan whose dates were removed.
SOME_DAY = datetime.datetime(2000, 1, 2)


@dataclass(frozen=True)
class Moment:
    """A time of a scan. dated: whether its day is known. how: how it was found, for the record."""

    at: datetime.datetime
    dated: bool
    how: str = ""


def mean_rate_s(duration_s: float, half_life_s: float) -> float:
    """Time in a frame at which the activity equals its mean: t = ln(x / (1 - exp(-x))) / lambda, x = lambda T."""
    decay = math.log(2) / half_life_s
    x = decay * duration_s
    return math.log(x / -math.expm1(-x)) / decay


def mean_rate_moments(datasets: Sequence[Dataset], half_life_s: float) -> list[Moment]:
    """Moments at which each slice's activity equals its mean over the frame, for images without decay correction.

    Raises:
        SUVError: a slice lacks its time or its duration.
    """
    moments = []
    for dataset, start in zip(datasets, acquisitions(datasets), strict=True):
        duration_ms = tags.number(dataset, "ActualFrameDuration")
        if duration_ms is None or duration_ms <= 0:
            raise refusal(dataset, "ActualFrameDuration", "needed in each slice where DecayCorrection is NONE")
        middle = datetime.timedelta(seconds=mean_rate_s(duration_ms / 1000, half_life_s))
        moments.append(Moment(start.at + middle, start.dated))
    return moments


def acquisitions(datasets: Sequence[Dataset]) -> list[Moment]:
    """Moments at which the slices were acquired, all on the same calendar.

    A date that was removed is taken from AcquisitionDateTime, the series or the study. Without any date the slices are
    put on one day, and those after midnight on the next.

    Raises:
        SUVError: a slice without a time, or slices that cannot come from one scan.
    """
    found = [_acquisition(dataset) for dataset in datasets]
    if len({moment.dated for moment in found}) > 1:
        found = [Moment(SOME_DAY + time_of_day(moment.at), False) for moment in found]
    latest = max(moment.at for moment in found)
    if not all(moment.dated for moment in found):
        found = [m if latest - m.at < HALF_A_DAY else Moment(m.at + tags.DAY, False) for m in found]
        latest = max(moment.at for moment in found)
    earliest = min(moment.at for moment in found)
    if latest - earliest > LONGEST_SCAN:
        hours = (latest - earliest).total_seconds() / 3600
        raise SUVError(
            f"no SUV: {tags.name_tag('AcquisitionTime')} differs by {hours:.1f} h between the slices, which no scan"
            " takes; separate the two, or give --scan_start"
        )
    return found


def time_of_day(moment: datetime.datetime) -> datetime.timedelta:
    return moment - moment.replace(hour=0, minute=0, second=0, microsecond=0)


def _acquisition(dataset: Dataset) -> Moment:
    """AcquisitionDate and -Time, AcquisitionDateTime, or a time whose date was removed with another's date."""
    offset = tags.text(dataset, "TimezoneOffsetFromUTC")
    stated = tags.date_time(dataset, "Acquisition")
    if stated is None:
        stated = tags.parse_date_time(tags.time_text(dataset, "AcquisitionDateTime"), offset)
    if stated is not None:
        return Moment(stated, True)
    time = tags.parse_time(tags.time_text(dataset, "AcquisitionTime"))
    if time is None:
        raise refusal(dataset, "AcquisitionTime", "needed to correct for decay; give --scan_start")
    if tags.date_text(dataset, "AcquisitionDate") is not None:
        raise refusal(dataset, "AcquisitionDate", "needed to correct for decay; give --scan_start")
    return _on_borrowed_day(dataset, time)


def _on_borrowed_day(dataset: Dataset, time: datetime.timedelta) -> Moment:
    """A time of day on the date of the series or the study; on the next day if that day's series began much later."""
    for keyword in ("SeriesDate", "StudyDate"):
        day = tags.parse_date(tags.text(dataset, keyword))
        if day is not None:
            began = tags.parse_time(tags.time_text(dataset, keyword.replace("Date", "Time")))
            past_midnight = began is not None and began - time > HALF_A_DAY
            return Moment(day + time + (tags.DAY if past_midnight else datetime.timedelta(0)), True)
    return Moment(SOME_DAY + time, False)
