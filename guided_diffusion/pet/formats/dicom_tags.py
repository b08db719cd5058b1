"""Reading single DICOM values that others wrote: numbers, texts, times, and how to quote them in a message."""

import datetime
import math
import re

from pydicom import Dataset
from pydicom.datadict import dictionary_has_tag, dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag, Tag

from guided_diffusion.pet.text import printable

DAY = datetime.timedelta(days=1)
# Characters that values of a kind may have (PS3.5, table 6.2-1). Any other value may be a name in the wrong place: it
# is not shown. Numbers may have a comma here, since that is the mistake to be shown.
_NUMBERS, _MOMENTS = re.compile(r"[0-9+\-.,eE \\]*"), re.compile(r"[0-9+\-.:T ]*")
_SHOWN = {
    "DS": _NUMBERS,
    "IS": _NUMBERS,
    "FL": _NUMBERS,
    "FD": _NUMBERS,
    "US": _NUMBERS,
    "SS": _NUMBERS,
    "DA": _MOMENTS,
    "TM": _MOMENTS,
    "DT": _MOMENTS,
    "UI": re.compile(r"[0-9.]*"),
    "CS": re.compile(r"[A-Z0-9_ \\]*"),
    "SH": re.compile(r"[+-][0-9]{2}:?[0-9]{2}"),  # TimezoneOffsetFromUTC; any other short text may be a name
}
_TIME = re.compile(r"(\d\d):?(\d\d)?:?(\d\d)?(?:\.(\d{1,6})\d*)?")
_DATE_TIME = re.compile(r"(\d{4})-?(\d\d)-?(\d\d)[T ]?(\S*?)(Z|[+-]\d\d:?\d\d)?")


def name_tag(keyword_or_tag: str | tuple[int, int]) -> str:
    """'Units (0054,1001)': how a message names a tag."""
    tag = Tag(tag_for_keyword(keyword_or_tag) if isinstance(keyword_or_tag, str) else keyword_or_tag)
    name = keyword_for_tag(tag) if dictionary_has_tag(tag) else "private tag"
    return f"{name} ({tag.group:04X},{tag.element:04X})"


def state(dataset: Dataset, keyword_or_tag: str | tuple[int, int]) -> str:
    """'Units (0054,1001) is missing' or "... is 'CPS'": how a message says what stands in a tag."""
    name, value = name_tag(keyword_or_tag), shown(dataset, keyword_or_tag)
    return f"{name} is {value}" if value == "missing" or value.startswith("no value") else f"{name} is '{value}'"


def shown(dataset: Dataset, keyword_or_tag: str | tuple[int, int]) -> str:
    """A tag's value for a message. One that its kind of tag cannot hold is not shown: it may be a name."""
    value = "\\".join(texts(dataset, keyword_or_tag))
    if not value:
        return "missing"
    tag = Tag(tag_for_keyword(keyword_or_tag) if isinstance(keyword_or_tag, str) else keyword_or_tag)
    kind = dictionary_VR(tag) if dictionary_has_tag(tag) else "DS"
    if kind not in _SHOWN or not _SHOWN[kind].fullmatch(value):
        return f"no value of its kind ({len(value)} characters)"
    return printable(value)


def text(dataset: Dataset, keyword_or_tag: str | tuple[int, int]) -> str | None:
    """The value as stripped text; None where the tag is missing or empty. Private tags may come as bytes."""
    value = dataset.get(keyword_or_tag)
    if value is not None and not isinstance(keyword_or_tag, str):
        value = value.value
    if value is None:
        return None
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace")
    return str(value).strip(" \0") or None


def code(dataset: Dataset, keyword: str) -> str | None:
    """The text of a code, in the capitals that the standard asks for; None where it is missing or empty."""
    value = text(dataset, keyword)
    return None if value is None else value.upper()


def codes(dataset: Dataset, keyword: str) -> list[str]:
    """The texts of a code with several values, in capitals; empty where it is missing."""
    return [value.upper() for value in texts(dataset, keyword)]


def time_text(dataset: Dataset, keyword_or_tag: str | tuple[int, int]) -> str | None:
    """The text of a time or date-time; None where it is missing, or blanked out as midnight sharp."""
    value = text(dataset, keyword_or_tag)
    return None if is_blanked(value) else value


def is_blanked(value: str | None) -> bool:
    """Whether a DICOM TM or DT says midnight sharp: what de-identification puts in place of a time."""
    match = _DATE_TIME.fullmatch((value or "").strip())
    return parse_time(match.group(4) if match else value) == datetime.timedelta(0)


