"""When a series was scanned, what its decay correction refers to, and how long after the injection that is.

After QIBA's pseudo-code: the series time is the scan's start, unless the series was made later; then GE's private scan
time, or the frame reference time less the time of the mean count rate within the frame, gives it.
"""

import datetime
import math
from collections.abc import Sequence
from dataclasses import dataclass

from pydicom import Dataset

from guided_diffusion.pet.formats import dicom_tags as tags
from guided_diffusion.pet.suv.overrides import SUVError, SUVOverrides, refusal, refuse_override
from guided_diffusion.pet.text import printable

GE_CREATOR = (0x0009, 0x0010)
GE_SCAN_DATE_TIME = (0x0009, 0x100D)
F18_HALF_LIFE_S = 6586.2
# 12 h for F-18: after that, less than 1.1 % of the activity is left and nobody scans. Other nuclides likewise.
MAX_DELAY_HALF_LIVES = 12 * 3600 / F18_HALF_LIFE_S
# Nuclides that live longer (Cu-64, I-124, Zr-89) are scanned days after the injection too: a time needs its date.
DATED_HALF_LIFE_S = 12 * 3600.0
# Dynamic protocols start the scanner before the injection, by seconds, and seldom by minutes.
LONGEST_LEAD_S = 600.0
# No acquisition takes longer from its first bed or frame to its last.
LONGEST_SCAN = datetime.timedelta(hours=6)
# Clocks in headers are rounded to seconds, and so are bed times.
ROUNDING = datetime.timedelta(seconds=1)
AGREEING_STARTS_S = 60.0
HALF_A_DAY = datetime.timedelta(hours=12)
# Stands for the day of a scan whose dates were removed.
SOME_DAY = datetime.datetime(2000, 1, 2)


@dataclass(frozen=True)
class Moment:
    """A time of a scan. dated: whether its day is known. how: how it was found, for the record."""

    at: datetime.datetime
    dated: bool
    how: str = ""


def growth(delay_s: float, half_life_s: float) -> float:
    """By how much more activity there was `delay_s` earlier."""
    return 2.0 ** (delay_s / half_life_s)


def mean_rate_s(duration_s: float, half_life_s: float) -> float:
    """When in a frame the activity equals its mean: t = ln(x / (1 - exp(-x))) / lambda, x = lambda T."""
    decay = math.log(2) / half_life_s
    x = decay * duration_s
    return math.log(x / -math.expm1(-x)) / decay


