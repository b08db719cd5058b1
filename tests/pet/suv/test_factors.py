"""SUV factors: four real headers, and a table of what scanners write and what goes wrong."""

import json
import math
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from guided_diffusion.pet.suv import SUVError, SUVOverrides, private_tags, suv_conversion, suvbw_factors
from guided_diffusion.pet.suv_bases import body_surface_m2, lean_body_mass_kg, ratios_to_suvbw
from tests.dicom_series import HALF_LIFE_S, ISOTOPE_TAGS, pet_header

pytestmark = pytest.mark.filterwarnings(
    "ignore:Invalid value for VR"
)  # pydicom, on the values that are wrong on purpose
HEADERS = Path(__file__).parents[2] / "suv_headers"
EXPECTED = json.loads((HEADERS / "expected_suvbw_factor.json").read_text())
AT_INJECTION = 70 * 1000 / 350e6
ONE_HALF_LIFE = 2 * AT_INJECTION


def _real(name):
    datasets = []
    for values in json.loads((HEADERS / name).read_text()):
        dataset, isotope = Dataset(), Dataset()
        private = values.pop("PhilipsPETPrivateGroup")
        for keyword, value in values.items():
            setattr(isotope if keyword in ISOTOPE_TAGS else dataset, keyword, value)
        dataset.RadiopharmaceuticalInformationSequence = Sequence([isotope])
        if private:
            philips(dataset, suv=private.get("SUVScaleFactor"), bqml=private.get("ActivityConcentrationScaleFactor"))
        datasets.append(dataset)
    return datasets


def philips(dataset, suv=None, bqml=None):
    block = dataset.private_block(0x7053, "Philips PET Private Group", create=True)
    if suv is not None:
        block.add_new(0x00, "DS", suv)
    if bqml is not None:
        block.add_new(0x09, "DS", bqml)
    return dataset


def ge(dataset, moment):
    dataset.private_block(0x0009, "GEMS_PETD_01", create=True).add_new(0x0D, "DT", moment)
    return dataset


def test_the_block_of_a_vendors_other_elements_is_not_that_of_pet():
    dataset = Dataset()
    dataset.private_block(0x0009, "GEMS_IDEN_01", create=True).add_new(0x01, "LO", "GE_PT")
    assert private_tags.text(ge(dataset, "20240110120000"), private_tags.GE_SCAN_DATE_TIME) == "20240110120000"
    assert private_tags.tag_of(dataset, private_tags.GE_SCAN_DATE_TIME) == (0x0009, 0x110D)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_real_headers_give_the_published_factors(name):
    datasets = _real(name)
    assert suvbw_factors(datasets) == pytest.approx([EXPECTED[name]] * len(datasets), rel=1e-6)


