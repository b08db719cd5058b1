"""Enhanced and legacy-converted PET objects: the same volume, factor and derived series as from classic slices."""

import random
import zipfile
from dataclasses import replace

import numpy as np
import pydicom
import pytest
from pydicom.sequence import Sequence
from pydicom.uid import PositronEmissionTomographyImageStorage, RLELossless

from guided_diffusion.errors import InputError
from guided_diffusion.pet.formats.dicom import Series
from guided_diffusion.pet.formats.dicom_files import DicomFile, Slices, file_at, header_of
from guided_diffusion.pet.formats.dicom_writer import check_derivable, save_dicom_series
from guided_diffusion.pet.formats.multi_frame import frames_as_slices
from guided_diffusion.pet.suv import SUVError, SUVOverrides
from guided_diffusion.pet.volume import load_volume
from tests.denoising import denoise
from tests.dicom_series import HALF_LIFE_S, write_series
from tests.multi_frame_objects import enhanced, item, legacy_converted
from tests.pet.suv.test_factors import philips

STORED = np.random.default_rng(0).permutation(5 * 7 * 6).reshape(5, 7, 6).astype(np.int16) * 100
SLOPES = np.array([0.5, 1, 0.2, 0.1, 0.3, 0.7141])
KINDS = pytest.mark.parametrize("write", [enhanced, legacy_converted])


@pytest.fixture
def slices(tmp_path):
    return classic(tmp_path)


def classic(tmp_path, **changes):
    """A classic series in tmp_path/classic, its files in an order of their own."""
    slopes = SLOPES / 1000 if changes.get("Units") == "GML" else SLOPES
    paths = write_series(tmp_path / "classic", STORED, slopes=slopes, **changes)
    return random.Random(0).sample(paths, len(paths))


def refused(path, message, error=InputError, **options):
    with pytest.raises(error, match=message) as caught:
        load_volume(path, **options)
    text = str(caught.value)
    assert text.isprintable()
    assert "Sentinel" not in text
    assert "1948" not in text


def assert_same_as_classic(tmp_path, name="s"):
    expected, volume = load_volume(tmp_path / "classic"), load_volume(tmp_path / name)
    np.testing.assert_allclose(volume.data, expected.data, rtol=1e-6)
    np.testing.assert_array_equal(volume.affine, expected.affine)
    np.testing.assert_allclose(volume.source["suv_factor"], expected.source["suv_factor"], rtol=1e-9)
    for key in ("slices", "stored_units", "spacing", "suv", "suv_basis_ratios"):
        assert volume.source[key] == expected.source[key], key
    assert [notice.split(": ")[1:] for notice in volume.source["notices"]] == [
        notice.split(": ")[1:] for notice in expected.source["notices"]
    ]


def edit(path, change):
    whole = pydicom.dcmread(path)
    change(whole)
    whole.save_as(path)


def frames(whole):
    return whole.PerFrameFunctionalGroupsSequence


@KINDS
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"DecayCorrection": "ADMIN"},
        {"AcquisitionTime": "123000", "ActualFrameDuration": "120000"},
        {"DecayCorrection": "NONE", "CorrectedImage": ["ATTN"], "ActualFrameDuration": "120000"},
        {"Units": "GML"},
    ],
)
def test_it_is_the_same_scan_as_the_classic_series(tmp_path, write, changes):
    write(tmp_path / "s" / "whole.dcm", classic(tmp_path, **changes))
    assert_same_as_classic(tmp_path)


def test_each_frame_has_its_own_time_where_decay_is_not_corrected(tmp_path):
    headers = [{"AcquisitionTime": f"12{5 * k:02}00"} for k in range(6)]
    changes = {"DecayCorrection": "NONE", "CorrectedImage": ["ATTN"], "ActualFrameDuration": "120000"}
    enhanced(tmp_path / "s" / "whole.dcm", classic(tmp_path, headers=headers, **changes))
    assert_same_as_classic(tmp_path)
    low, high = load_volume(tmp_path / "s").source["suv_factor"]
    assert high / low == pytest.approx(2 ** (1500 / HALF_LIFE_S))


@KINDS
@pytest.mark.parametrize("parts", [(2, 4), (1, 1, 1, 1, 1, 1)])
def test_a_volume_may_be_split_over_files_and_zipped(tmp_path, slices, write, parts):
    for number, first in enumerate(np.cumsum((0, *parts[:-1]))):
        write(tmp_path / "s" / f"{number}.dcm", slices[first : first + parts[number]])
    assert_same_as_classic(tmp_path)
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as archive:
        for path in (tmp_path / "s").iterdir():
            archive.write(path, path.name)
    assert_same_as_classic(tmp_path, "s.zip")


