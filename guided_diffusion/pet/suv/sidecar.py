"""SUV of a volume in Bq/mL whose BIDS sidecar describes the injection."""

import datetime
import math
import re
from collections.abc import Mapping
from contextlib import suppress

from pydicom import Dataset

from guided_diffusion.pet.formats import dicom_tags as tags
from guided_diffusion.pet.formats.stated_units import activity_bq, mass_kg, quoted, stated_under, value_of
from guided_diffusion.pet.suv import injection, nuclides
from guided_diffusion.pet.suv.factors import SUVConversion
from guided_diffusion.pet.suv.overrides import SUVError, SUVOverrides, suvbw_of_bqml
from guided_diffusion.pet.suv.scan_start import decay_reference
from guided_diffusion.pet.suv.slice_times import LONGEST_SCAN, SOME_DAY, Moment

# How sidecars say no: BIDS has a truth value and a free text, some software writes the one as the other, and GE's text
# is "NONE, 0.000000 cm-1,", whose second part is the coefficient.
NO = re.compile(
    r"(false|no|none|nac|uncorrected|0|0\.0)(\s*,.*)?|(no|none|not)\s+(ac|applied|attenuation|correct|done|performed).*",
    re.DOTALL,
)
# Clocks of a series and of its first frame differ by less.
SAME_START_S = 60.0
INJECTION_KEYS = ("InjectedRadioactivity", "InjectionStart", "RadionuclideTotalDose")
NAMES_OF_TRACERS = ("TracerRadionuclide", "TracerName", "Radiopharmaceutical")


def check_attenuation_corrected(content: Mapping[str, object]) -> None:
    """Refuses an image of whose attenuation the sidecar says that it is not corrected.

    Raises:
        SUVError: names the key.
    """
    for key in ("AttenuationCorrection", "AttenuationCorrectionMethod"):
        if _says_no(value_of(content, key)):
            raise SUVError(
                f"no SUV: by the sidecar's {key} the image is not corrected for attenuation; give the corrected image"
            )


def sidecar_conversion(content: Mapping[str, object], overrides: SUVOverrides) -> SUVConversion:
    """One factor, SUVbw per Bq/mL, from a sidecar's keys (BIDS 1.9, positron emission tomography).

    What the user gives goes before the sidecar, which may be empty. Weight and dose both given mean an image that is
    corrected to the injection, unless the sidecar says to what it is corrected, or the times of injection and scan are
    given too. If it is the scan's start, the injection's time may be given: dcm2niix writes 0 in its place, or nothing.

    Raises:
        SUVError: a key is missing or cannot be true; names it and the flag that helps.
    """
    weight = overrides.weight_kg if overrides.weight_kg is not None else _weight_kg(content)
    dose = overrides.dose_bq if overrides.dose_bq is not None else _dose_bq(content)
    at_injection = suvbw_of_bqml(weight, dose)
    delay = _delay_s(content, overrides)
    half_life = _half_life_s(content, overrides) if delay else 1.0
    if delay and not -injection.LONGEST_LEAD_S <= delay <= injection.MAX_DELAY_HALF_LIVES * half_life:
        raise SUVError(f"no SUV: by the sidecar the image is corrected to {delay:g} s after the injection; repair it")
    when = f"corrected to {delay:g} s after the injection" if delay else "corrected to the injection"
    factor = at_injection * injection.growth(delay, half_life)
    doubtful = () if overrides.injection_time is not None else _doubts(content, half_life)
    source = "sidecar: " if content else ""
    return SUVConversion((factor,), f"{source}{when}{overrides.remark}", doubtful)


def is_corrected_to_start(content: Mapping[str, object]) -> bool:
    """Whether a sidecar says that the image is corrected to the scan's start, whose time is needed.

    As DICOM does, or as BIDS does: by two equal times. Where BIDS says when the injection was, no other is needed.
    """
    kind = _decay_correction(content)
    if kind is not None:
        return kind == "START"
    reference = _number(content, "ImageDecayCorrectionTime")
    is_start = reference is not None and reference == _number(content, "ScanStart")
    return is_start and _number(content, "InjectionStart") is None


def takes_times(content: Mapping[str, object]) -> bool:
    """Whether a user may say when injection and scan began: the sidecar does not say otherwise to when it corrects."""
    unsaid = _decay_correction(content) is None and _number(content, "ImageDecayCorrectionTime") is None
    return unsaid or is_corrected_to_start(content)


