"""Time from the injection to the image, and whether it can be true."""

import datetime
from collections.abc import Sequence

from pydicom import Dataset

from guided_diffusion.pet.formats import dicom_tags as tags
from guided_diffusion.pet.suv.overrides import SUVError, SUVOverrides, refusal, refuse_override
from guided_diffusion.pet.suv.slice_times import Moment, acquisitions, time_of_day
from guided_diffusion.pet.text import printable

F18_HALF_LIFE_S = 6586.2
# 12 h for F-18: after that, less than 1.1 % of the activity is left, too little for a scan. Other nuclides likewise.
MAX_DELAY_HALF_LIVES = 12 * 3600 / F18_HALF_LIFE_S
# Nuclides with longer half-lives (Cu-64, I-124, Zr-89) are scanned days after the injection too: a time needs its date.
DATED_HALF_LIFE_S = 12 * 3600.0
# Dynamic protocols start the scanner before the injection, by seconds, and seldom by minutes.
LONGEST_LEAD_S = 600.0
# Late images are taken after three half-lives at the most: of F-18 after 5 h, of Ga-68 after 3, of Zr-89 after 9 days.
LONG_DELAY_HALF_LIVES = 3.0
# An image that begins so soon after the injection is rare.
EARLY_IMAGE_S = 60.0
# A date-time and a time that were entered one after the other.
SAME_TIME_S = 60.0
# Dates of injection and scan that differ by more were not changed together by de-identification.
OTHER_DATE_S = 48 * 3600.0


def growth(delay_s: float, half_life_s: float) -> float:
    """By how much more activity there was `delay_s` earlier."""
    return 2.0 ** (delay_s / half_life_s)


def delay_s(
    datasets: Sequence[Dataset], drug: Dataset, reference: Moment, half_life_s: float, overrides: SUVOverrides
) -> float:
    """Seconds from the injection to `reference`; a little below zero where the scanner was started first.

    A header's midnight sharp counts as missing: taken literally, it would multiply a morning scan's SUV by tens. Of a
    date-time that is days from the scan, the time alone counts: see `date_doubts`.

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
        delay = _within_a_day(time_of_day(reference.at) - time)
    elif reference.dated and not _is_of_another_date(injection, reference, half_life_s, overrides):
        delay = (reference.at - injection).total_seconds()
    elif half_life_s > DATED_HALF_LIFE_S:
        reason = f"with a half-life of {half_life_s / 3600:.1f} h the scan's day is needed; give --scan_start with it"
        raise refusal(datasets[0], "AcquisitionDate", reason)
    else:
        delay = _within_a_day(time_of_day(reference.at) - time_of_day(injection))
    if not _is_plausible(delay, datasets, reference, half_life_s, overrides):
        raise _impossible(delay, drug, keyword, overrides)
    return delay


def date_doubts(
    datasets: Sequence[Dataset], drug: Dataset, reference: Moment, half_life_s: float, overrides: SUVOverrides
) -> tuple[str, ...]:
    """A notice where the injection's date is not used, since it is days from the scan's: one of them was changed."""
    offset = tags.text(datasets[0], "TimezoneOffsetFromUTC")
    injection = tags.parse_date_time(tags.time_text(drug, "RadiopharmaceuticalStartDateTime"), offset)
    if injection is None or not _is_of_another_date(injection, reference, half_life_s, overrides):
        return ()
    apart = abs(reference.at - injection) / tags.DAY
    state = tags.state(drug, "RadiopharmaceuticalStartDateTime")
    return (
        f"{state}, {apart:.0f} days from the scan: only the time counts, on the day of the scan; if it is not true,"
        " give --injection_time",
    )


def doubts(
    datasets: Sequence[Dataset],
    drug: Dataset,
    reference: Moment,
    delay: float,
    half_life_s: float,
    overrides: SUVOverrides,
) -> tuple[str, ...]:
    """A notice where the injection was rarely long before, or the image itself begins with it.

    Software fills in the scan's time where it knows none of the injection.
    """
    if overrides.injection_time is not None or overrides.scan_start is not None:
        return ()
    if delay > LONG_DELAY_HALF_LIVES * half_life_s:
        times = f"{growth(delay, half_life_s):.0f} times the SUV of an image right after it"
        return (f"injected {delay / 3600:.1f} h before the scan's start, which is rare and makes {times}",)
    if delay > EARLY_IMAGE_S:
        return ()
    image_delay = (min(moment.at for moment in acquisitions(datasets)) - reference.at).total_seconds() + delay
    if image_delay > EARLY_IMAGE_S:
        return ()
    keyword = "RadiopharmaceuticalStartTime"
    if tags.text(drug, "RadiopharmaceuticalStartDateTime") is not None:
        keyword = "RadiopharmaceuticalStartDateTime"
    return (f"{tags.state(drug, keyword)}, when the image begins; if that is not true, give --injection_time",)


def contradictions(dataset: Dataset, drug: Dataset, overrides: SUVOverrides) -> tuple[str, ...]:
    """A notice where the injection's date-time, which counts, and its time differ, or its zone is not the scan's."""
    if overrides.injection_time is not None:
        return ()
    offset = tags.text(dataset, "TimezoneOffsetFromUTC")
    date_time = tags.time_text(drug, "RadiopharmaceuticalStartDateTime")
    counting = tags.parse_date_time(date_time, offset)
    time = tags.parse_time(tags.time_text(drug, "RadiopharmaceuticalStartTime"))
    if counting is None:
        return ()
    if time is None:
        if not tags.is_of_unknown_zone(date_time, offset):
            return ()
        stated = tags.state(drug, "RadiopharmaceuticalStartDateTime")
        zone = tags.state(dataset, "TimezoneOffsetFromUTC")
        return (f"{stated}, but {zone}; it is taken as local time; if it is not, give --injection_time",)
    apart = abs((time_of_day(counting) - time).total_seconds())
    if min(apart, 86400 - apart) <= SAME_TIME_S:
        return ()
    stated = [tags.state(drug, f"RadiopharmaceuticalStart{kind}") for kind in ("DateTime", "Time")]
    return (f"{stated[0]}, which counts, but {stated[1]}; if the latter is true, give --injection_time",)


def _is_of_another_date(
    injection: datetime.datetime, reference: Moment, half_life_s: float, overrides: SUVOverrides
) -> bool:
    """Whether a header's date of the injection cannot be true of a nuclide that is scanned within a day."""
    if overrides.injection_time is not None or half_life_s > DATED_HALF_LIFE_S or not reference.dated:
        return False
    return abs((reference.at - injection).total_seconds()) > OTHER_DATE_S


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