def number(dataset: Dataset, keyword_or_tag: str | tuple[int, int]) -> float | None:
    """The value as a finite float; None where it is missing, empty or no number."""
    try:
        value = float(text(dataset, keyword_or_tag) or "nan")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def same_element(one: Dataset, other: Dataset, tag: BaseTag) -> bool:
    """Whether two data sets have the same under a tag, as text: numbers that are none (NaN) equal themselves."""
    return tag in one and tag in other and str(one[tag].value) == str(other[tag].value)


def texts(dataset: Dataset, keyword_or_tag: str | tuple[int, int]) -> list[str]:
    """A multi-valued tag as a list of texts, empty where it is missing."""
    value = dataset.get(keyword_or_tag)
    if value is not None and not isinstance(keyword_or_tag, str):
        value = value.value
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace")
    if value is None or value == "":
        return []
    return [str(v).strip(" \0") for v in (value if isinstance(value, MultiValue | list) else [value])]


def items(dataset: Dataset, keyword: str) -> list[Dataset]:
    """The items of a sequence; none where it is missing, or was overwritten with text."""
    value = dataset.get(keyword)
    return list(value) if isinstance(value, Sequence) else []


def date_text(dataset: Dataset, keyword: str) -> str | None:
    """The text of a date; None where it is missing, or blanked out with zeros."""
    value = text(dataset, keyword)
    return None if value is None or not value.strip("0.-") else value


def parse_time(value: str | None) -> datetime.timedelta | None:
    """DICOM TM (HHMMSS.FFFFFF, or the old HH:MM:SS) -> time since midnight; None where it is none."""
    match = _TIME.fullmatch((value or "").strip())
    if not match:
        return None
    hours, minutes, seconds = (int(part or 0) for part in match.groups()[:3])
    if hours > 23 or minutes > 59 or seconds > 60:
        return None
    return datetime.timedelta(
        hours=hours, minutes=minutes, seconds=seconds, microseconds=int((match.group(4) or "0").ljust(6, "0"))
    )


def parse_date_time(value: str | None, utc_offset: str | None = None) -> datetime.datetime | None:
    """DICOM DT (YYYYMMDDHHMMSS.FFFFFF&ZZXX), or ISO 8601 as others write it -> local date and time; None if neither.

    A value with an offset from UTC is brought to `utc_offset` (+HHMM, the data set's own) where that is known.
    """
    match = _DATE_TIME.fullmatch((value or "").strip())
    if not match:
        return None
    time = parse_time(match.group(4))
    if time is None:
        return None
    try:
        moment = datetime.datetime(*(int(part) for part in match.groups()[:3])) + time
        if match.group(5) and _is_offset(utc_offset):
            moment += _offset(utc_offset) - _offset(match.group(5))
    except (ValueError, OverflowError):  # no day of the calendar, or none between the years 1 and 9999
        return None
    return moment


def is_of_unknown_zone(value: str | None, utc_offset: str | None) -> bool:
    """Whether a DICOM DT has an offset from UTC where that of the data set is not known."""
    match = _DATE_TIME.fullmatch((value or "").strip())
    return bool(match and match.group(5)) and not _is_offset(utc_offset)


def parse_date(value: str | None) -> datetime.datetime | None:
    """DICOM DA (YYYYMMDD, or the old YYYY.MM.DD) -> that day's midnight; None where it is none."""
    return None if value is None else parse_date_time(f"{value.replace('.', '')}00")


def date_time(dataset: Dataset, stem: str) -> datetime.datetime | None:
    """<stem>Date and <stem>Time as one moment, e.g. stem 'Acquisition'; None where either is missing or blanked."""
    midnight, time = parse_date(text(dataset, f"{stem}Date")), parse_time(time_text(dataset, f"{stem}Time"))
    return None if midnight is None or time is None else midnight + time


def _is_offset(text_: str | None) -> bool:
    """Whether a text is an offset from UTC as DICOM writes it, or with the colon of ISO 8601."""
    return bool(re.fullmatch(r"[+-]\d\d:?\d\d", text_ or ""))


def _offset(text_: str) -> datetime.timedelta:
    if text_ == "Z":
        return datetime.timedelta(0)
    sign = -1 if text_[0] == "-" else 1
    return sign * datetime.timedelta(hours=int(text_[1:3]), minutes=int(text_[-2:]))