def mean_rate_moments(datasets: Sequence[Dataset], half_life_s: float) -> list[Moment]:
    """When each slice's activity equals its mean over the frame, for images that are not decay-corrected.

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
    """When each slice was acquired, all on the same calendar.

    A date that was removed is taken from AcquisitionDateTime, the series or the study. Without any date the slices are
    put on one day, and those after midnight on the next.

    Raises:
        SUVError: a slice without a time, or slices that cannot come from one scan.
    """
    found = [_acquisition(dataset) for dataset in datasets]
    if len({moment.dated for moment in found}) > 1:
        found = [Moment(SOME_DAY + _time_of_day(moment.at), False) for moment in found]
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


def delay_s(
    datasets: Sequence[Dataset], drug: Dataset, reference: Moment, half_life_s: float, overrides: SUVOverrides
) -> float:
    """Seconds from the injection to `reference`; a little below zero where the scanner was started first.

    A header's midnight sharp counts as missing: taken at its word, it would multiply a morning scan's SUV by tens.

    Raises:
        SUVError: the injection's time is missing or cannot be true.
    """
    keyword = "RadiopharmaceuticalStartDateTime"
    offset = tags.text(datasets[0], "TimezoneOffsetFromUTC")
    injection = tags.parse_date_time(overrides.injection_time or tags.time_text(drug, keyword), offset)
    if injection is None:
        keyword = "RadiopharmaceuticalStartTime"
        time = tags.parse_time(overrides.injection_time or tags.time_text(drug, keyword))
        if time is None:
            refuse_override("--injection_time", overrides.injection_time)
            raise refusal(drug, keyword, "give --injection_time")
        if half_life_s > DATED_HALF_LIFE_S:
            raise _undated(drug, keyword, half_life_s, overrides)
        delay = _within_a_day(_time_of_day(reference.at) - time)
    elif reference.dated:
        delay = (reference.at - injection).total_seconds()
    elif half_life_s > DATED_HALF_LIFE_S:
        reason = f"with a half-life of {half_life_s / 3600:.1f} h the scan's day is needed; give --scan_start with it"
        raise refusal(datasets[0], "AcquisitionDate", reason)
    else:
        delay = _within_a_day(_time_of_day(reference.at) - _time_of_day(injection))
    if not _is_plausible(delay, datasets, reference, half_life_s, overrides):
        raise _impossible(delay, drug, keyword, overrides)
    return delay


def doubts(
    datasets: Sequence[Dataset], drug: Dataset, reference: Moment, delay: float, overrides: SUVOverrides
) -> tuple[str, ...]:
    """A notice where the image itself begins with the injection, as where software filled in the scan's time for it."""
    if overrides.injection_time is not None or overrides.scan_start is not None or delay > AGREEING_STARTS_S:
        return ()
    image_delay = (min(moment.at for moment in acquisitions(datasets)) - reference.at).total_seconds() + delay
    if image_delay > AGREEING_STARTS_S:
        return ()
    keyword = "RadiopharmaceuticalStartTime"
    if tags.text(drug, "RadiopharmaceuticalStartDateTime") is not None:
        keyword = "RadiopharmaceuticalStartDateTime"
    return (f"{tags.state(drug, keyword)}, when the image begins; if that is not true, give --injection_time",)


def _is_plausible(
    delay: float, datasets: Sequence[Dataset], reference: Moment, half_life_s: float, overrides: SUVOverrides
) -> bool:
    """Not too late for the nuclide, and before the reference only where the image itself was acquired afterwards."""
    if delay >= 0:
        return delay <= MAX_DELAY_HALF_LIVES * half_life_s
    if delay < -LONGEST_LEAD_S:
        return False
    if overrides.injection_time is not None or overrides.scan_start is not None:
        return True
    image_delay = min(moment.at for moment in acquisitions(datasets)) - reference.at
    return image_delay.total_seconds() + delay >= 0


def _impossible(delay: float, drug: Dataset, keyword: str, overrides: SUVOverrides) -> SUVError:
    when = f"{delay / 3600:.1f} h before" if delay >= 0 else f"{-delay / 3600:.2g} h after"
    reason = f"that is {when} the scan's start, which cannot be true; give --injection_time or --scan_start"
    if overrides.injection_time is not None:
        return SUVError(f"--injection_time {printable(overrides.injection_time)}: {reason}")
    return refusal(drug, keyword, reason)


def _undated(drug: Dataset, keyword: str, half_life_s: float, overrides: SUVOverrides) -> SUVError:
    reason = (
        f"with a half-life of {half_life_s / 3600:.1f} h the day of the injection cannot be told from a time;"
        " give --injection_time with the date (YYYYMMDDHHMMSS)"
    )
    if overrides.injection_time is not None:
        return SUVError(f"--injection_time {printable(overrides.injection_time)}: {reason}")
    return refusal(drug, keyword, reason)


def _within_a_day(difference: datetime.timedelta) -> float:
    """Seconds between two times of day, the earlier one perhaps before midnight; from -LONGEST_LEAD_S upwards."""
    seconds = difference.total_seconds() % 86400
    return seconds - 86400 if seconds > 86400 - LONGEST_LEAD_S else seconds


def _time_of_day(moment: datetime.datetime) -> datetime.timedelta:
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
    if tags.text(dataset, "AcquisitionDate") is not None:
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
    at = earliest.at - _time_of_day(earliest.at) + time
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
        at = SOME_DAY + _time_of_day(at)
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
    """What --scan_start says; a time without date is taken on the acquisition's day, where that is known."""
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
