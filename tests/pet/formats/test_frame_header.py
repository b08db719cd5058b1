"""Units, drugs, times and corrections of a frame of an enhanced PET object, as of a classic slice."""

import numpy as np
import pydicom
import pytest
from pydicom.sequence import Sequence

from guided_diffusion.pet.suv import SUVError, SUVOverrides
from guided_diffusion.pet.volume import load_volume
from tests.dicom_series import HALF_LIFE_S, write_series
from tests.multi_frame_objects import (
    KINDS,
    STORED,
    assert_same_as_classic,
    classic,
    edit,
    enhanced,
    frames,
    item,
    legacy_converted,
    refused,
)
from tests.pet.suv.test_factors import philips


@pytest.mark.parametrize(
    ("unit", "units"),
    [("Bq/ml", "BQML"), ("Bq/mL", "BQML"), ("{SUVbw}g/ml", "GML"), ("g/ml{SUVbw}", "GML"), ("g/ml", "GML")],
)
def test_units_are_those_of_the_mapping(tmp_path, unit, units):
    enhanced(tmp_path / "s" / "whole.dcm", classic(tmp_path, Units=units), unit)
    assert_same_as_classic(tmp_path)
    assert load_volume(tmp_path / "s").source["stored_units"] == units


@pytest.mark.parametrize(
    ("unit", "message"),
    [
        ("{SUVlbm}g/ml", r"SUVType \(0054,1006\) is 'LBM'"),
        ("g/ml{SUVlbm(Janma)}", r"SUVType \(0054,1006\) is 'LBMJANMA'"),
        ("{SUVibw}g/ml", r"SUVType \(0054,1006\) is 'IBW'"),
        ("{SUVbsa}cm2/ml", r"Units \(0054,1001\) is 'CM2ML'"),
        ("{counts}", r"Units \(0054,1001\) is 'CNTS'; counts need Philips"),
        ("Sentinel", r"whole\.dcm frame 1: its unit, in .*\(0040,08EA\), is none of Bq/ml"),
    ],
)
def test_other_units_are_refused(tmp_path, slices, unit, message):
    enhanced(tmp_path / "s" / "whole.dcm", slices, unit)
    refused(tmp_path / "s", message)


def test_a_code_of_another_scheme_is_no_unit(tmp_path, slices):
    def rename(whole):
        for frame in frames(whole):
            frame.RealWorldValueMappingSequence[0].MeasurementUnitsCodeSequence[0].CodingSchemeDesignator = "99X"

    enhanced(tmp_path / "s" / "whole.dcm", slices)
    edit(tmp_path / "s" / "whole.dcm", rename)
    refused(tmp_path / "s", "is none of Bq/ml")


def test_of_two_mappings_the_one_of_the_rescale_slope_counts(tmp_path, slices):
    """The same voxels may be mapped to SUV too."""

    def add(whole):
        for frame in frames(whole):
            (mapping,) = frame.RealWorldValueMappingSequence
            code = item(CodeValue="{SUVbw}g/ml", CodingSchemeDesignator="UCUM")
            other = item(RealWorldValueSlope=4e-4 * mapping.RealWorldValueSlope, RealWorldValueIntercept=0.0)
            other.MeasurementUnitsCodeSequence = Sequence([code])
            frame.RealWorldValueMappingSequence = Sequence([other, mapping])

    enhanced(tmp_path / "s" / "whole.dcm", slices)
    edit(tmp_path / "s" / "whole.dcm", add)
    assert_same_as_classic(tmp_path)


def test_a_mapping_replaces_a_missing_slope_and_must_not_contradict_one(tmp_path, slices):
    path = tmp_path / "s" / "whole.dcm"

    def without_slope(whole):
        for frame in frames(whole):
            del frame.PixelValueTransformationSequence

    enhanced(path, slices)
    edit(path, without_slope)
    assert_same_as_classic(tmp_path)

    def contradict(whole):
        frames(whole)[3].RealWorldValueMappingSequence[0].RealWorldValueSlope *= 2

    enhanced(path, slices)
    edit(path, contradict)
    message = (
        r"whole\.dcm frame 4: RescaleSlope \(0028,1053\) and RealWorldValueSlope \(0040,9225\) contradict each other"
    )
    refused(tmp_path / "s", message)

    def shift(whole):
        frames(whole)[3].RealWorldValueMappingSequence[0].RealWorldValueIntercept = 50.0

    enhanced(path, slices)
    edit(path, shift)
    refused(tmp_path / "s", message)