# What scanners write -> the factor in units of (one half-life after the injection).
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ONE_HALF_LIFE),
        ({"DecayCorrection": "ADMIN"}, AT_INJECTION),
        (
            {"DecayCorrection": "ADMIN", "RadiopharmaceuticalStartTime": None, "RadionuclideHalfLife": None},
            AT_INJECTION,
        ),
        ({"Units": "GML", "PatientWeight": None, "RadionuclideTotalDose": None}, 1.0),
        ({"Units": "GML", "SUVType": "BW"}, 1.0),
        ({"Units": "gml", "SUVType": "bw"}, 1.0),
        ({"Units": "bqml", "DecayCorrection": "start", "CorrectedImage": ["decy", "attn"]}, ONE_HALF_LIFE),
        ({"Units": "Bqml", "DecayCorrection": "Admin"}, AT_INJECTION),
        # the scan began at the series time even if this bed position came later
        ({"AcquisitionTime": "121500"}, ONE_HALF_LIFE),
        # reprocessed later: the series time is that of the reprocessing
        ({"SeriesTime": "160000"}, ONE_HALF_LIFE),
        ({"SeriesDate": "20240112"}, ONE_HALF_LIFE),
        ({"SeriesDate": None, "SeriesTime": None}, ONE_HALF_LIFE),
        # date-time wins over time
        (
            {"RadiopharmaceuticalStartDateTime": "20240110101013.8", "RadiopharmaceuticalStartTime": "0900"},
            ONE_HALF_LIFE,
        ),
        ({"RadiopharmaceuticalStartTime": "10:10:13.8"}, ONE_HALF_LIFE),
        # over midnight, by time alone and by date-time
        (
            {
                "SeriesTime": "003000",
                "AcquisitionTime": "003000",
                "RadiopharmaceuticalStartTime": "224013.8",
            },
            ONE_HALF_LIFE,
        ),
        (
            {
                "SeriesTime": "003000",
                "AcquisitionTime": "003000",
                "RadiopharmaceuticalStartDateTime": "20240109224013.8",
            },
            ONE_HALF_LIFE,
        ),
        # a date-time with its own offset from UTC
        (
            {"TimezoneOffsetFromUTC": "+0100", "RadiopharmaceuticalStartDateTime": "20240110091013.8+0000"},
            ONE_HALF_LIFE,
        ),
        (
            {"TimezoneOffsetFromUTC": "+01:00", "RadiopharmaceuticalStartDateTime": "20240110091013.8+0000"},
            ONE_HALF_LIFE,
        ),
        ({"RadiopharmaceuticalStartDateTime": "20240110101013.8+0900"}, ONE_HALF_LIFE),
    ],
)
def test_what_scanners_write(changes, expected):
    assert suvbw_factors([pet_header(**changes)] * 2) == pytest.approx([expected] * 2, rel=1e-9)


def test_the_earliest_acquisition_of_the_series_counts():
    beds = [pet_header(SeriesTime="180000", AcquisitionTime=t) for t in ("121500", "120000", "123000")]
    assert suvbw_factors(beds) == pytest.approx([ONE_HALF_LIFE] * 3, rel=1e-9)


def test_ge_keeps_the_scan_start_when_the_series_is_altered():
    later = {"SeriesTime": "180000", "AcquisitionTime": "121500"}
    assert suvbw_factors([ge(pet_header(**later), "20240110120000.00")]) == pytest.approx([ONE_HALF_LIFE], rel=1e-9)
    # an unaltered series does not need it
    assert suvbw_factors([ge(pet_header(), "20240110113000.00")]) == pytest.approx([ONE_HALF_LIFE], rel=1e-9)


def test_ge_private_tag_may_come_as_bytes():
    dataset = pet_header(SeriesTime="180000", AcquisitionTime="121500")
    dataset.private_block(0x0009, "GEMS_PETD_01", create=True).add_new(0x0D, "UN", b"20240110120000.00 ")
    assert suvbw_factors([dataset]) == pytest.approx([ONE_HALF_LIFE], rel=1e-9)


def test_philips_counts():
    assert suvbw_factors([philips(pet_header(Units="CNTS"), suv="0.0007")]) == [0.0007]
    for suv in (None, "0"):
        factors = suvbw_factors([philips(pet_header(Units="CNTS"), suv=suv, bqml="1.5")])
        assert factors == pytest.approx([1.5 * ONE_HALF_LIFE], rel=1e-9)
    # each slice has its own
    slices = [philips(pet_header(Units="CNTS"), bqml=b) for b in ("1.5", "2")]
    assert suvbw_factors(slices) == pytest.approx([1.5 * ONE_HALF_LIFE, 2 * ONE_HALF_LIFE], rel=1e-9)


