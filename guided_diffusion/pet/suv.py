"""Standardised uptake value: the factor that turns what a DICOM slice stores into SUV.

Follows the vendor-neutral pseudo-code of the Quantitative Imaging Biomarkers Alliance (QIBA, "SUV vendor neutral
pseudocode, happy path only" and its robust version; https://qibawiki.rsna.org/index.php/Standardized_Uptake_Value_(SUV)).
Body-weight SUV is concentration [Bq/mL] x weight [g] / activity [Bq] at the time that the image is decay-corrected to.
"""

import datetime
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from pydicom import Dataset

from guided_diffusion.errors import InputError
from guided_diffusion.pet.formats import dicom_tags as tags
from guided_diffusion.pet.text import printable

PHILIPS_SUV_FACTOR = (0x7053, 0x1000)
PHILIPS_BQML_FACTOR = (0x7053, 0x1009)
GE_CREATOR = (0x0009, 0x0010)
GE_SCAN_DATE_TIME = (0x0009, 0x100D)
SUV_TAGS = [
    "SeriesDate",
    "SeriesTime",
    "AcquisitionDate",
    "AcquisitionTime",
    "TimezoneOffsetFromUTC",
    "ActualFrameDuration",
    "PatientWeight",
    "PatientSize",
    "PatientSex",
    "Units",
    "SUVType",
    "DecayCorrection",
    "CorrectedImage",
    "RadiopharmaceuticalInformationSequence",
    GE_CREATOR,
    GE_SCAN_DATE_TIME,
    PHILIPS_SUV_FACTOR,
    PHILIPS_BQML_FACTOR,
]
F18_HALF_LIFE_S = 6586.2
# 12 h for F-18: after that, less than 1.1 % of the activity is left and nobody scans. Other nuclides likewise.
MAX_DELAY_HALF_LIVES = 12 * 3600 / F18_HALF_LIFE_S
# People get between about 1 MBq and a few GBq. Smaller numbers are in kBq or MBq whatever the header says.
MIN_DOSE_BQ, MAX_DOSE_BQ = 1e6, 1e11
MAX_WEIGHT_KG = 500.0
# Rb-82, the shortest-lived in use, has 75 s; I-124, the longest, 4.2 days.
MIN_HALF_LIFE_S, MAX_HALF_LIFE_S = 60.0, 1e6
# Nuclides that live longer (Cu-64, I-124, Zr-89) are scanned days after the injection too: a time needs its date.
DATED_HALF_LIFE_S = 12 * 3600.0


class SUVError(InputError):
    """No trustworthy SUV factor follows from the header; says which tag and value stand in the way."""