def test_a_contradiction_in_another_series_is_nobodys_business(tmp_path, slices):
    def contradict(whole):
        whole.SeriesInstanceUID, whole.SeriesNumber = "1.2.3", 9
        frames(whole)[3].RealWorldValueMappingSequence[0].RealWorldValueSlope *= 2

    enhanced(tmp_path / "s" / "a.dcm", slices)
    enhanced(tmp_path / "s" / "b.dcm", slices)
    edit(tmp_path / "s" / "b.dcm", contradict)
    refused(tmp_path / "s", r"holds 2 PET series.*number 9 \(PT, 6 slices.*number 4 \(PT, 6 slices")
    np.testing.assert_allclose(load_volume(tmp_path / "s", series="4").data, load_volume(tmp_path / "classic").data)
    refused(tmp_path / "s", "contradict each other", series="9")


@pytest.mark.parametrize("dose", ["350000000", "350"])
def test_a_dose_in_bq_is_taken_too(tmp_path, slices, dose):
    path = tmp_path / "s" / "whole.dcm"
    enhanced(path, slices)
    edit(path, lambda whole: setattr(whole.RadiopharmaceuticalInformationSequence[0], "RadionuclideTotalDose", dose))
    assert_same_as_classic(tmp_path)


def test_a_dose_in_mbq_of_a_converted_object_is_refused_as_of_a_classic_one(tmp_path):
    legacy_converted(tmp_path / "s" / "whole.dcm", classic(tmp_path, RadionuclideTotalDose="350"))
    refused(tmp_path / "s", r"RadionuclideTotalDose \(0018,1074\) is '350'; it must be in Bq", SUVError)


@KINDS
def test_counts_of_philips_keep_their_private_factor(tmp_path, slices, write):
    for path in slices:
        dataset = pydicom.dcmread(path)
        dataset.Units = "CNTS"
        philips(dataset, suv="0.0003").save_as(path)
    whole = write(tmp_path / "s" / "whole.dcm", slices)
    if write is enhanced:
        philips(whole, suv="0.0003").save_as(tmp_path / "s" / "whole.dcm")
    assert_same_as_classic(tmp_path)


def test_the_drug_that_a_frame_names_counts(tmp_path, slices):
    def add(whole):
        (drug,) = whole.RadiopharmaceuticalInformationSequence
        other = item(RadionuclideTotalDose=900, RadiopharmaceuticalAgentNumber=2)
        whole.RadiopharmaceuticalInformationSequence = Sequence([other, drug])

    enhanced(tmp_path / "s" / "whole.dcm", slices)
    edit(tmp_path / "s" / "whole.dcm", add)
    assert_same_as_classic(tmp_path)


def test_an_image_corrected_to_a_time_before_the_frames_follows_that_time(tmp_path):
    slices = classic(tmp_path, SeriesTime="113000")
    enhanced(tmp_path / "s" / "whole.dcm", slices)
    assert_same_as_classic(tmp_path)


def test_a_frame_reference_at_the_frames_middle_changes_nothing(tmp_path):
    slices = classic(tmp_path, ActualFrameDuration="600000", AcquisitionTime="121000")
    path = tmp_path / "s" / "whole.dcm"
    for reference in ("20240110121459", "20240110121000"):
        enhanced(path, slices)

        def refer(whole, reference=reference):
            for frame in frames(whole):
                frame.FrameContentSequence[0].FrameReferenceDateTime = reference

        edit(path, refer)
        assert_same_as_classic(tmp_path)


@pytest.mark.parametrize("reference", ["20240110123000", "20240110040000", None])
def test_a_correction_to_no_start_of_the_scan_needs_the_user(tmp_path, slices, reference):
    path = tmp_path / "s" / "whole.dcm"
    enhanced(path, slices, DecayCorrectionDateTime=reference, DecayCorrection="START" if reference else None)
    refused(tmp_path / "s", r"DecayCorrection \(0054,1102\) is missing; .*give --scan_start", SUVError)
    volume = load_volume(tmp_path / "s", overrides=SUVOverrides(scan_start="123000"))
    assert volume.source["suv_factor"] == pytest.approx(4e-4 * 2 ** (1800 / HALF_LIFE_S))