def test_without_decay_correction_each_slice_is_corrected_to_its_own_time():
    changes = {"DecayCorrection": "NONE", "CorrectedImage": ["ATTN"], "ActualFrameDuration": "120000"}
    beds = [pet_header(AcquisitionTime=t, **changes) for t in ("120000", "135946.2")]
    x = math.log(2) * 120 / HALF_LIFE_S
    mean_over_start = (1 - math.exp(-x)) / x  # mean activity over the frame, relative to its start
    # the injected activity has halved once, then (6586.2 s + 600 s) later again
    second = 2 ** (1 + (119 * 60 + 46.2) / HALF_LIFE_S)
    expected = [2 * AT_INJECTION / mean_over_start, second * AT_INJECTION / mean_over_start]
    assert suvbw_factors(beds) == pytest.approx(expected, rel=1e-8)
    with pytest.raises(SUVError, match=r"ActualFrameDuration \(0018,1242\) is missing"):
        suvbw_factors([pet_header(**changes | {"ActualFrameDuration": None})])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"PatientWeight": None}, r"PatientWeight \(0010,1030\) is missing.*--weight_kg"),
        ({"PatientWeight": "0"}, r"PatientWeight \(0010,1030\) is '0'"),
        ({"PatientWeight": "70000"}, r"PatientWeight \(0010,1030\) is '70000'"),
        ({"RadionuclideTotalDose": None}, r"RadionuclideTotalDose \(0018,1074\) is missing.*--dose_bq"),
        ({"RadionuclideTotalDose": "350"}, r"RadionuclideTotalDose \(0018,1074\) is '350.*Bq"),
        ({"RadionuclideTotalDose": "350000"}, r"'350000"),
        ({"RadionuclideHalfLife": None}, r"RadionuclideHalfLife \(0018,1075\) is missing.*--half_life_s"),
        ({"RadionuclideHalfLife": "0"}, r"RadionuclideHalfLife .* is '0'"),
        ({"RadiopharmaceuticalStartTime": None}, r"RadiopharmaceuticalStartTime \(0018,1072\) is missing"),
        ({"RadiopharmaceuticalStartTime": "130000"}, r"StartTime \(0018,1072\) is '130000'; that is 23.0 h before"),
        (
            {"RadiopharmaceuticalStartDateTime": "20240110130000"},
            r"StartDateTime \(0018,1078\).*1 h after the scan's",
        ),
        ({"RadiopharmaceuticalStartDateTime": "20240109235900"}, r"StartDateTime .* 12.0 h"),
        ({"AcquisitionTime": None}, r"AcquisitionTime \(0008,0032\) is missing"),
        ({"AcquisitionDate": "10.1.2024"}, r"AcquisitionDate \(0008,0022\) is '10\.1\.2024'"),
        ({"AcquisitionTime": "noon"}, r"AcquisitionTime \(0008,0032\) is no value of its kind \(4 characters\)"),
        ({"Units": "GML", "CorrectedImage": ["ATTN"]}, r"CorrectedImage \(0028,0051\) is .*DECY"),
        ({"DecayCorrection": None}, r"DecayCorrection \(0054,1102\) is missing; .*--scan_start"),
        ({"DecayCorrection": "LATER"}, r"DecayCorrection \(0054,1102\) is 'LATER'"),
        ({"CorrectedImage": ["DECY"]}, r"CorrectedImage \(0028,0051\) is .*ATTN\) has no SUV; give the corrected"),
        ({"CorrectedImage": ["ATTN"]}, r"CorrectedImage \(0028,0051\) is .*DECY"),
        ({"CorrectedImage": None}, r"CorrectedImage \(0028,0051\) is missing; it must say .*ATTN.* NIfTI in SUV"),
        ({"Units": "PROPCNTS"}, r"Units \(0054,1001\) is 'PROPCNTS'; .* export it in one of them, or give .* NIfTI"),
        ({"Units": "CNTS"}, r"Units \(0054,1001\) is 'CNTS'.*7053,1000"),
        ({"Units": "CPS"}, r"Units \(0054,1001\) is 'CPS'"),
        ({"Units": None}, r"Units \(0054,1001\) is missing"),
        ({"DecayCorrection": "NONE", "ActualFrameDuration": "60000"}, r"\(0028,0051\) .*DECY.*\(0054,1102\) is 'NONE'"),
        ({"RadionuclideHalfLife": "282240"}, r"StartTime \(0018,1072\) is '101013.8'.*78.4 h.*with the date"),  # Zr-89
        ({"Units": "GML", "SUVType": "LBM"}, r"SUVType \(0054,1006\) is 'LBM'"),
    ],
)
def test_what_leads_to_no_suv_is_refused_with_tag_and_value(changes, message):
    with pytest.raises(SUVError, match=message) as caught:
        suvbw_factors([pet_header(**changes)])
    assert "Sentinel" not in str(caught.value)
    assert "1948" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        # 12 h before the scan, if it were true: 94 times the activity
        ({"RadiopharmaceuticalStartTime": "000000.00"}, r"StartTime \(0018,1072\) is '000000\.00', as de-ident"),
        ({"RadiopharmaceuticalStartTime": None, "RadiopharmaceuticalStartDateTime": "20240110000000.0"}, "is missing"),
        # no delay at all, if it were true
        (
            {"SeriesTime": "000000", "AcquisitionTime": "000000", "RadiopharmaceuticalStartTime": "000000"},
            r"AcquisitionTime \(0008,0032\) is '000000', as de-identification leaves it; needed",
        ),
    ],
)
def test_times_that_were_blanked_out_are_no_times(changes, message):
    with pytest.raises(SUVError, match=message):
        suvbw_factors([pet_header(**changes)])