@dataclass(frozen=True)
class SUVOverrides:
    """What the user says in place of missing or wrong tags.

    weight_kg: body weight in kg. dose_bq: injected activity in Bq at `injection_time`. injection_time: HHMMSS,
    HH:MM:SS, or with the date before it (YYYYMMDDHHMMSS, YYYY-MM-DDTHH:MM:SS). half_life_s: seconds.
    """

    weight_kg: float | None = None
    dose_bq: float | None = None
    injection_time: str | None = None
    half_life_s: float | None = None

    def given(self) -> dict[str, object]:
        """Those that were given, for the run's record."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @property
    def gives_factor(self) -> bool:
        """Whether weight and dose are given, which is all that a decay-corrected Bq/mL image needs."""
        return self.weight_kg is not None and self.dose_bq is not None


@dataclass(frozen=True)
class SUVConversion:
    """factors: SUVbw per (stored x RescaleSlope + RescaleIntercept), one per slice. method: how they were found."""

    factors: tuple[float, ...]
    method: str


def suvbw_factors(datasets: Sequence[Dataset], overrides: SUVOverrides | None = None) -> list[float]:
    """SUVbw per unit of (stored value x RescaleSlope + RescaleIntercept), one float per data set of one series.

    Raises:
        SUVError: no factor follows; the message names the tag and its value.
    """
    return list(suv_conversion(datasets, overrides).factors)


def suv_conversion(datasets: Sequence[Dataset], overrides: SUVOverrides | None = None) -> SUVConversion:
    """As `suvbw_factors`, with the way in which the factors were found.

    Raises:
        SUVError: no factor follows; the message names the tag and its value.
    """
    if not datasets:
        raise SUVError("no slices to take a SUV factor from")
    overrides = overrides or SUVOverrides()
    first = datasets[0]
    for keyword in ("Units", "DecayCorrection", "CorrectedImage"):
        _require_equal(datasets, keyword)
    units = tags.text(first, "Units")
    _check_attenuation_corrected(first)
    if units == "GML":
        return _from_gml(datasets, overrides)
    if units == "CNTS" and (tags.number(first, PHILIPS_SUV_FACTOR) or 0) > 0:
        _refuse_all_overrides(first, overrides, f"{tags.name_tag(PHILIPS_SUV_FACTOR)} is the scanner's own SUV factor")
        _require_decay_corrected(first)
        factors = tuple(_positive(d, PHILIPS_SUV_FACTOR) for d in datasets)
        return SUVConversion(factors, f"Philips {tags.name_tag(PHILIPS_SUV_FACTOR)}")
    if units == "CNTS" and (tags.number(first, PHILIPS_BQML_FACTOR) or 0) > 0:
        conversion = _from_activity(datasets, overrides)
        factors = tuple(
            f * _positive(d, PHILIPS_BQML_FACTOR) for f, d in zip(conversion.factors, datasets, strict=True)
        )
        return SUVConversion(factors, f"Philips {tags.name_tag(PHILIPS_BQML_FACTOR)}; {conversion.method}")
    if units == "BQML":
        return _from_activity(datasets, overrides)
    if units == "CNTS":
        raise _refusal(first, "Units", f"counts need Philips' {tags.name_tag(PHILIPS_SUV_FACTOR)}")
    raise _refusal(first, "Units", "only BQML, GML, and CNTS of Philips lead to SUV")


def suvbw_of_bqml(weight_kg: float, dose_bq: float) -> float:
    """SUVbw per Bq/mL for an image that is decay-corrected to the injection of `dose_bq`.

    Raises:
        SUVError: weight or dose cannot be true.
    """
    if not 0 < weight_kg <= MAX_WEIGHT_KG:
        raise SUVError(f"a weight of {weight_kg:g} kg cannot be true; give the body weight in kg")
    if not MIN_DOSE_BQ <= dose_bq <= MAX_DOSE_BQ:
        raise SUVError(f"a dose of {dose_bq:g} Bq cannot be true; give the injected activity in Bq, not in kBq or MBq")
    return weight_kg * 1000 / dose_bq


def activity_moment(datasets: Sequence[Dataset]) -> tuple[datetime.datetime, str]:
    """The time that a series with DecayCorrection START is corrected to, and how it was found.

    The series time, unless it lies after the first acquisition (then the series was made later, by reprocessing):
    GE keeps the scan's start in (0009,100D); for the others the earliest acquisition of the series counts.

    Raises:
        SUVError: the tags are missing.
    """
    acquisitions = [tags.date_time(d, "Acquisition") for d in datasets]
    known = [moment for moment in acquisitions if moment is not None]
    if len(known) < len(acquisitions):
        raise _no_acquisition(datasets[acquisitions.index(None)], "needed to correct for decay")
    earliest = min(known)
    series = tags.date_time(datasets[0], "Series")
    if series is not None and series <= earliest:
        return series, "series time"
    creator = tags.text(datasets[0], GE_CREATOR) or "GEMS_PETD_01"
    scan = tags.parse_date_time(tags.time_text(datasets[0], GE_SCAN_DATE_TIME), _utc_offset(datasets[0]))
    if scan is not None and creator.startswith("GEMS"):
        return scan, f"GE {tags.name_tag(GE_SCAN_DATE_TIME)}"
    return earliest, "earliest acquisition time"


def _from_gml(datasets: Sequence[Dataset], overrides: SUVOverrides) -> SUVConversion:
    _refuse_all_overrides(datasets[0], overrides, f"{tags.name_tag('Units')} is 'GML', SUV already")
    _require_decay_corrected(datasets[0])
    suv_type = tags.text(datasets[0], "SUVType")
    if suv_type not in (None, "BW"):
        raise _refusal(datasets[0], "SUVType", "only SUV by body weight (BW) is taken")
    return SUVConversion((1.0,) * len(datasets), f"{tags.name_tag('Units')} says GML: already SUV")


def _from_activity(datasets: Sequence[Dataset], overrides: SUVOverrides) -> SUVConversion:
    """SUVbw per Bq/mL."""
    first = datasets[0]
    isotopes = first.get("RadiopharmaceuticalInformationSequence") or [Dataset()]
    isotope = isotopes[0]
    weight = overrides.weight_kg if overrides.weight_kg is not None else tags.number(first, "PatientWeight")
    if weight is None or not 0 < weight <= MAX_WEIGHT_KG:
        _refuse_override("--weight_kg", overrides.weight_kg)
        raise _refusal(first, "PatientWeight", "give --weight_kg")
    dose = overrides.dose_bq if overrides.dose_bq is not None else tags.number(isotope, "RadionuclideTotalDose")
    if dose is None or not MIN_DOSE_BQ <= dose <= MAX_DOSE_BQ:
        _refuse_override("--dose_bq", overrides.dose_bq)
        raise _refusal(isotope, "RadionuclideTotalDose", "it must be in Bq; give --dose_bq")
    given = f"; given by the user: {', '.join(overrides.given())}" if overrides.given() else ""
    correction = tags.text(first, "DecayCorrection")
    if correction == "ADMIN":
        _require_decay_corrected(first)
        _refuse_unused(overrides, ("injection_time", "half_life_s"), "the image is corrected to the injection already")
        return SUVConversion((suvbw_of_bqml(weight, dose),) * len(datasets), f"corrected to the injection{given}")
    half_life = _half_life(isotope, overrides)
    if correction == "START":
        _require_decay_corrected(first)
        moment, how = activity_moment(datasets)
        delay = _delay(first, isotope, moment, half_life, overrides)
        factor = suvbw_of_bqml(weight, dose) * _growth(delay, half_life)
        return SUVConversion((factor,) * len(datasets), f"{delay:.0f} s after the injection, by {how}{given}")
    if correction == "NONE":
        _require_not_decay_corrected(first)
        factors = tuple(
            suvbw_of_bqml(weight, dose)
            * _growth(_delay(first, isotope, _mean_moment(d, half_life), half_life, overrides), half_life)
            for d in datasets
        )
        return SUVConversion(factors, f"not decay-corrected by the scanner: corrected here per slice{given}")
    raise _refusal(first, "DecayCorrection", "only START, ADMIN and NONE are known")


def _growth(delay_s: float, half_life_s: float) -> float:
    return 2.0 ** (delay_s / half_life_s)


def _mean_moment(dataset: Dataset, half_life: float) -> datetime.datetime:
    """When the activity equals its mean over the slice's frame: t = ln(x / (1 - exp(-x))) / lambda, x = lambda T."""
    start, duration_ms = tags.date_time(dataset, "Acquisition"), tags.number(dataset, "ActualFrameDuration")
    if start is None:
        raise _no_acquisition(dataset, "needed in each slice where DecayCorrection is NONE")
    if duration_ms is None or duration_ms <= 0:
        raise _refusal(dataset, "ActualFrameDuration", "needed in each slice where DecayCorrection is NONE")
    decay = math.log(2) / half_life
    x = decay * duration_ms / 1000
    return start + datetime.timedelta(seconds=math.log(x / -math.expm1(-x)) / decay)


