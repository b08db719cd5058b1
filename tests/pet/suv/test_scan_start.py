"""What decay correction refers to: removed dates, rewritten series times, missing beds, injections after the start."""

import datetime
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guided_diffusion.pet.suv import SUVError, SUVOverrides, suv_conversion, suvbw_factors
from tests.dicom_series import HALF_LIFE_S, pet_header

pytestmark = pytest.mark.filterwarnings("ignore:Invalid value for VR")
AT_INJECTION = 70 * 1000 / 350e6
ONE_HALF_LIFE = 2 * AT_INJECTION
NO_DATES = {"AcquisitionDate": None, "SeriesDate": None}


def after(seconds, half_life_s=HALF_LIFE_S):
    """SUVbw per Bq/mL for an image that is corrected to so many seconds after the injection."""
    return AT_INJECTION * 2 ** (seconds / half_life_s)


@pytest.mark.parametrize(
    ("changes", "how"),
    [
        ({"AcquisitionTime": None, "AcquisitionDate": None, "AcquisitionDateTime": "20240110120000"}, "series time"),
        ({"AcquisitionTime": None, "AcquisitionDateTime": "20240110120000.50"}, "series time"),
        ({"AcquisitionTime": "000000", "AcquisitionDateTime": "20240110120000"}, "series time"),  # blanked
        ({"AcquisitionDate": None}, "series time"),
        ({"SeriesDate": None}, "series time"),
        ({"AcquisitionDate": None, "SeriesDate": None, "StudyDate": "20240110"}, "series time"),
        (NO_DATES, "the dates were removed"),
        # blanked with zeros, as de-identification does
        ({"AcquisitionDate": "00000000", "SeriesDate": "00000000"}, "the dates were removed"),
        ({"AcquisitionDate": "0000-00-00"}, "series time"),
        (NO_DATES | {"SeriesTime": None}, "earliest acquisition time"),
        (NO_DATES | {"SeriesTime": "160000"}, "the series time is that of a later step"),
        # the injection keeps a date that the scan has lost
        (NO_DATES | {"RadiopharmaceuticalStartDateTime": "19000101101013.8"}, "the dates were removed"),
        # a date-time in the hospital's own time zone, from another one
        (
            {
                "AcquisitionTime": None,
                "SeriesTime": None,
                "AcquisitionDateTime": "20240110110000+0000",
                "TimezoneOffsetFromUTC": "+0100",
            },
            "earliest acquisition time",
        ),
        # a series time of the day before is no scan's start
        ({"SeriesTime": "030000"}, "the series time lies too long before it"),
        # one made again, at whatever time of a later day, is none
        ({"SeriesDate": "20240113", "SeriesTime": "110000"}, "the series time is that of a later step"),
        # de-identification changed one date, or the other
        ({"SeriesDate": "20231107"}, "its date is not of the acquisition's time"),
        ({"AcquisitionDate": "19000101"}, "its date is not of the acquisition's time"),
        # not initialised
        ({"FrameReferenceTime": "1.797693e+308"}, "series time"),
        ({"AcquisitionDateTime": "99991231235959-1200", "TimezoneOffsetFromUTC": "+1200"}, "series time"),
    ],
)
def test_the_scans_start_is_found_and_how_is_said(changes, how):
    conversion = suv_conversion([pet_header(**changes)] * 2)
    assert conversion.factors == pytest.approx([ONE_HALF_LIFE] * 2, rel=1e-9)
    assert how in conversion.method


@pytest.mark.parametrize("dates", [{}, NO_DATES, {"AcquisitionDate": None}, {"SeriesDate": None}])
def test_beds_on_both_sides_of_midnight(dates):
    """The series began at 23:50 and its last bed was scanned after midnight."""
    common = {"SeriesTime": "235000", "RadiopharmaceuticalStartTime": "220013.8"}
    beds = [
        pet_header(**common | {"AcquisitionTime": "235000"} | dates),
        pet_header(**common | {"AcquisitionTime": "001000", "AcquisitionDate": "20240111"} | dates),
    ]
    assert suvbw_factors(beds) == pytest.approx([after(6586.2)] * 2, rel=1e-9)


@pytest.mark.parametrize("dates", [{}, NO_DATES])
def test_the_series_was_made_after_midnight(dates):
    beds = [pet_header(**{"SeriesTime": "003000", "SeriesDate": "20240111", "AcquisitionTime": t} | dates)
            for t in ("233000", "231500")]  # fmt: skip
    injected = SUVOverrides(injection_time="2124")
    assert suvbw_factors(beds, injected) == pytest.approx([after(111 * 60)] * 2, rel=1e-9)