def test_what_else_the_header_says_stands_in_for_a_blanked_time():
    for changes in (
        {"SeriesTime": "000000"},
        {"RadiopharmaceuticalStartDateTime": "20240110000000"},
    ):
        assert suvbw_factors([pet_header(**changes)]) == pytest.approx([ONE_HALF_LIFE], rel=1e-9)
    at_midnight = pet_header(SeriesTime="014946.2", AcquisitionTime="014946.2", RadiopharmaceuticalStartTime="000000")
    said = SUVOverrides(injection_time="000000")
    assert suvbw_factors([at_midnight], said) == pytest.approx([ONE_HALF_LIFE], rel=1e-9)


def test_no_radiopharmaceutical_sequence_and_no_slices():
    dataset = pet_header()
    del dataset.RadiopharmaceuticalInformationSequence
    with pytest.raises(SUVError, match="RadionuclideTotalDose"):
        suvbw_factors([dataset])
    with pytest.raises(SUVError, match="no slices"):
        suvbw_factors([])


def test_slices_that_disagree_are_refused():
    with pytest.raises(SUVError, match=r"Units \(0054,1001\) differs .* BQML and CNTS"):
        suvbw_factors([pet_header(), pet_header(Units="CNTS")])


@pytest.mark.parametrize(
    ("broken", "overrides"),
    [
        ({"PatientWeight": "0"}, {"weight_kg": 70.0}),
        ({"RadionuclideTotalDose": "350"}, {"dose_bq": 350e6}),
        ({"RadionuclideHalfLife": None}, {"half_life_s": HALF_LIFE_S}),
        ({"RadiopharmaceuticalStartTime": None}, {"injection_time": "101013.8"}),
        ({"RadiopharmaceuticalStartTime": "130000"}, {"injection_time": "10:10:13.8"}),
        ({"RadiopharmaceuticalStartDateTime": "20200101000000"}, {"injection_time": "2024-01-10T10:10:13.8"}),
    ],
)
def test_what_the_user_says_replaces_a_tag_and_is_recorded(broken, overrides):
    conversion = suv_conversion([pet_header(**broken)], SUVOverrides(**overrides))
    assert conversion.factors == pytest.approx([ONE_HALF_LIFE], rel=1e-9)
    assert f"given by the user: {next(iter(overrides))}" in conversion.method


@pytest.mark.parametrize(
    "overrides", [{"weight_kg": 0.0}, {"dose_bq": 350.0}, {"half_life_s": -1.0}, {"injection_time": "noon"}]
)
def test_implausible_overrides_are_refused_too(overrides):
    flag = next(iter(overrides))
    with pytest.raises(SUVError, match=f"--{flag}"):
        suvbw_factors([pet_header()], SUVOverrides(**overrides))


