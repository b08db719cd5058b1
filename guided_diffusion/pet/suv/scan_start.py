"""The scan's start, which DecayCorrection START refers to.

After QIBA's pseudo-code: the series time is the scan's start, unless the series was made later; then GE's private scan
time, or the frame reference time less the time of the mean count rate within the frame, gives it.
"""

import datetime
from collections.abc import Sequence

from pydicom import Dataset

from guided_diffusion.pet.formats import dicom_tags as tags
from guided_diffusion.pet.suv.overrides import SUVError, SUVOverrides
from guided_diffusion.pet.suv.slice_times import LONGEST_SCAN, SOME_DAY, Moment, acquisitions, mean_rate_s, time_of_day
from guided_diffusion.pet.text import printable

GE_CREATOR = (0x0009, 0x0010)
GE_SCAN_DATE_TIME = (0x0009, 0x100D)
# Clocks in headers are rounded to seconds, and so are bed times.
ROUNDING = datetime.timedelta(seconds=1)
AGREEING_STARTS_S = 60.0


def decay_reference(datasets: Sequence[Dataset], half_life_s: float, overrides: SUVOverrides) -> Moment:
    """The time that a series with DecayCorrection START is corrected to, and how it was found.

    Raises:
        SUVError: the tags are missing or contradict each other.
    """
    if overrides.scan_start is not None:
        return _given_start(datasets, overrides.scan_start)
    scanned = acquisitions(datasets)
    earliest = min(scanned, key=lambda moment: moment.at)
    series = _series_time(datasets, earliest)
    rewritten = ""
    if series is not None:
        if -ROUNDING <= earliest.at - series.at <= LONGEST_SCAN:
            return series
        rewritten = "; the series time is that of a later step"
        if series.at < earliest.at:
            rewritten = "; the series time lies too long before it"
    for found in (_ge_start(datasets, earliest), _start_by_reference_time(datasets, scanned, half_life_s)):
        if found is not None:
            return Moment(found.at, earliest.dated, found.how + rewritten)
    return Moment(earliest.at, earliest.dated, f"earliest acquisition time{rewritten}")


def _series_time(datasets: Sequence[Dataset], earliest: Moment) -> Moment | None:
    """The series time, on the acquisition's day where it has no date; None where it is missing.

    Raises:
        SUVError: it differs between the slices.
    """
    times = [tags.parse_time(tags.time_text(d, "SeriesTime")) for d in datasets]
    days = [tags.parse_date(tags.text(d, "SeriesDate")) for d in datasets]
    known = {(day, time) for day, time in zip(days, times, strict=True) if time is not None}
    if not known:
        return None
    (day, time), *others = sorted(known, key=str)
    for other in others:
        if other[0] != day or abs(other[1] - time) > ROUNDING:
            raise SUVError(
                f"no SUV: {tags.name_tag('SeriesTime')} differs between the slices, so their decay is corrected to"
                " different times; separate the two, or give --scan_start"
            )
    if day is not None and earliest.dated:
        return Moment(day + time, True, "series time")
    at = earliest.at - time_of_day(earliest.at) + time
    at += tags.DAY * round((earliest.at - at) / tags.DAY)
    return Moment(at, earliest.dated, "series time" if earliest.dated else "series time; the dates were removed")


def _ge_start(datasets: Sequence[Dataset], earliest: Moment) -> Moment | None:
    """GE's own record of the scan's start, which stays when the series is processed again."""
    starts = set()
    for dataset in datasets:
        if not (tags.text(dataset, GE_CREATOR) or "GEMS_PETD_01").startswith("GEMS"):
            return None
        offset = tags.text(dataset, "TimezoneOffsetFromUTC")
        starts.add(tags.parse_date_time(tags.time_text(dataset, GE_SCAN_DATE_TIME), offset))
    if None in starts or len(starts) != 1:
        return None
    at = starts.pop()
    if not earliest.dated:
        at = SOME_DAY + time_of_day(at)
    if not -ROUNDING <= earliest.at - at <= LONGEST_SCAN:
        return None
    return Moment(at, earliest.dated, f"GE {tags.name_tag(GE_SCAN_DATE_TIME)}")


def _start_by_reference_time(
    datasets: Sequence[Dataset], scanned: Sequence[Moment], half_life_s: float
) -> Moment | None:
    """QIBA's formula: acquisition - (FrameReferenceTime - time of the mean count rate); None where slices disagree.

    It finds the scan's start also where the first beds are missing.
    """
    starts = []
    for dataset, moment in zip(datasets, scanned, strict=True):
        reference_ms = tags.number(dataset, "FrameReferenceTime")
        duration_ms = tags.number(dataset, "ActualFrameDuration")
        if not reference_ms or not duration_ms or reference_ms <= 0 or duration_ms <= 0:
            return None
        since_start = reference_ms / 1000 - mean_rate_s(duration_ms / 1000, half_life_s)
        starts.append(moment.at - datetime.timedelta(seconds=since_start))
    start, earliest = min(starts), min(moment.at for moment in scanned)
    if (max(starts) - start).total_seconds() > AGREEING_STARTS_S:
        return None
    if not -2 * ROUNDING <= earliest - start <= LONGEST_SCAN:
        return None
    return Moment(start, scanned[0].dated, f"scan start by {tags.name_tag('FrameReferenceTime')}")


def _given_start(datasets: Sequence[Dataset], text: str) -> Moment:
    """The moment that --scan_start gives; a time without date is on the acquisition's day, where that is known."""
    how = "scan start given by the user"
    at = tags.parse_date_time(text, tags.text(datasets[0], "TimezoneOffsetFromUTC"))
    if at is not None:
        return Moment(at, True, how)
    time = tags.parse_time(text)
    if time is None:
        raise SUVError(f"--scan_start {printable(text)} is no time; give HHMMSS, or YYYYMMDDHHMMSS with the date")
    for keyword in ("AcquisitionDate", "SeriesDate", "StudyDate"):
        day = tags.parse_date(tags.text(datasets[0], keyword))
        if day is not None:
            return Moment(day + time, True, how)
    return Moment(SOME_DAY + time, False, how)
