"""What a header says that is only doubtful leads to SUV with a notice."""

import math

import pytest

from guided_diffusion.pet.suv import SUVError, SUVOverrides, suv_conversion
from tests.dicom_series import HALF_LIFE_S, pet_header

AT_NOON, NONE = {}, {"DecayCorrection": "NONE", "CorrectedImage": ["ATTN"], "ActualFrameDuration": "1"}


@pytest.mark.parametrize("correction", [AT_NOON, NONE])
@pytest.mark.parametrize(
    ("date_time", "said"),
    [
        ("20240110091013.8", {}),  # an hour apart: in another zone, or before the clocks changed
        ("20240110091013.8+0000", {}),
        ("20240110101059", {}),  # entered one after the other
        ("20240110091013.8", {"injection_time": "101013.8"}),
        ("20240110000000", {}),  # blanked
    ],
)
def test_an_injection_with_two_times(correction, date_time, said):
    header = pet_header(RadiopharmaceuticalStartDateTime=date_time, **correction)
    notices = suv_conversion([header], SUVOverrides(**said)).notices
    if date_time.startswith("2024011009") and not said:
        (notice,) = notices
        assert f"StartDateTime (0018,1078) is '{date_time}', which counts, but" in notice
        assert "RadiopharmaceuticalStartTime (0018,1072) is '101013.8'; if the latter is true, give --inj" in notice
    else:
        assert notices == ()


def test_a_date_time_of_another_zone_is_brought_to_that_of_the_header_first():
    zones = {"RadiopharmaceuticalStartDateTime": "20240110091013.8+0000", "TimezoneOffsetFromUTC": "+0100"}
    assert suv_conversion([pet_header(**zones)]).notices == ()
    over_midnight = {"RadiopharmaceuticalStartDateTime": "20240109235950", "RadiopharmaceuticalStartTime": "000010"}
    noted = suv_conversion([pet_header(SeriesTime="013000", AcquisitionTime="013000", **over_midnight)]).notices
    assert noted == ()


@pytest.mark.parametrize("correction", [AT_NOON, NONE, {"DecayCorrection": "ADMIN"}])
@pytest.mark.parametrize(
    ("weight", "size", "doubted"),
    [
        ("7", "1.75", True),
        ("0.07", "175", True),
        ("400", "1.70", True),
        ("70", "1.75", False),
        ("70", "175", False),
        ("3.1", "0.5", False),
        ("200", "1.50", False),
        ("7", None, False),
        ("7", "0", False),
        ("7", "17.5", False),  # no height in any unit
    ],
)
def test_a_weight_that_nobody_of_this_height_has(correction, weight, size, doubted):
    notices = suv_conversion([pet_header(PatientWeight=weight, PatientSize=size, **correction)]).notices
    expected = f"a weight of {weight} kg is seldom true where PatientSize (0010,1020) is '{size}'"
    assert [expected in notice and "--weight_kg" in notice for notice in notices] == [True] * doubted


@pytest.mark.parametrize(
    ("correction", "seconds", "said"),
    [
        ("START", 0, None),
        ("ADMIN", HALF_LIFE_S, None),
        (
            "START",
            HALF_LIFE_S,
            "which fits a correction to the injection, but DecayCorrection (0054,1102) is 'START'; SUV may be 2.00"
            " times too high",
        ),
        (
            "ADMIN",
            0,
            "which fits a correction to the scan's start, but DecayCorrection (0054,1102) is 'ADMIN'; SUV may be 2.00"
            " times too low",
        ),
        ("START", HALF_LIFE_S / 2, None),  # neither
        ("ADMIN", None, None),
    ],
)
def test_decay_factors_that_fit_another_correction(correction, seconds, said):
    """seconds: from what the factors refer to, to the start of the frame, one half-life after the injection."""
    x = math.log(2) / HALF_LIFE_S * 180
    factor = None if seconds is None else f"{2 ** (seconds / HALF_LIFE_S) * x / -math.expm1(-x):.6g}"
    header = pet_header(DecayCorrection=correction, DecayFactor=factor, ActualFrameDuration="180000")
    notices = suv_conversion([header]).notices
    assert len(notices) == (said is not None)
    assert all(f"DecayFactor (0054,1321) is '{factor}', {said}" == notice for notice in notices)


