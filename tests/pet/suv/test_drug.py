"""What was injected: several items, slices that disagree, half-lives against the nuclide that is named."""

import copy

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from guided_diffusion.pet.suv import SUVError, SUVOverrides, suv_conversion, suvbw_factors
from guided_diffusion.pet.suv.nuclides import HALF_LIVES_S, TOLERANCE, doubt_half_life, nuclide_in
from tests.dicom_series import pet_header

pytestmark = pytest.mark.filterwarnings("ignore:Invalid value for VR")
AT_INJECTION = 70 * 1000 / 350e6
ONE_HALF_LIFE = 2 * AT_INJECTION


def with_items(*changes, header=None):
    """A header whose sequence has an item per dict of changes; None removes a tag."""
    header = header or pet_header()
    items = []
    for change in changes:
        item = copy.deepcopy(header.RadiopharmaceuticalInformationSequence[0])
        for keyword, value in change.items():
            if value is None:
                delattr(item, keyword)
            else:
                setattr(item, keyword, value)
        items.append(item)
    header.RadiopharmaceuticalInformationSequence = Sequence(items)
    return header


def named(header, *, code="C-111A1", meaning="^18^Fluorine", drug=None):
    item = header.RadiopharmaceuticalInformationSequence[0]
    coded = Dataset()
    coded.CodeValue, coded.CodingSchemeDesignator, coded.CodeMeaning = code, "SRT", meaning
    if drug is None:
        item.RadionuclideCodeSequence = Sequence([coded])
    else:
        item.Radiopharmaceutical = drug
    return header


def test_items_that_agree_are_one():
    twice = with_items({}, {"RadionuclideTotalDose": "3.5e8"})
    assert suvbw_factors([twice]) == pytest.approx([ONE_HALF_LIFE], rel=1e-9)


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("other", [{"RadionuclideTotalDose": "0"}, {"RadionuclideTotalDose": None}])
def test_the_only_item_with_an_activity_counts_wherever_it_stands(number, other):
    changes = [other | {"RadiopharmaceuticalStartTime": "090000"}] * 2
    changes[number] = {}
    conversion = suv_conversion([with_items(*changes)])
    assert conversion.factors == pytest.approx([ONE_HALF_LIFE], rel=1e-9)
    assert f"item {number + 1} of 2 drugs, the only one with an activity" in conversion.method


@pytest.mark.parametrize(
    ("other", "flag", "said"),
    [
        ({"RadionuclideTotalDose": "175000000"}, "--dose_bq", {"dose_bq": 350e6}),
        ({"RadiopharmaceuticalStartTime": "110000"}, "--injection_time", {"injection_time": "101013.8"}),
        ({"RadionuclideHalfLife": "4062.6"}, "--half_life_s", {"half_life_s": 6586.2}),
    ],
)
def test_two_drugs_are_refused_until_the_user_says_which(other, flag, said):
    keyword = next(iter(other))
    for changes in (({}, other), (other, {})):
        with pytest.raises(SUVError, match=rf"Sequence \(0054,0016\) has 2 items that differ in {keyword} .*{flag}"):
            suvbw_factors([with_items(*changes)])
        assert suvbw_factors([with_items(*changes)], SUVOverrides(**said)) == pytest.approx([ONE_HALF_LIFE], rel=1e-9)


@pytest.mark.parametrize(
    ("changes", "values", "flag"),
    [
        ({"RadionuclideTotalDose": "175000000"}, "350000000 and 175000000", "--dose_bq"),
        ({"RadiopharmaceuticalStartTime": "110000"}, "101013.8 and 110000", "--injection_time"),
        ({"PatientWeight": "80"}, "70 and 80", "--weight_kg"),
    ],
)
def test_slices_of_two_injections_or_weights_are_refused(changes, values, flag):
    keyword = next(iter(changes))
    slices = [pet_header(), pet_header(), pet_header(**changes)]
    with pytest.raises(SUVError, match=rf"{keyword} .* differs between the slices: {values}.*{flag}"):
        suvbw_factors(slices)