def _half_life(isotope: Dataset, overrides: SUVOverrides) -> float:
    half_life = overrides.half_life_s
    if half_life is None:
        half_life = tags.number(isotope, "RadionuclideHalfLife")
    if half_life is None or not MIN_HALF_LIFE_S <= half_life <= MAX_HALF_LIFE_S:
        _refuse_override("--half_life_s", overrides.half_life_s)
        raise _refusal(isotope, "RadionuclideHalfLife", "it must be in seconds; give --half_life_s")
    return half_life


def _delay(
    dataset: Dataset, isotope: Dataset, moment: datetime.datetime, half_life: float, overrides: SUVOverrides
) -> float:
    """Seconds from the injection to `moment`, never negative and never implausibly long.

    A header's midnight sharp counts as missing: taken at its word, it would multiply a morning scan's SUV by tens.
    """
    midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    date_time = tags.parse_date_time(
        overrides.injection_time or tags.time_text(isotope, "RadiopharmaceuticalStartDateTime"), _utc_offset(dataset)
    )
    keyword = "RadiopharmaceuticalStartDateTime"
    if date_time is None:
        keyword = "RadiopharmaceuticalStartTime"
        time = tags.parse_time(overrides.injection_time or tags.time_text(isotope, keyword))
        if time is None:
            _refuse_override("--injection_time", overrides.injection_time)
            raise _refusal(isotope, keyword, "give --injection_time")
        if half_life > DATED_HALF_LIFE_S:
            raise _undated(isotope, half_life, overrides)
        date_time = midnight + time
        if date_time > moment:  # injected before midnight, scanned after it
            date_time -= tags.DAY
    delay = (moment - date_time).total_seconds()
    if not 0 <= delay <= MAX_DELAY_HALF_LIVES * half_life:
        reason = f"that is {delay / 3600:.1f} h before the scan, which cannot be true; give --injection_time"
        if overrides.injection_time is not None:
            raise SUVError(f"--injection_time {printable(overrides.injection_time)}: {reason}")
        raise _refusal(isotope, keyword, reason)
    return delay