@pytest.mark.parametrize("said", [{"weight_kg": 80.0}, {"dose_bq": 3e8}, {"injection_time": "1000"}])
def test_what_cannot_change_the_suv_is_refused(said):
    """The record, and the header of a derived series, would say that it did."""
    flag = f"--{next(iter(said))} cannot change"
    philips_suv = philips(pet_header(Units="CNTS"), suv="0.0007")
    for dataset, why in ((pet_header(Units="GML"), "'GML', SUV already"), (philips_suv, r"\(7053,1000\)")):
        with pytest.raises(SUVError, match=f"{flag}.*{why}"):
            suvbw_factors([dataset], SUVOverrides(**said))
    for unused in ({"injection_time": "1000"}, {"half_life_s": 6586.2}):
        with pytest.raises(SUVError, match=f"--{next(iter(unused))} cannot .* corrected to the injection already"):
            suvbw_factors([pet_header(DecayCorrection="ADMIN")], SUVOverrides(**unused))


def test_a_missing_weight_may_be_given_to_a_series_in_suv():
    """SUV by lean body mass needs it."""
    series = pet_header(Units="GML", PatientWeight=None)
    assert suvbw_factors([series], SUVOverrides(weight_kg=80.0)) == [1.0]


def test_long_lived_nuclides_need_the_date_of_the_injection():
    """Zr-89 (78.4 h), scanned three days after the injection: by its time of day alone it would be one day at most."""
    zr89 = pet_header(RadionuclideHalfLife="282240")
    dated = SUVOverrides(injection_time="20240107120000")
    assert suvbw_factors([zr89], dated) == pytest.approx([AT_INJECTION * 2 ** (72 / 78.4)], rel=1e-9)
    with pytest.raises(SUVError, match=r"--injection_time 120000: .*with the date"):
        suvbw_factors([zr89], SUVOverrides(injection_time="120000"))
    in_header = pet_header(RadionuclideHalfLife="282240", RadiopharmaceuticalStartDateTime="20240107120000")
    assert suvbw_factors([in_header]) == pytest.approx([AT_INJECTION * 2 ** (72 / 78.4)], rel=1e-9)


@pytest.mark.parametrize("weight_kg", [-70.0, 0.0, None])
def test_without_a_true_weight_there_are_no_other_bases(weight_kg):
    assert ratios_to_suvbw(weight_kg, 1.70, "F") == {"bw": 1.0}


def test_lean_body_mass_and_body_surface():
    # Du Bois & Du Bois: 70 kg, 1.70 m -> 1.810 m2; Janmahasatian: 9270 x 70 / (6680 + 216 BMI), BMI 24.221
    assert body_surface_m2(70, 1.70) == pytest.approx(1.810, abs=1e-3)
    assert lean_body_mass_kg(70, 1.70, "M") == pytest.approx(9270 * 70 / (6680 + 216 * 24.2214), rel=1e-5)
    assert lean_body_mass_kg(70, 1.70, "F") == pytest.approx(9270 * 70 / (8780 + 244 * 24.2214), rel=1e-5)
    ratios = ratios_to_suvbw(70, 1.70, "F")
    assert ratios["lbm"] == pytest.approx(44.17 / 70, rel=1e-3)
    assert ratios["bsa"] == pytest.approx(18100 / 70000, rel=1e-3)
    assert ratios_to_suvbw(70, 1.70, None).keys() == {"bw", "bsa"}
    assert ratios_to_suvbw(70, None, "M") == {"bw": 1.0}
    assert ratios_to_suvbw(70, 170, "F") == ratios  # in cm, as some write it
    assert ratios_to_suvbw(70, 17, "F") == ratios_to_suvbw(70, 300, "F") == {"bw": 1.0}


def test_an_hour_of_one_digit_gets_its_zero():
    given = SUVOverrides(injection_time="9:30", scan_start="9:30:05.5")
    assert (given.injection_time, given.scan_start) == ("09:30", "09:30:05.5")
    assert SUVOverrides(injection_time="101013", scan_start="10:10").given() == {
        "injection_time": "101013",
        "scan_start": "10:10",
    }
