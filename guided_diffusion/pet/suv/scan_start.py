"""The scan's start, which DecayCorrection START refers to.

After QIBA's pseudo-code: the series time is the scan's start, unless the series was made later; then what else the
headers say of it counts. So it does where they say that the scan began after the series time, which on some scanners is
when the series was set up.
"""

import datetime
import math
from collections.abc import Sequence
from contextlib import suppress

from pydicom import Dataset

from guided_diffusion.pet.formats import dicom_tags as tags
from guided_diffusion.pet.suv.overrides import SUVError, SUVOverrides
from guided_diffusion.pet.suv.slice_times import LONGEST_SCAN, SOME_DAY, Moment, acquisitions, time_of_day
from guided_diffusion.pet.suv.start_evidence import ROUNDING, start_besides
from guided_diffusion.pet.text import printable

# Two starts are one where the activity at both differs by less: clocks, and decay factors in headers, are rounded.
SAME_ACTIVITY = 0.005
# Beds follow each other at once: a first slice so late is one of a long scan, or of a series that was set up early.
LONG_WAIT_S = 1800.0
# Long scans are begun with the injection.
WITH_INJECTION_S = 600.0
SERIES_TIME = "series time"
OTHER_DATES = f"{SERIES_TIME}; its date is not of the acquisition's time"
# No series is begun days before its slices are acquired, and none is made again so many years after.
EARLIEST_SERIES, LATEST_SERIES = 2 * tags.DAY, 20 * 365 * tags.DAY


def decay_reference(datasets: Sequence[Dataset], half_life_s: float, overrides: SUVOverrides) -> Moment:
    """The time that a series with DecayCorrection START is corrected to, and how it was found.

    Raises:
        SUVError: the tags are missing or contradict each other.
    """
    if overrides.scan_start is not None:
        return given_start(datasets, overrides.scan_start)
    scanned = acquisitions(datasets)
    earliest = min(scanned, key=lambda moment: moment.at)
    series = _series_time(datasets, earliest)
    found = start_besides(datasets, scanned, half_life_s)
    rewritten = ""
    if series is not None:
        if -ROUNDING <= earliest.at - series.at <= LONGEST_SCAN:
            if found is None or not _is_later(found, series, half_life_s):
                return series
            rewritten = "; the series time lies before it"
        elif series.at < earliest.at:
            rewritten = "; the series time lies too long before it"
        else:
            rewritten = "; the series time is that of a later step"
    if found is None:
        found = Moment(earliest.at, earliest.dated, "earliest acquisition time")
    return Moment(found.at, found.dated, found.how + rewritten)


def doubts_of_start(datasets: Sequence[Dataset], start: Moment, delay_s: float, half_life_s: float) -> tuple[str, ...]:
    """A notice where nothing but the series time says that the scan began long before its first slice.

    delay_s: seconds from the injection to the start.
    """
    if start.how == OTHER_DATES:
        names = " and ".join(tags.name_tag(keyword) for keyword in ("SeriesDate", "AcquisitionDate"))
        return (f"{names} are years or days apart, as after de-identification: only the series' time of day counts",)
    if not start.how.startswith(SERIES_TIME) or abs(delay_s) <= WITH_INJECTION_S:
        return ()
    scanned = acquisitions(datasets)
    wait_s = (min(moment.at for moment in scanned) - start.at).total_seconds()
    if wait_s <= LONG_WAIT_S or start_besides(datasets, scanned, half_life_s) is not None:
        return ()
    return (
        f"{tags.state(datasets[0], 'SeriesTime')}, {wait_s / 60:.0f} min before the first slice, and nothing else tells"
        f" when the scan began; if that was with the slice, SUV is {2 ** (wait_s / half_life_s):.2f} times too low:"
        " give --scan_start",
    )


def _is_later(one: Moment, other: Moment, half_life_s: float) -> bool:
    seconds = (one.at - other.at).total_seconds()
    return seconds > max(2 * ROUNDING.total_seconds(), half_life_s * math.log2(1 + SAME_ACTIVITY))


def _series_time(datasets: Sequence[Dataset], earliest: Moment) -> Moment | None:
    """The series time, on the acquisition's day where it has no date or one that cannot be true; None if it is missing.

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
    how = SERIES_TIME if earliest.dated else f"{SERIES_TIME}; the dates were removed"
    if day is not None and earliest.dated:
        if -LATEST_SERIES < earliest.at - (day + time) < EARLIEST_SERIES:
            return Moment(day + time, True, SERIES_TIME)
        how = OTHER_DATES
    return Moment(_nearest(earliest, time), earliest.dated, how)


def _nearest(moment: Moment, time: datetime.timedelta) -> datetime.datetime:
    """A time of day on the day that brings it nearest to a moment."""
    at = moment.at - time_of_day(moment.at) + time
    return at + tags.DAY * round((moment.at - at) / tags.DAY)


def given_start(datasets: Sequence[Dataset], text: str) -> Moment:
    """The moment that --scan_start gives; a time without date is on the day nearest to the first slice's acquisition.

    Where that is not known, it is on whatever day the headers have.

    Raises:
        SUVError: the text is no time.
    """
    how = "scan start given by the user"
    at = tags.parse_date_time(text, tags.text(datasets[0], "TimezoneOffsetFromUTC"))
    if at is not None:
        return Moment(at, True, how)
    time = tags.parse_time(text)
    if time is None:
        raise SUVError(f"--scan_start {printable(text)} is no time; give HHMMSS, or YYYYMMDDHHMMSS with the date")
    with suppress(SUVError):
        (acquired,) = acquisitions(datasets[:1])
        return Moment(_nearest(acquired, time), acquired.dated, how)
    for keyword in ("AcquisitionDate", "SeriesDate", "StudyDate"):
        day = tags.parse_date(tags.text(datasets[0], keyword))
        if day is not None:
            return Moment(day + time, True, how)
    return Moment(SOME_DAY + time, False, how)