@pytest.mark.parametrize(
    ("changes", "values"),
    [
        ({"Units": "CNTS"}, "BQML and CNTS"),
        ({"DecayCorrection": "ADMIN"}, "START and ADMIN"),
        ({"CorrectedImage": ["ATTN", "DECY"]}, r"DECY.ATTN.SCAT and ATTN.DECY"),
        ({"Units": "GML", "SUVType": "BW"}, "BQML and GML"),
        ({"PatientSex": "F"}, "M and F"),
        ({"TimezoneOffsetFromUTC": "+0100"}, r"missing and \+0100"),
        ({"TimezoneOffsetFromUTC": "Smith"}, r"missing and no value of its kind \(5 characters\)"),
        ({"Units": "Smith^John"}, r"BQML and no value of its kind \(10 characters\)"),
    ],
)
def test_slices_that_differ_in_what_their_values_are_name_both_and_the_file(changes, values):
    names = ["a.dcm", "b.dcm", "c.dcm"]
    slices = [pet_header(), pet_header(), pet_header(**changes)]
    with pytest.raises(SUVError, match=rf"differs between the slices: {values} \(first in c.dcm\)"):
        suv_conversion(slices, names=names)


def test_numbers_written_in_two_ways_are_one():
    slices = [pet_header(), pet_header(PatientWeight="70.0", CorrectedImage=["SCAT", "ATTN", "DECY"])]
    assert suvbw_factors(slices) == pytest.approx([ONE_HALF_LIFE] * 2, rel=1e-9)


@pytest.mark.parametrize("injected", ["115500", "101013.8"])
@pytest.mark.parametrize("how", [{}, {"code": "77004003", "meaning": "F-18"}, {"drug": "FDG"}, {"drug": "[18F]PSMA"}])
def test_a_half_life_in_minutes_is_blamed_for_itself(injected, how):
    header = named(pet_header(RadionuclideHalfLife="109.8", RadiopharmaceuticalStartTime=injected), **how)
    with pytest.raises(
        SUVError, match=r"HalfLife \(0018,1075\) is '109.8'; but F-18.*in minutes.*--half_life_s 6586.2"
    ):
        suvbw_factors([header])


@pytest.mark.parametrize(
    ("half_life", "message"),
    [
        ("109.8", r"is '109.8'; but F-18 has 6586.2 s: it seems to be in minutes"),  # none named, and no nuclide's in s
        ("67.7", r"but Ga-68 has 4062.6 s: it seems to be in minutes"),
        ("78.41", r"but Zr-89 has 282280 s: it seems to be in hours"),
        ("1.83", r"is '1.83'; .*it must be in seconds"),
    ],
)
def test_without_a_name_the_numbers_of_other_units_are_known(half_life, message):
    with pytest.raises(SUVError, match=message):
        suvbw_factors([pet_header(RadionuclideHalfLife=half_life)])


def test_a_half_life_of_another_nuclide_is_refused_and_a_rounded_one_taken():
    with pytest.raises(SUVError, match=r"is '4062.6'; but F-18, which the header names, has 6586.2 s"):
        suvbw_factors([named(pet_header(RadionuclideHalfLife="4062.6"))])
    rounded = named(pet_header(RadionuclideHalfLife="6600", RadiopharmaceuticalStartTime="101000"))
    assert suvbw_factors([rounded]) == pytest.approx([ONE_HALF_LIFE], rel=1e-9)
    with pytest.raises(SUVError, match=r"HalfLife .* is missing; .*--half_life_s 6586.2"):
        suvbw_factors([named(pet_header(RadionuclideHalfLife=None))])


@pytest.mark.parametrize(
    ("text", "nuclide"),
    [
        ("^18^Fluorine", "F-18"),
        ("^68^Gallium", "Ga-68"),
        ("68Ga-PSMA-11", "Ga-68"),
        ("Fluorodeoxyglucose F^18^", "F-18"),
        ("18F-PSMA-1007", "F-18"),
        ("Zr89 girentuximab", "Zr-89"),
        ("[11C]choline", "C-11"),
        ("NaF F 18", "F-18"),
        ("Solution", None),
        ("F-18 and Ga-68", None),
        ("In-111", None),
        ("", None),
        (None, None),
    ],
)
def test_nuclides_are_read_from_names(text, nuclide):
    assert nuclide_in(text) == nuclide


def test_a_nuclides_own_half_life_is_never_doubted():
    for name, seconds in HALF_LIVES_S.items():
        assert doubt_half_life(seconds * (1 + 0.9 * TOLERANCE), name) is None
        assert doubt_half_life(seconds, None) is None


def test_a_sequence_that_was_overwritten_with_text_counts_as_missing():
    header = pet_header()
    header.RadiopharmaceuticalInformationSequence[0].add_new("RadionuclideCodeSequence", "LO", "removed")
    assert suvbw_factors([header]) == pytest.approx([ONE_HALF_LIFE])
    header.add_new("RadiopharmaceuticalInformationSequence", "LO", "removed")
    with pytest.raises(SUVError, match=r"RadionuclideTotalDose .* is missing"):
        suvbw_factors([header])