def frames(first, last, *, half_life_s=HALF_LIFE_S, duration_s=120.0, step_s=125.0, **changes):
    """Beds first..last of a scan that began at 12:00:00, whose series time was rewritten to the evening."""
    x = math.log(2) / half_life_s * duration_s
    mean_rate = math.log(x / -math.expm1(-x)) / (math.log(2) / half_life_s)
    beds = []
    for number in range(first, last + 1):
        start = datetime.datetime(2024, 1, 10, 12) + datetime.timedelta(seconds=number * step_s)
        beds.append(
            pet_header(
                SeriesTime="193000",
                AcquisitionTime=start.strftime("%H%M%S.%f"),
                FrameReferenceTime=f"{(number * step_s + mean_rate) * 1000:.6f}",
                ActualFrameDuration=f"{duration_s * 1000:.0f}",
                RadionuclideHalfLife=f"{half_life_s:.10g}",
                **changes,
            )
        )
    return beds


@given(
    first=st.integers(0, 12),
    count=st.integers(1, 4),
    half_life_s=st.sampled_from([1221.7, 4062.6, HALF_LIFE_S]),
    duration_s=st.integers(20, 600),
)
def test_missing_beds_do_not_change_the_scans_start(first, count, half_life_s, duration_s):
    """QIBA: acquisition - (frame reference time - time of the mean count rate), whichever beds are at hand."""
    injected = {"RadiopharmaceuticalStartTime": "115000"}
    beds = frames(
        first,
        first + count - 1,
        half_life_s=half_life_s,
        duration_s=float(duration_s),
        step_s=duration_s + 5,
        **injected,
    )
    conversion = suv_conversion(beds)
    assert conversion.factors == pytest.approx([after(600, half_life_s)] * count, rel=1e-5)
    assert "scan start by FrameReferenceTime (0054,1300); the series time is that of a later step" in conversion.method


def test_reference_times_that_say_nothing_or_disagree_are_not_used():
    beds = frames(5, 6)
    late = (datetime.timedelta(seconds=5 * 125) + datetime.timedelta(seconds=6586.2)).total_seconds()
    for value in ("0", None, "90000000"):
        for bed in beds:
            bed.FrameReferenceTime = value
        conversion = suv_conversion(beds)
        assert conversion.factors == pytest.approx([after(late)] * 2, rel=1e-9)
        assert "by earliest acquisition time" in conversion.method
    beds = frames(5, 6)
    beds[1].FrameReferenceTime = "0.5"  # of another clock
    assert "by earliest acquisition time" in suv_conversion(beds).method


@pytest.mark.parametrize("named", [{}, {"RadiopharmaceuticalStartDateTime": "20240110120005"}])
@pytest.mark.parametrize("dates", [{}, NO_DATES])
def test_an_injection_some_seconds_after_the_scanner_started(named, dates):
    """A dynamic protocol; the image is one of its late frames."""
    late = pet_header(**{"AcquisitionTime": "125000", "RadiopharmaceuticalStartTime": "120005"} | named | dates)
    conversion = suv_conversion([late])
    assert conversion.factors == pytest.approx([after(-5)], rel=1e-9)
    assert conversion.method.startswith("5 s before the injection")


def test_an_image_from_before_the_injection_needs_the_users_word():
    early = pet_header(RadiopharmaceuticalStartTime="120005")
    with pytest.raises(
        SUVError, match=r"StartTime \(0018,1072\) is '120005'; .* after the scan's start.*--injection_time"
    ):
        suvbw_factors([early])
    for said in (SUVOverrides(injection_time="120005"), SUVOverrides(scan_start="120000")):
        assert suvbw_factors([early], said) == pytest.approx([after(-5)], rel=1e-9)
    late = pet_header(AcquisitionTime="125000", RadiopharmaceuticalStartDateTime="20240110121500")
    with pytest.raises(SUVError, match=r"StartDateTime .* 0.25 h after the scan's start"):
        suvbw_factors([late])