@pytest.mark.parametrize("injected", ["20240110101013.800000+0100", "20240110091013.8+0000"])
def test_times_with_an_offset_from_utc(tmp_path, slices, injected):
    def offset(whole):
        whole.DecayCorrectionDateTime += "+0100"
        whole.RadiopharmaceuticalInformationSequence[0].RadiopharmaceuticalStartDateTime = injected
        for frame in frames(whole):
            frame.FrameContentSequence[0].FrameAcquisitionDateTime += "+0100"

    enhanced(tmp_path / "s" / "whole.dcm", slices)
    edit(tmp_path / "s" / "whole.dcm", offset)
    assert_same_as_classic(tmp_path)


def test_an_injection_of_an_unknown_zone_is_told(tmp_path, slices):
    def offset(whole):
        whole.RadiopharmaceuticalInformationSequence[0].RadiopharmaceuticalStartDateTime = "20240110101013.8+0300"

    enhanced(tmp_path / "s" / "whole.dcm", slices)
    edit(tmp_path / "s" / "whole.dcm", offset)
    volume = load_volume(tmp_path / "s")
    np.testing.assert_allclose(volume.data, load_volume(tmp_path / "classic").data, rtol=1e-6)
    assert any("taken as local time" in notice for notice in volume.source["notices"])


@KINDS
def test_several_time_points_are_refused(tmp_path, slices, write):
    whole = write(tmp_path / "s" / "whole.dcm", slices * 2)
    for number, frame in enumerate(frames(whole)):
        frame.FrameContentSequence[0].TemporalPositionIndex = 1 + number // 6
    whole.save_as(tmp_path / "s" / "whole.dcm")
    message = r"whole\.dcm frame \d+ and .*whole\.dcm frame \d+: two slices at the same place; .*dynamic series"
    refused(tmp_path / "s", message)


def test_what_a_frame_says_itself_counts_before_what_all_share(tmp_path, slices):
    def share(whole):
        (shared,) = whole.SharedFunctionalGroupsSequence
        shared.PlanePositionSequence = Sequence([item(ImagePositionPatient=[1, 2, 3])])
        shared.PixelValueTransformationSequence = Sequence([item(RescaleSlope="7", RescaleIntercept="0")])
        shared.RealWorldValueMappingSequence = Sequence([item(RealWorldValueSlope=7.0, RealWorldValueIntercept=0.0)])
        whole.RescaleSlope, whole.RescaleIntercept = "9", "0"

    enhanced(tmp_path / "s" / "whole.dcm", slices)
    edit(tmp_path / "s" / "whole.dcm", share)
    assert_same_as_classic(tmp_path)


def test_what_all_frames_share_needs_no_copy_in_each(tmp_path):
    def share(whole):
        (shared,) = whole.SharedFunctionalGroupsSequence
        for keyword in ("PixelValueTransformationSequence", "RealWorldValueMappingSequence"):
            setattr(shared, keyword, frames(whole)[0][keyword].value)
            for frame in frames(whole):
                delattr(frame, keyword)

    paths = write_series(tmp_path / "classic", STORED, slopes=np.full(6, 0.5))
    enhanced(tmp_path / "s" / "whole.dcm", paths)
    edit(tmp_path / "s" / "whole.dcm", share)
    assert_same_as_classic(tmp_path)


def test_a_converted_object_may_map_its_values_too(tmp_path, slices):
    """By its own Units' slope, or to SUV; the UIDs and the number of the slices that it keeps are not its own."""
    whole = legacy_converted(tmp_path / "s" / "whole.dcm", slices)
    (kept,) = whole.SharedFunctionalGroupsSequence[0].UnassignedSharedConvertedAttributesSequence
    kept.SeriesNumber, whole.SeriesNumber = 4, 44
    for code, factor in (("Bq/ml", 1.0), ("{SUVbw}g/ml", 4e-4), ("Bq/ml", 3.0)):
        for frame in frames(whole):
            frame.UnassignedPerFrameConvertedAttributesSequence[0].SOPInstanceUID = "1.2.3"
            slope = factor * float(frame.PixelValueTransformationSequence[0].RescaleSlope)
            mapping = item(RealWorldValueSlope=slope, RealWorldValueIntercept=0.0)
            unit = item(CodeValue=code, CodingSchemeDesignator="UCUM")
            mapping.MeasurementUnitsCodeSequence = Sequence([unit])
            frame.RealWorldValueMappingSequence = Sequence([mapping])
        whole.save_as(tmp_path / "s" / "whole.dcm")
        if factor == 3:
            refused(tmp_path / "s", "frame 1: .* contradict each other")
        else:
            assert_same_as_classic(tmp_path)
            headers = load_volume(tmp_path / "s", series="44").series.headers
            assert {header.SOPInstanceUID for header in headers} == {whole.SOPInstanceUID}
