"""What a header says that is only doubtful leads to SUV with a notice."""

import pytest

from guided_diffusion.pet.suv import SUVOverrides, suv_conversion
from tests.dicom_series import pet_header

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