def test_an_image_that_begins_with_the_injection_is_told_of():
    """Software that knows no injection fills in the scan's time; an image of the first minutes is as rare."""
    conversion = suv_conversion([pet_header(RadiopharmaceuticalStartTime="12")])
    assert conversion.factors == pytest.approx([AT_INJECTION], rel=1e-9)
    (notice,) = conversion.notices
    assert "StartTime (0018,1072) is '12', when the image begins; if that is not true, give --injection_time" in notice
    for quiet in (
        suv_conversion([pet_header(AcquisitionTime="125000", RadiopharmaceuticalStartTime="120000")]),
        suv_conversion([pet_header()]),
        suv_conversion([pet_header(RadiopharmaceuticalStartTime="110000")], SUVOverrides(injection_time="120000")),
    ):
        assert quiet.notices == ()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"AcquisitionTime": None}, "120000"),
        ({"AcquisitionTime": None, "SeriesTime": None}, "12:00:00"),
        (NO_DATES, "120000"),
        (NO_DATES, "20240110120000"),
        ({"SeriesTime": "113000"}, "2024-01-10T12:00:00"),
        ({"RadionuclideHalfLife": None}, "120000"),
        ({"DecayCorrection": None}, "120000"),
    ],
)
def test_what_the_user_says_of_the_scans_start_counts(changes, said):
    overrides = SUVOverrides(scan_start=said, half_life_s=HALF_LIFE_S)
    conversion = suv_conversion([pet_header(**changes)], overrides)
    assert conversion.factors == pytest.approx([ONE_HALF_LIFE], rel=1e-9)
    assert "scan start given by the user; given by the user: half_life_s, scan_start" in conversion.method
    with pytest.raises(SUVError, match="--scan_start noon is no time; give HHMMSS"):
        suvbw_factors([pet_header()], SUVOverrides(scan_start="noon"))


def test_a_start_before_midnight_of_slices_after_it_is_on_the_day_before():
    times = {"AcquisitionDate": "20240111", "AcquisitionTime": "000200", "SeriesDate": "20240111"}
    header = pet_header(**times, RadiopharmaceuticalStartDateTime="20240110220913.8")
    factors = suvbw_factors([header], SUVOverrides(scan_start="2359"))
    assert factors == pytest.approx([ONE_HALF_LIFE], rel=1e-9)


def test_a_scan_without_dates_and_a_long_lived_nuclide():
    """Zr-89, three days after the injection: the day of the scan is needed as well as that of the injection."""
    dated = "20240107120000"
    scan = pet_header(**NO_DATES, RadionuclideHalfLife="282240", RadiopharmaceuticalStartDateTime=dated)
    with pytest.raises(SUVError, match=r"AcquisitionDate \(0008,0022\) is missing; .*78.4 h.*--scan_start"):
        suvbw_factors([scan])
    known = suvbw_factors([scan], SUVOverrides(scan_start="20240110120000"))
    assert known == pytest.approx([after(72 * 3600, 282240)], rel=1e-9)


def test_times_that_differ_between_the_slices_are_refused():
    two_starts = [pet_header(SeriesTime=t, AcquisitionTime="123000") for t in ("120000", "121500")]
    with pytest.raises(SUVError, match=r"SeriesTime \(0008,0031\) differs between the slices.*--scan_start"):
        suvbw_factors(two_starts)
    assert suvbw_factors(two_starts, SUVOverrides(scan_start="120000")) == pytest.approx([ONE_HALF_LIFE] * 2)
    two_days = [pet_header(AcquisitionDate=d) for d in ("20240110", "20240111")]
    with pytest.raises(SUVError, match=r"AcquisitionTime \(0008,0032\) differs by 24.0 h between the slices"):
        suvbw_factors(two_days)
    rounded = [pet_header(SeriesTime=t) for t in ("120000", "120000.4")]
    assert suvbw_factors(rounded) == pytest.approx([ONE_HALF_LIFE] * 2, rel=1e-9)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"AcquisitionTime": "125000"}, "50 min before the first slice, and nothing else .* SUV is 1.37 times too low"),
        ({"AcquisitionTime": "122500"}, None),
        ({"AcquisitionTime": "125000", "RadiopharmaceuticalStartTime": "115800"}, None),
        ({"AcquisitionTime": "125000", "DecayFactor": "1.37", "ActualFrameDuration": "1000"}, None),
        ({"AcquisitionTime": "125000", "FrameReferenceTime": "3000500", "ActualFrameDuration": "1000"}, None),
    ],
)
def test_a_first_slice_long_after_the_series_time_is_told_of(changes, said):
    """A series that was set up early and a late frame of a long scan look alike where nothing else tells the start."""
    notices = suv_conversion([pet_header(**changes)]).notices
    assert len(notices) == (said is not None)
    assert all(re.search(rf"SeriesTime .* is '120000', {said}: give --scan_start", notice) for notice in notices)
    assert suv_conversion([pet_header(**changes)], SUVOverrides(scan_start="120000")).notices == ()


def test_dates_that_de_identification_moved_apart_are_told_of():
    """A late frame, whose own time is not that of the scan's start."""
    header = pet_header(SeriesDate="20231107", SeriesTime="120000", AcquisitionTime="125000")
    conversion = suv_conversion([header] * 2)
    assert conversion.factors == pytest.approx([ONE_HALF_LIFE] * 2, rel=1e-9)
    (notice,) = conversion.notices
    assert notice.startswith("SeriesDate (0008,0021) and AcquisitionDate (0008,0022) are years or days apart")