def describes_injection(content: Mapping[str, object]) -> bool:
    """Whether a sidecar says what was injected, or when, as that of an image in activity per volume must."""
    keys = {key.lower() for key in content}
    return any(key.lower() in keys for key in INJECTION_KEYS)


def _weight_kg(content: Mapping[str, object]) -> float:
    """The body weight, by BIDS in kg; sidecars made by hand or by tables name another unit beside it."""
    keys = ("BodyWeight", "PatientWeight")
    weight = _number(content, *keys)
    if weight is None:
        raise SUVError(f"no SUV: {_lack_of(content, *keys, unit='kg')}; give --weight_kg")
    key, unit = stated_under(content, *(f"{key}{unit}" for key in keys for unit in ("Units", "Unit"))) or ("", "kg")
    factor = mass_kg(str(unit))
    if factor is None:
        raise SUVError(f"no SUV: {key} is {quoted(unit)} in a sidecar, not kg, g or lb; give --weight_kg")
    return weight * factor


def _dose_bq(content: Mapping[str, object]) -> float:
    dose = _number(content, "InjectedRadioactivity")
    if dose is None:
        dose = _number(content, "RadionuclideTotalDose")  # dcm2niix copies it from DICOM, in Bq
        if dose is None:
            lack = _lack_of(content, "InjectedRadioactivity", "RadionuclideTotalDose")
            raise SUVError(f"no SUV: {lack}; give --dose_bq")
        return dose
    _, unit = stated_under(content, "InjectedRadioactivityUnits", "InjectedRadioactivityUnit") or ("", None)
    if unit is None:
        raise SUVError("no SUV: no InjectedRadioactivityUnits in a sidecar; give --dose_bq")
    factor = activity_bq(unit) if isinstance(unit, str) else None
    if factor is None:
        raise SUVError(f"no SUV: InjectedRadioactivityUnits is {quoted(unit)}, no unit of activity; give --dose_bq")
    return dose * factor


def _delay_s(content: Mapping[str, object], overrides: SUVOverrides) -> float:
    """Seconds from the injection to what the image is decay-corrected to."""
    kind = _decay_correction(content)
    if _says_no(value_of(content, "ImageDecayCorrected")) or kind == "NONE":
        raise SUVError("no SUV: by the sidecar the image is not decay-corrected; give the DICOM series")
    if kind == "ADMIN":
        return 0.0
    if overrides.injection_time is not None:
        if overrides.scan_start is None and not is_corrected_to_start(content):
            raise SUVError("--injection_time alone does not say to when the image is corrected; give --scan_start too")
        return _delay_by_clock(content, overrides)
    if overrides.scan_start is not None:
        raise SUVError("--scan_start alone tells no time since the injection; give --injection_time too, or neither")
    reference, injected = _number(content, "ImageDecayCorrectionTime"), _number(content, "InjectionStart")
    if reference is None and is_corrected_to_start(content):
        reference = _number(content, "ScanStart")
    if reference is not None and injected is not None:
        return reference - injected
    if is_corrected_to_start(content):
        start = "" if _clock(content) else " and --scan_start"
        raise SUVError(
            f"no SUV: by the sidecar the image is corrected to the scan's start, but it does not say when the injection"
            f" was; give --injection_time{start}"
        )
    if overrides.weight_kg is not None and overrides.dose_bq is not None:
        return 0.0
    missing = "InjectionStart" if injected is None else "ImageDecayCorrectionTime"
    raise SUVError(
        f"no SUV: {_lack_of(content, missing, unit='s')}; give --weight_kg and --dose_bq if the image is corrected to"
        " the injection"
    )


def _delay_by_clock(content: Mapping[str, object], overrides: SUVOverrides) -> float:
    """Seconds from the injection that the user gave to the scan's start, by the user or as dcm2niix copies it."""
    half_life, nothing = _half_life_s(content, overrides), Dataset()
    if overrides.scan_start is not None:
        start = decay_reference([nothing], half_life, overrides)
    else:
        time = _clock(content)
        if time is None:
            raise SUVError("no SUV: the sidecar has no SeriesTime, when the scan began; give --scan_start")
        start = Moment(SOME_DAY + time, False)
    return injection.delay_s([nothing], nothing, start, half_life, overrides)