def _undated(isotope: Dataset, half_life: float, overrides: SUVOverrides) -> SUVError:
    reason = (
        f"with a half-life of {half_life / 3600:.1f} h the day of the injection cannot be told from a time;"
        " give --injection_time with the date (YYYYMMDDHHMMSS)"
    )
    if overrides.injection_time is not None:
        return SUVError(f"--injection_time {printable(overrides.injection_time)}: {reason}")
    return _refusal(isotope, "RadiopharmaceuticalStartTime", reason)


def _utc_offset(dataset: Dataset) -> str | None:
    return tags.text(dataset, "TimezoneOffsetFromUTC")


def _check_attenuation_corrected(dataset: Dataset) -> None:
    if "ATTN" not in tags.texts(dataset, "CorrectedImage"):
        raise _refusal(dataset, "CorrectedImage", "an image without attenuation correction (ATTN) has no SUV")


def _require_decay_corrected(dataset: Dataset) -> None:
    if "DECY" not in tags.texts(dataset, "CorrectedImage"):
        raise _refusal(dataset, "CorrectedImage", "no decay correction (DECY), although DecayCorrection claims one")


def _require_not_decay_corrected(dataset: Dataset) -> None:
    if "DECY" in tags.texts(dataset, "CorrectedImage"):
        claim = f"it lists a decay correction (DECY), but {tags.name_tag('DecayCorrection')} is 'NONE'"
        raise _refusal(dataset, "CorrectedImage", f"{claim}; export the series again")


def _require_equal(datasets: Sequence[Dataset], keyword: str) -> None:
    values = {str(d.get(keyword)) for d in datasets}
    if len(values) > 1:
        shown = " and ".join(sorted(printable(v, 40) for v in values)[:2])
        raise SUVError(f"{tags.name_tag(keyword)} differs between the slices: {shown}; export the series again")


def _positive(dataset: Dataset, tag: tuple[int, int]) -> float:
    value = tags.number(dataset, tag)
    if value is None or value <= 0:
        raise _refusal(dataset, tag, "it must be above zero in each slice")
    return value


def _refuse_override(flag: str, value: object) -> None:
    if value is not None:
        raise SUVError(f"{flag} {printable(value)} cannot be true; check its unit")


def _refuse_all_overrides(dataset: Dataset, overrides: SUVOverrides, why: str) -> None:
    """For series that the scanner put into SUV. A missing weight may still be given: other bases of SUV need it."""
    weight_known = tags.number(dataset, "PatientWeight") is not None
    _refuse_unused(overrides, [name for name in overrides.given() if name != "weight_kg" or weight_known], why)


def _refuse_unused(overrides: SUVOverrides, names: Sequence[str], why: str) -> None:
    """What the user says and the factor does not follow: the record and a derived series would claim that it did."""
    unused = " ".join(f"--{name}" for name in overrides.given() if name in names)
    if unused:
        raise SUVError(f"{unused} cannot change this series' SUV, because {why}; leave it out")


def _no_acquisition(dataset: Dataset, reason: str) -> SUVError:
    time_known = tags.parse_time(tags.time_text(dataset, "AcquisitionTime")) is not None
    return _refusal(dataset, "AcquisitionDate" if time_known else "AcquisitionTime", reason)


def _refusal(dataset: Dataset, keyword: str | tuple[int, int], reason: str) -> SUVError:
    value = dataset.get(keyword) if isinstance(keyword, str) else tags.text(dataset, keyword)
    state = "is missing" if value in (None, "") else f"is '{printable(value)}'"
    if isinstance(keyword, str) and keyword.endswith("Time") and tags.is_blanked(str(value)):
        state += ", as de-identification leaves it"
    return SUVError(f"no SUV: {tags.name_tag(keyword)} {state}; {reason}")