@pytest.mark.parametrize(
    ("factors", "minutes", "said"),
    [
        (("1.0095", "1.0095", "1.0095"), 15, "1.21"),  # each to its own start
        (("1", "1", "1"), 15, "1.21"),  # not at all
        (("1.0095", "1.1097", "1.2198"), 15, None),
        (("1", "1", "1"), 0, None),
        (("1", "1", "1"), 0.5, None),
        (("1", "1", "0"), 15, None),  # not initialised
        ((None, None, None), 15, None),
    ],
)
def test_decay_factors_that_are_the_same_in_all_beds(factors, minutes, said):
    times = [f"12{int(k * minutes):02d}{int(k * minutes * 60) % 60:02d}" for k in range(3)]
    headers = [
        pet_header(AcquisitionTime=time, DecayFactor=factor) for time, factor in zip(times, factors, strict=True)
    ]
    notices = suv_conversion(headers).notices
    assert len(notices) == (said is not None)
    assert all("30 min apart too, but DecayCorrection (0054,1102) is 'START'" in notice for notice in notices)
    assert all(notice.endswith(f"SUV of the last is {said} times too low") for notice in notices)
    assert suv_conversion(headers, SUVOverrides(scan_start="120000")).notices == ()


def test_decay_factors_need_nothing_that_the_suv_does_not():
    header = pet_header(DecayCorrection="ADMIN", DecayFactor="1.01", ActualFrameDuration="180000")
    isotope = header.RadiopharmaceuticalInformationSequence[0]
    del isotope.RadiopharmaceuticalStartTime, isotope.RadionuclideHalfLife
    assert suv_conversion([header]).notices == ()


@pytest.mark.parametrize(
    ("half_life", "injected", "said"),
    [
        ("6586.2", "041000", "injected 7.8 h before the scan's start, which is rare and makes 19 times the SUV"),
        ("4062.6", "080000", "injected 4.0 h before"),
        ("6586.2", "070000", None),
        ("4062.6", "090000", None),
    ],
)
def test_an_injection_long_before_the_scan(half_life, injected, said):
    header = pet_header(RadionuclideHalfLife=half_life, RadiopharmaceuticalStartTime=injected)
    notices = suv_conversion([header]).notices
    assert [said is not None and said in notice for notice in notices] == [True] * (said is not None)
    assert suv_conversion([header], SUVOverrides(injection_time=injected)).notices == ()


@pytest.mark.parametrize("correction", [AT_NOON, NONE])
@pytest.mark.parametrize("date_time", ["20000101101013.8", "20300101101013.8", "20240107101013.8"])
def test_a_date_of_the_injection_that_de_identification_changed(correction, date_time):
    """No F-18 is scanned days after the injection: the time of day tells the delay."""
    header = pet_header(RadiopharmaceuticalStartDateTime=date_time, RadiopharmaceuticalStartTime=None, **correction)
    conversion = suv_conversion([header])
    assert conversion.factors[0] == pytest.approx(suv_conversion([pet_header(**correction)]).factors[0])
    (notice,) = conversion.notices
    assert f"StartDateTime (0018,1078) is '{date_time}', " in notice
    assert " days from the scan: only the time counts, on the day of the scan; if it is not true, give --inj" in notice


@pytest.mark.parametrize(
    "changes",
    [
        {"RadiopharmaceuticalStartDateTime": "20240109101013.8"},  # a day too early
        {"RadiopharmaceuticalStartDateTime": "20000101130000"},  # and after the scan by its time
        {"RadiopharmaceuticalStartDateTime": "20000101101013.8", "RadionuclideHalfLife": "282240"},  # Zr-89
    ],
)
def test_a_date_of_the_injection_that_tells_no_delay_is_refused(changes):
    with pytest.raises(SUVError, match=r"StartDateTime .* which cannot be true; give --injection_time"):
        suv_conversion([pet_header(**changes)])


@pytest.mark.parametrize(
    ("zone", "date_time"), [("+0100", "2024-01-10T09:10:13.8Z"), ("-0330", "2024-01-10T14:40:13.8+01:00")]
)
def test_a_date_time_as_iso_8601_has_it(zone, date_time):
    header = pet_header(
        TimezoneOffsetFromUTC=zone, RadiopharmaceuticalStartDateTime=date_time, RadiopharmaceuticalStartTime=None
    )
    assert suv_conversion([header]).factors[0] == pytest.approx(suv_conversion([pet_header()]).factors[0])


def test_an_injection_in_a_zone_that_the_scans_times_do_not_have():
    zoned = {"RadiopharmaceuticalStartDateTime": "20240110101013.8+0100", "RadiopharmaceuticalStartTime": None}
    (notice,) = suv_conversion([pet_header(**zoned)]).notices
    assert "13.8+0100', but TimezoneOffsetFromUTC (0008,0201) is missing; it is taken as local time; if it" in notice
    assert suv_conversion([pet_header(**zoned, TimezoneOffsetFromUTC="+0100")]).notices == ()
    assert suv_conversion([pet_header(**zoned)], SUVOverrides(injection_time="101013.8")).notices == ()
    assert suv_conversion([pet_header(RadiopharmaceuticalStartDateTime="20240110101013.8+0100")]).notices == ()
