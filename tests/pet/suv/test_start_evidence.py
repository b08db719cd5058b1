"""The scan's start by what other tags than the series time say of it."""

import math

import pytest

from guided_diffusion.pet.suv import SUVError, suv_conversion, suvbw_factors
from tests.dicom_series import HALF_LIFE_S, pet_header
from tests.pet.suv.test_factors import ONE_HALF_LIFE, ge, philips

DECAY = math.log(2) / HALF_LIFE_S
MEAN_OVER_START = -math.expm1(-180 * DECAY) / (180 * DECAY)  # activity over a frame of 180 s
MEAN_RATE_S = -math.log(MEAN_OVER_START) / DECAY
FACTOR, REFERENCE = "DecayFactor", "FrameReferenceTime"


def beds(*numbers, said=(FACTOR, REFERENCE), reference_s=MEAN_RATE_S, **changes):
    """Beds of 180 s, 190 s apart, of a scan that began at 12:00:00, one half-life after the injection."""
    headers = []
    for number in numbers:
        offset = 190.0 * number
        values = {
            FACTOR: f"{math.exp(DECAY * offset) / MEAN_OVER_START:.6g}",
            REFERENCE: f"{1000 * (offset + reference_s):.3f}",
        }
        tags = {"AcquisitionTime": f"12{int(offset) // 60:02d}{offset % 60:04.1f}", "ActualFrameDuration": "180000"}
        headers.append(pet_header(**tags | {tag: values[tag] for tag in said} | changes))
    return headers


def siemens(headers, moment, block=0x10):
    for header in headers:
        header.add_new((0x0071, block), "LO", "SIEMENS MED PT")
        header.add_new((0x0071, block * 0x100 + 0x22), "DT", moment)
    return headers


GE_BEDS = {"reference_s": 0.0, "Manufacturer": "GE MEDICAL SYSTEMS"}


@pytest.mark.parametrize("series_time", ["113000", "193000", None])
@pytest.mark.parametrize("said", [(FACTOR,), (REFERENCE,), (FACTOR, REFERENCE)])
@pytest.mark.parametrize("vendor", [{}, GE_BEDS])
@pytest.mark.parametrize("numbers", [(1,), (2, 3)])
def test_a_series_that_was_set_up_before_the_scan_or_processed_later(series_time, said, vendor, numbers):
    """GE's reference times are those at which frames begin, others' those of the mean count rate."""
    conversion = suv_conversion(beds(*numbers, said=said, SeriesTime=series_time, **vendor))
    assert conversion.factors == pytest.approx([ONE_HALF_LIFE] * len(numbers), rel=2e-5)
    assert f"scan start by {said[0]}" in conversion.method


def test_the_first_bed_of_ge_has_the_reference_time_0():
    assert suvbw_factors(beds(0, 1, said=(REFERENCE,), SeriesTime="115000", **GE_BEDS)) == pytest.approx(
        [ONE_HALF_LIFE] * 2, rel=1e-9
    )


@pytest.mark.parametrize("series_time", ["114000", "193000"])
@pytest.mark.parametrize("block", [0x10, 0x11])
def test_vendors_own_records_of_the_start(series_time, block):
    late = beds(5, 6, said=(), SeriesTime=series_time)
    for headers, name in (
        (siemens(late, "20240110120000.000000", block), f"Siemens private tag (0071,{block:X}22)"),
        ([ge(header, "20240110120000.00") for header in beds(5, 6, said=(), SeriesTime=series_time)], "GE private"),
    ):
        conversion = suv_conversion(headers)
        assert conversion.factors == pytest.approx([ONE_HALF_LIFE] * 2, rel=1e-9)
        assert name in conversion.method


@pytest.mark.parametrize(
    "headers",
    [
        beds(1, 2),  # all agree
        beds(0, 1, said=()),
        siemens(beds(1, said=()), "20240109120000"),  # its date was not shifted with the others
        siemens(beds(1, said=()), "20240110000000"),  # blanked
        beds(1, DecayFactor="1"),  # stands for nothing
        beds(1, DecayFactor="0"),
        beds(5, DecayFactor=f"{math.exp(DECAY * 2000):.6g}"),  # before the series
        beds(0, 1, 2, 3, AcquisitionTime="120000"),  # not the beds' own times
    ],
)
def test_a_series_time_that_nothing_contradicts_counts(headers):
    conversion = suv_conversion(headers)
    assert conversion.factors == pytest.approx([ONE_HALF_LIFE] * len(headers), rel=1e-9)
    assert "by series time" in conversion.method


def test_philips_factors_are_found_by_their_creator():
    """Another program may have taken the first block of the group, and mean something else by the same element."""
    header = pet_header(Units="CNTS")
    header.private_block(0x7053, "SOMEBODY ELSE", create=True).add_new(0x00, "DS", "55")
    with pytest.raises(SUVError, match=r"Units \(0054,1001\) is 'CNTS'"):
        suvbw_factors([header])
    conversion = suv_conversion([philips(header, suv="0.0007")])
    assert conversion.factors == (0.0007,)
    assert "(7053,1100)" in conversion.method
    nameless = pet_header(Units="CNTS")
    nameless.add_new((0x7053, 0x1000), "DS", "0.0007")
    assert suvbw_factors([nameless]) == [0.0007]