def test_an_object_is_read_once_for_its_pixels_and_then_let_go(tmp_path, slices, monkeypatch):
    enhanced(tmp_path / "s" / "whole.dcm", slices)
    reads = []
    read = DicomFile.read

    def counting(self, **options):
        reads.append(options)
        return read(self, **options)

    monkeypatch.setattr(DicomFile, "read", counting)
    for count in (1, 2):
        load_volume(tmp_path / "s")
        assert [options for options in reads if not options] == [{}] * count


@KINDS
def test_the_derived_series_is_a_classic_one_that_names_the_frames(tmp_path, slices, write):
    whole = write(tmp_path / "s" / "whole.dcm", slices)
    volume = load_volume(tmp_path / "s")
    check_derivable(volume.series, tmp_path / "out")
    half = replace(volume, data=volume.data / 2)
    save_dicom_series(half, volume.series, tmp_path / "out", model_description="m")
    save_dicom_series(half, tmp_path / "s", tmp_path / "again", model_description="m")
    again = load_volume(tmp_path / "out")
    np.testing.assert_allclose(again.data, half.data, atol=half.data.max() / 60000)
    np.testing.assert_array_equal(again.affine, volume.affine)
    assert again.source["suv_factor"] == pytest.approx(volume.source["suv_factor"], rel=1e-9)
    named, uids = {}, set()
    for path in (tmp_path / "out").iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()
        derived = pydicom.dcmread(path)
        assert derived.file_meta.MediaStorageSOPClassUID == PositronEmissionTomographyImageStorage
        assert derived.SOPClassUID == PositronEmissionTomographyImageStorage
        assert not any("FunctionalGroups" in element.keyword or "Unassigned" in element.keyword for element in derived)
        assert "NumberOfFrames" not in derived
        assert "ReferencedFrameNumber" not in derived
        assert derived.RadiopharmaceuticalInformationSequence[0].RadiopharmaceuticalStartTime.startswith("101013.8")
        (source,) = derived.SourceImageSequence
        assert source.ReferencedSOPClassUID == whole.SOPClassUID
        assert source.ReferencedSOPInstanceUID == whole.SOPInstanceUID
        named[source.ReferencedFrameNumber] = derived.ImagePositionPatient
        uids.add(derived.SOPInstanceUID)
    places = {
        number: frame.PlanePositionSequence[0].ImagePositionPatient for number, frame in enumerate(frames(whole), 1)
    }
    assert named == places
    assert len(uids) == 6


def test_compressed_frames_are_decoded_one_by_one(tmp_path, slices):
    path = tmp_path / "s" / "whole.dcm"
    enhanced(path, slices).compress(RLELossless)
    edit(path, lambda whole: whole.compress(RLELossless))
    assert_same_as_classic(tmp_path)
    volume = load_volume(tmp_path / "s")
    save_dicom_series(volume, volume.series, tmp_path / "out", model_description="m")
    np.testing.assert_allclose(load_volume(tmp_path / "out").data, volume.data, atol=volume.data.max() / 60000)

    def lose_a_frame(whole):
        parts = list(pydicom.encaps.generate_frames(whole.PixelData, number_of_frames=6))
        whole.PixelData = pydicom.encaps.encapsulate(parts[:5])

    edit(path, lose_a_frame)
    refused(tmp_path / "s", r"whole\.dcm: its pixel data are missing or truncated")


def test_frames_in_floating_point(tmp_path, slices):
    path = tmp_path / "s" / "whole.dcm"

    def to_float(whole):
        values = whole.pixel_array.astype("<f4")
        for gone in ("PixelData", "PixelRepresentation", "BitsStored", "HighBit"):
            delattr(whole, gone)
        whole.BitsAllocated, whole.FloatPixelData = 32, values.tobytes()

    enhanced(path, slices)
    edit(path, to_float)
    assert_same_as_classic(tmp_path)


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


def test_stacks_of_different_orientation_are_refused(tmp_path, slices):
    def turn(whole):
        content = frames(whole)[2]
        content.FrameContentSequence[0].StackID = "2"
        content.PlaneOrientationSequence = Sequence([item(ImageOrientationPatient=[1, 0, 0, 0, 0, -1])])

    enhanced(tmp_path / "s" / "whole.dcm", slices)
    edit(tmp_path / "s" / "whole.dcm", turn)
    refused(tmp_path / "s", r"frame 3: one series, but different orientation; separate the two")