def _clock(content: Mapping[str, object]) -> datetime.timedelta | None:
    """Time of day of the scan's start: with DecayCorrection START the series time, else that after TimeZero."""
    series, zero = (tags.parse_time(_text(content, key)) for key in ("SeriesTime", "TimeZero"))
    if _decay_correction(content) == "START" or zero is None:
        return series
    return zero + datetime.timedelta(seconds=(_number(content, "ImageDecayCorrectionTime") or 0.0) % 86400)


def _doubts(content: Mapping[str, object], half_life_s: float) -> tuple[str, ...]:
    """Notices where the times of a sidecar may be a converter's own."""
    return *_doubts_of_beginning(content), *_doubts_of_time_zero(content, half_life_s)


def _doubts_of_time_zero(content: Mapping[str, object], half_life_s: float) -> tuple[str, ...]:
    """A notice where the start that the image is corrected to is not the series' time.

    Converters have taken an acquisition's time for it, which of a late frame is later (dcm2niix's issue 983).
    """
    zero, series = tags.parse_time(_text(content, "TimeZero")), _clock(content)
    if not is_corrected_to_start(content) or zero is None or series is None:
        return ()
    late_s = (zero - series).total_seconds() + (_number(content, "ImageDecayCorrectionTime") or 0.0)
    if not SAME_START_S < late_s < LONGEST_SCAN.total_seconds():
        return ()
    return (
        f"the sidecar takes {late_s:.0f} s after its SeriesTime for the scan's start, to which the image is corrected;"
        f" if that was at SeriesTime, SUV is {injection.growth(late_s, half_life_s):.2f} times too high: give"
        " --injection_time, or the DICOM series",
    )


def _doubts_of_beginning(content: Mapping[str, object]) -> tuple[str, ...]:
    """A notice where the image begins with the injection: converters put 0 for both where they know neither."""
    frames, injected = value_of(content, "FrameTimesStart"), _number(content, "InjectionStart")
    first = next(iter(frames), None) if isinstance(frames, list) else frames
    begins = _number(content if first is None else {"ScanStart": first}, "ScanStart")
    if begins is None or injected is None or begins - injected > injection.EARLY_IMAGE_S:
        return ()
    return (
        f"by the sidecar the image begins {begins - injected:g} s after the injection; if that is not true, correct"
        " InjectionStart or give the DICOM series",
    )


def _half_life_s(content: Mapping[str, object], overrides: SUVOverrides) -> float:
    if overrides.half_life_s is not None:
        return overrides.half_life_s
    named = nuclides.nuclide_in(*(_text(content, key) for key in NAMES_OF_TRACERS))
    stated = _number(content, "RadionuclideHalfLife", "IsotopeHalfLife")
    if stated is not None:
        doubt = nuclides.doubt_half_life(stated, named)
        if doubt is not None or stated <= 0:
            reason = f", {doubt}" if doubt else ""
            raise SUVError(f"no SUV: the sidecar's half-life is {stated:g} s{reason}; give --half_life_s")
        return stated
    if named is None:
        raise SUVError("no SUV: no known TracerRadionuclide in a sidecar; give --half_life_s")
    return nuclides.HALF_LIVES_S[named]


def _number(content: Mapping[str, object], *keys: str) -> float | None:
    """The first of these keys that is a finite number, or a text of one, as tables become in JSON."""
    for key in keys:
        value = value_of(content, key)
        if isinstance(value, int | float | str) and not isinstance(value, bool):
            with suppress(ValueError, OverflowError):
                if math.isfinite(number := float(value)):
                    return number
    return None


def _lack_of(content: Mapping[str, object], *keys: str, unit: str = "") -> str:
    """Says that a sidecar has none of these keys, or what stands in the one that is no number. unit: of the number."""
    found = stated_under(content, *keys)
    if found is None:
        return f"no {keys[0]}{f' ({unit})' if unit else ''} in a sidecar"
    return f"{found[0]} is {quoted(found[1])} in a sidecar, not a number{f' of {unit}' if unit else ''}"


def _decay_correction(content: Mapping[str, object]) -> str | None:
    """The code that dcm2niix copies from DICOM, in the capitals of the standard; None where there is none."""
    value = value_of(content, "DecayCorrection")
    return None if value is None else str(value).strip().upper() or None


def _says_no(value: object) -> bool:
    return value is not None and NO.fullmatch(str(value).strip().lower()) is not None


def _text(content: Mapping[str, object], key: str) -> str | None:
    value = value_of(content, key)
    return value if isinstance(value, str) else None