def test_a_copy_of_an_object_is_left_out(tmp_path, slices):
    enhanced(tmp_path / "s" / "whole.dcm", slices)
    (tmp_path / "s" / "whole (1).dcm").write_bytes((tmp_path / "s" / "whole.dcm").read_bytes())
    volume = load_volume(tmp_path / "s")
    np.testing.assert_array_equal(volume.data, load_volume(tmp_path / "classic").data)
    assert any("a copy of a slice" in notice for notice in volume.source["notices"])


def test_an_object_that_is_replaced_while_it_is_read_is_refused(tmp_path, slices):
    path = tmp_path / "s" / "whole.dcm"
    enhanced(path, slices)
    with frames_as_slices(Slices([(file_at(path), header_of(file_at(path)))])) as found:
        members = found.headers
        series = Series(*zip(*members, strict=True), stack=None, name="s")
        enhanced(path, slices[::-1])
        with pytest.raises(InputError, match=r"frame 3: was replaced by another file"):
            series.read(2)


def _more_frames(whole):
    whole.NumberOfFrames = 5000


def _fewer_frames(whole):
    whole.NumberOfFrames = 3


def _more_rows(whole):
    whole.Rows = 4000


def _fewer_rows(whole):
    whole.Rows = 3


def _no_pixels(whole):
    del whole.PixelData


def _no_position(whole):
    del frames(whole)[4].PlanePositionSequence


def _no_groups(whole):
    del whole.PerFrameFunctionalGroupsSequence


def _no_unit(whole):
    for frame in frames(whole):
        del frame.RealWorldValueMappingSequence


def _no_attenuation_correction(whole):
    whole.AttenuationCorrected = "NO"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_more_frames, r"frame 1: NumberOfFrames \(0028,0008\) is '5000', but it describes 6; export"),
        (_fewer_frames, r"frame 1: NumberOfFrames \(0028,0008\) is '3', but it describes 6; export"),
        (_more_rows, r"whole\.dcm: its pixel data are missing or truncated"),
        (_fewer_rows, r"whole\.dcm: NumberOfFrames \(0028,0008\) is '6', Rows .* but its pixels are more"),
        (_no_pixels, r"whole\.dcm: its pixel data are missing or truncated"),
        (_no_position, r"frame 5: ImagePositionPatient \(0020,0032\) is missing"),
        (_no_groups, r"whole\.dcm: is a multi-frame file"),
        (_no_unit, r"Units \(0054,1001\) is missing"),
        (_no_attenuation_correction, r"CorrectedImage \(0028,0051\) is 'DECY.*SCAT'; .*without attenuation"),
    ],
)
def test_what_is_wrong_with_an_object_is_named(tmp_path, slices, spoil, message):
    enhanced(tmp_path / "s" / "whole.dcm", slices)
    edit(tmp_path / "s" / "whole.dcm", spoil)
    refused(tmp_path / "s", message)


@pytest.mark.parametrize("kept", [0.5, 0.97, 0.999])
def test_a_truncated_object_is_refused(tmp_path, slices, kept):
    path = tmp_path / "s" / "whole.dcm"
    enhanced(path, slices)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    refused(tmp_path / "s", r"whole\.dcm.*(truncated|damaged|is missing)")


def test_no_memory_is_taken_for_pixels_that_are_not_there(tmp_path, slices, monkeypatch):
    """A header of 4000 x 4000 pixels asks for 400 MB."""
    enhanced(tmp_path / "s" / "whole.dcm", slices, Rows=4000, Columns=4000)
    monkeypatch.setattr(np, "empty", lambda *_args, **_options: pytest.fail("memory was taken"))
    refused(tmp_path / "s", r"whole\.dcm: its pixel data are missing or truncated")


def test_an_object_is_denoised_and_written_as_slices(tmp_path, small, slices):
    enhanced(tmp_path / "s" / "whole.dcm", slices)
    for name in ("s", "classic"):
        denoise(tmp_path / name, small / "small.pt", tmp_path / f"{name}_out", "--write_dicom", True)
    volumes = [load_volume(tmp_path / f"{name}_out" / "denoised_dicom") for name in ("s", "classic")]
    np.testing.assert_allclose(volumes[0].data, volumes[1].data, atol=volumes[1].data.max() / 60000)
    np.testing.assert_array_equal(volumes[0].affine, volumes[1].affine)
