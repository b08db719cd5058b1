"""The derived series: the right SUV at the right place, and never mistaken for the original."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian, RLELossless
from scipy import ndimage

from guided_diffusion.errors import InputError
from guided_diffusion.pet.formats.dicom import conversion_of, open_series
from guided_diffusion.pet.formats.dicom_writer import save_dicom_series
from guided_diffusion.pet.geometry import back_to_input_grid, to_model_grid
from guided_diffusion.pet.suv import SUVOverrides, suvbw_factors
from guided_diffusion.pet.volume import load_volume
from tests.bucket import Bucket
from tests.dicom_series import BROKEN_OFF, HALF_LIFE_S, write_series
from tests.pet.formats.test_dicom import STS, needs_sts
from tests.pet.suv.test_factors import philips

KEPT = (
    "StudyInstanceUID",
    "FrameOfReferenceUID",
    "PatientName",
    "PatientWeight",
    "SeriesDate",
    "SeriesTime",
    "AcquisitionDate",
    "AcquisitionTime",
    "Units",
    "DecayCorrection",
    "CorrectedImage",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SliceThickness",
    "Rows",
    "Columns",
    "RadiopharmaceuticalInformationSequence",
)


@pytest.fixture
def series(tmp_path):
    stored = np.random.default_rng(0).integers(0, 30000, (5, 7, 6)).astype(np.int16)
    write_series(tmp_path / "original", stored, slopes=np.array([0.5, 1, 0.2, 0.1, 0.3, 0.7141]))
    return tmp_path / "original"


def _by_position(folder):
    headers = [pydicom.dcmread(path) for path in folder.iterdir()]
    return sorted(headers, key=lambda d: float(d.ImagePositionPatient[2]))


def test_the_voxels_come_back_in_suv(series, tmp_path):
    volume = load_volume(series)
    half = replace(volume, data=volume.data / 2)
    save_dicom_series(half, volume.series, tmp_path / "out", model_description="halving model")
    again = load_volume(tmp_path / "out")
    np.testing.assert_allclose(again.data, half.data, atol=half.data.max() / 60000)
    np.testing.assert_array_equal(again.affine, volume.affine)
    assert again.source["suv_factor"] == volume.source["suv_factor"]


def test_negative_and_empty_slices_survive(series, tmp_path):
    volume = load_volume(series)
    data = volume.data.copy()
    data[..., 2] = 0
    data[1, 1, 3] = -5.0
    save_dicom_series(replace(volume, data=data), volume.series, tmp_path / "out", model_description="m")
    np.testing.assert_allclose(load_volume(tmp_path / "out").data, data, atol=data.max() / 60000)


def test_it_is_a_new_series_of_the_same_study(series, tmp_path):
    volume = load_volume(series)
    save_dicom_series(volume, volume.series, tmp_path / "out", model_description="demo_ddpm3d.pt")
    old, new = _by_position(series), _by_position(tmp_path / "out")
    assert len(new) == len(old) == 6
    for a, b in zip(old, new, strict=True):
        for keyword in KEPT:
            assert a[keyword].value == b[keyword].value, keyword
        assert b.ImageType == ["DERIVED", "SECONDARY", "AXIAL"]
        assert b.SeriesDescription == "DENOISED (demo_ddpm3d.pt) PET AC"
        assert b.DerivationDescription.startswith("Denoised by PET-3D-DDPM with the model demo_ddpm3d.pt. Computed")
        assert b.SOPInstanceUID != a.SOPInstanceUID
        assert b.file_meta.MediaStorageSOPInstanceUID == b.SOPInstanceUID
        assert b.SourceImageSequence[0].ReferencedSOPInstanceUID == a.SOPInstanceUID
        assert b.SeriesNumber == 1004
        assert b.RescaleIntercept == 0
    assert len({b.SOPInstanceUID for b in new}) == 6
    assert {b.SeriesInstanceUID for b in new}.isdisjoint({a.SeriesInstanceUID for a in old})
    assert len({b.SeriesInstanceUID for b in new}) == 1


def test_what_describes_the_originals_pixels_is_not_copied(tmp_path):
    """A viewer that follows a real-world mapping instead of the slope would show the original's scale."""
    mapping, icon = Dataset(), Dataset()
    mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept = 0.5, 0.0
    icon.Rows, icon.Columns, icon.BitsAllocated, icon.PixelData = 1, 2, 8, b"ab"
    for path in write_series(tmp_path / "s", np.full((4, 4, 3), 1000, np.int16)):
        dataset = pydicom.dcmread(path)
        dataset.RealWorldValueMappingSequence, dataset.IconImageSequence = Sequence([mapping]), Sequence([icon])
        dataset.BitsStored, dataset.HighBit = 12, 11
        dataset.add_new((0x6000, 0x0010), "US", 4)  # an overlay of its own, and one in the 16th bit of the pixels
        for tag, value in ((0x0010, 4), (0x0100, 16), (0x0102, 15)):
            dataset.add_new((0x6002, tag), "US", value)
        dataset.add_new("SmallestPixelValueInSeries", "SS", 0)
        dataset.add_new("LargestPixelValueInSeries", "SS", 1000)
        dataset.compress(RLELossless, encapsulate_ext=True, generate_instance_uid=False)
        assert "ExtendedOffsetTable" in dataset
        dataset.save_as(path)
    volume = load_volume(tmp_path / "s")
    save_dicom_series(volume, volume.series, tmp_path / "out", model_description="m")
    for header in _by_position(tmp_path / "out"):
        assert (0x0040, 0x9096) not in header
        assert (0x0088, 0x0200) not in header
        assert {tag.group for tag in header.keys() if tag.group >= 0x6000} == {0x6000, 0x7FE0}  # noqa: SIM118
        for keyword in ("SmallestPixelValueInSeries", "LargestPixelValueInSeries", "ExtendedOffsetTable"):
            assert keyword not in header


def test_the_original_may_be_remote(tmp_path, monkeypatch):
    stored = np.random.default_rng(0).integers(0, 30000, (4, 5, 3)).astype(np.int16)
    write_series(tmp_path / "s", stored)
    monkeypatch.setitem(sys.modules, "blobfile", Bucket(tmp_path))
    volume = load_volume("gs://bucket/s")
    save_dicom_series(volume, volume.series, tmp_path / "out", model_description="m")
    np.testing.assert_allclose(load_volume(tmp_path / "out").data, stored * 4e-4, atol=volume.data.max() / 60000)


def test_uids_depend_on_the_original_the_model_and_the_voxels_alone(series, tmp_path):
    volume = load_volume(series)

    def uids(name, volume, model):
        save_dicom_series(volume, volume.series, tmp_path / name, model_description=model)
        return [(d.SeriesInstanceUID, d.SOPInstanceUID) for d in _by_position(tmp_path / name)]

    first = uids("a", volume, "model")
    assert uids("b", volume, "model") == first
    assert [p.read_bytes() for p in sorted((tmp_path / "a").iterdir())] == [
        p.read_bytes() for p in sorted((tmp_path / "b").iterdir())
    ]
    assert not set(uids("c", volume, "other model")) & set(first)
    assert not set(uids("d", replace(volume, data=volume.data / 2), "model")) & set(first)


def test_what_the_user_said_of_the_patient_is_in_the_new_headers(tmp_path):
    stored = np.full((4, 4, 3), 1000, np.int16)
    write_series(tmp_path / "s", stored, PatientWeight=None, RadiopharmaceuticalStartDateTime="20000101120000")
    overrides = SUVOverrides(weight_kg=70, injection_time="101013.8")
    volume = load_volume(tmp_path / "s", overrides=overrides)
    save_dicom_series(volume, volume.series, tmp_path / "out", model_description="m", overrides=overrides)
    again = load_volume(tmp_path / "out")  # without overrides
    np.testing.assert_allclose(again.data, 0.4, rtol=1e-4)
    assert "weight_kg, injection_time" in _by_position(tmp_path / "out")[0].DerivationDescription


@pytest.mark.parametrize(
    "changes",
    [
        {"DecayCorrection": None},
        {"SeriesTime": "113000", "DecayFactor": "1.2"},
        {"SeriesTime": "193000", "AcquisitionTime": "123000"},
        {"AcquisitionTime": None},
        {"AcquisitionTime": None, "AcquisitionDate": None, "DecayFactor": "1.2", "FrameReferenceTime": "600000"},
        # all of these say 12:20
        {"FrameReferenceTime": "600000", "Manufacturer": "GE"},
        {"FrameReferenceTime": "659000"},
        {"DecayFactor": "1.07"},
    ],
)
def test_a_scan_start_of_the_user_is_in_all_that_says_one(tmp_path, changes):
    stored = np.full((4, 5, 3), 9000, np.int16)
    changes = {"AcquisitionTime": "123000", "ActualFrameDuration": "120000"} | changes
    write_series(tmp_path / "s", stored, **changes)
    overrides = SUVOverrides(scan_start="120000")
    volume = load_volume(tmp_path / "s", overrides=overrides)
    save_dicom_series(volume, volume.series, tmp_path / "out", model_description="m", overrides=overrides)
    again = load_volume(tmp_path / "out")  # without overrides
    np.testing.assert_allclose(again.data, volume.data, rtol=1e-4)
    assert volume.data.max() == pytest.approx(9000 * 4e-4, rel=1e-4)


@pytest.mark.parametrize("said", ["23:59:00", "20240110235900"])
def test_a_scan_start_before_midnight_is_on_the_day_before_slices_after_it(tmp_path, said):
    times = [("20240110", "235930"), ("20240111", "000200"), ("20240111", "000500")]
    headers = [{"AcquisitionDate": day, "AcquisitionTime": time} for day, time in times]
    changes = {"SeriesDate": "20240111", "SeriesTime": "000500", "RadiopharmaceuticalStartTime": "220913.8"}
    write_series(tmp_path / "s", np.full((4, 5, 3), 9000, np.int16), headers=headers, **changes)
    for path in (tmp_path / "s").iterdir():
        dataset = pydicom.dcmread(path)
        dataset.RadiopharmaceuticalInformationSequence[0].RadiopharmaceuticalStartDateTime = "20240110220913.8"
        dataset.save_as(path)
    overrides = SUVOverrides(scan_start=said)
    volume = load_volume(tmp_path / "s", overrides=overrides)
    assert volume.data.max() == pytest.approx(9000 * 4e-4, rel=1e-4)
    save_dicom_series(volume, volume.series, tmp_path / "out", model_description="m", overrides=overrides)
    assert {(d.SeriesDate, d.SeriesTime[:6]) for d in _by_position(tmp_path / "out")} == {("20240110", "235900")}
    np.testing.assert_allclose(load_volume(tmp_path / "out").data, volume.data, rtol=1e-4)


@pytest.mark.parametrize(
    "said",
    [
        {"injection_time": "2024-01-10T08:10:13.8Z"},
        {"scan_start": "20240110100000Z"},
        {"injection_time": "20240110121013.8+0400", "scan_start": "20240110050000-0500"},
    ],
)
def test_a_time_of_the_user_in_another_zone_is_written_in_the_headers(tmp_path, said):
    write_series(tmp_path / "s", np.full((4, 5, 3), 9000, np.int16), TimezoneOffsetFromUTC="+0200")
    overrides = SUVOverrides(**said)
    volume = load_volume(tmp_path / "s", overrides=overrides)
    save_dicom_series(volume, volume.series, tmp_path / "out", model_description="m", overrides=overrides)
    header = _by_position(tmp_path / "out")[0]
    assert header.SeriesTime.startswith("120000")
    assert header.RadiopharmaceuticalInformationSequence[0].RadiopharmaceuticalStartTime.startswith("101013.8")
    assert load_volume(tmp_path / "out").data.max() == pytest.approx(9000 * 4e-4, rel=1e-4)


def test_slices_that_share_a_uid_get_their_own(tmp_path):
    write_series(tmp_path / "s", np.full((4, 5, 3), 9000, np.int16))
    for path in (tmp_path / "s").iterdir():
        dataset = pydicom.dcmread(path)
        dataset.SOPInstanceUID = "1.2.3"
        dataset.save_as(path)
    volume = load_volume(tmp_path / "s")
    save_dicom_series(volume, volume.series, tmp_path / "out", model_description="m")
    assert len({header.SOPInstanceUID for header in _by_position(tmp_path / "out")}) == 3


def test_other_units_stay_what_they_are(tmp_path):
    stored = np.random.default_rng(0).integers(0, 30000, (4, 4, 3)).astype(np.int16)
    for path in write_series(tmp_path / "s", stored, Units="CNTS"):
        dataset = philips(pydicom.dcmread(path), suv="0.0003")
        dataset.save_as(path)
    volume = load_volume(tmp_path / "s")
    np.testing.assert_allclose(volume.data, stored * 0.0003, rtol=1e-6)
    save_dicom_series(volume, volume.series, tmp_path / "out", model_description="m")
    assert suvbw_factors(_by_position(tmp_path / "out")) == [0.0003] * 3
    np.testing.assert_allclose(load_volume(tmp_path / "out").data, volume.data, atol=2e-4)


def test_each_slice_keeps_its_own_factor_where_the_scanner_did_not_correct_for_decay(tmp_path):
    stored = np.full((4, 4, 3), 10000, np.int16)
    headers = [{"AcquisitionTime": f"12{minutes}00"} for minutes in ("00", "20", "40")]
    uncorrected = {"DecayCorrection": "NONE", "CorrectedImage": ["ATTN"], "ActualFrameDuration": "60000"}
    write_series(tmp_path / "s", stored, headers=headers, **uncorrected)
    volume = load_volume(tmp_path / "s")
    decay = 2 ** (1200 / HALF_LIFE_S)
    np.testing.assert_allclose(volume.data[0, 0] / volume.data[0, 0, 0], [1, decay, decay**2], rtol=1e-5)
    assert len(volume.source["suv_factor"]) == 2  # the smallest and the largest
    save_dicom_series(volume, volume.series, tmp_path / "out", model_description="m")
    np.testing.assert_allclose(load_volume(tmp_path / "out").data, volume.data, rtol=1e-4)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, pydicom.uid.RLELossless])
def test_other_encodings_of_the_original(tmp_path, syntax):
    stored = np.random.default_rng(0).integers(0, 30000, (4, 6, 3)).astype(np.int16)
    for path in write_series(tmp_path / "s", stored):
        dataset = pydicom.dcmread(path)
        if syntax == pydicom.uid.RLELossless:
            dataset.compress(syntax)
        elif syntax == ExplicitVRBigEndian:
            dataset.PixelData = dataset.pixel_array.astype(">i2").tobytes()
            dataset["PixelData"].VR = "OB"  # bytes as they are
        dataset.file_meta.TransferSyntaxUID = syntax
        pydicom.dcmwrite(path, dataset, enforce_file_format=True)
    volume = load_volume(tmp_path / "s")
    np.testing.assert_allclose(volume.data, stored * 4e-4, rtol=1e-6)
    save_dicom_series(volume, volume.series, tmp_path / "out", model_description="m")
    np.testing.assert_allclose(load_volume(tmp_path / "out").data, volume.data, atol=volume.data.max() / 60000)


def test_an_unknown_character_set_is_nobodys_business(tmp_path, recwarn):
    """pydicom warns of it, which would be a second line beside the one that the user gets, or a stray one."""
    stored = np.full((4, 4, 3), 10000, np.int16)
    for path in write_series(tmp_path / "s", stored, SpecificCharacterSet="ISO_IR 999", PatientName="Sentinel"):
        dataset = pydicom.dcmread(path)
        dataset.compress(pydicom.uid.RLELossless)
        dataset.save_as(path)
    recwarn.clear()
    volume = load_volume(tmp_path / "s")
    save_dicom_series(volume, volume.series, tmp_path / "out", model_description="m")
    assert not list(recwarn)


def test_folders_with_something_else_are_left_alone(series, tmp_path):
    volume = load_volume(series)
    save_dicom_series(volume, volume.series, tmp_path / "out", model_description="m")
    save_dicom_series(volume, volume.series, tmp_path / "out", model_description="again")  # replaces its own
    assert len(list((tmp_path / "out").iterdir())) == 6
    (tmp_path / "out" / "thesis.txt").write_text("do not lose me")
    with pytest.raises(InputError, match="holds something else"):
        save_dicom_series(volume, volume.series, tmp_path / "out", model_description="m")
    assert (tmp_path / "out" / "thesis.txt").exists()
    (tmp_path / "out" / "thesis.txt").write_bytes(BROKEN_OFF)
    with pytest.raises(InputError, match="holds something else"):
        save_dicom_series(volume, volume.series, tmp_path / "out", model_description="m")
    with pytest.raises(InputError, match="holds something else"):  # the original itself
        save_dicom_series(volume, volume.series, series, model_description="m")
    np.testing.assert_array_equal(load_volume(series).data, volume.data)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["original", "out"]


def test_volumes_of_another_grid_or_unit_are_refused(series, tmp_path):
    volume = load_volume(series)
    with pytest.raises(InputError, match="grid of this series"):
        save_dicom_series(
            replace(volume, affine=volume.affine @ np.diag([1, 1, 2, 1])),
            volume.series,
            tmp_path / "o",
            model_description="m",
        )
    with pytest.raises(InputError, match="SUVlbm"):
        save_dicom_series(replace(volume, unit="SUVlbm"), volume.series, tmp_path / "o", model_description="m")


@needs_sts
def test_a_real_series_comes_back_through_an_identity_model(tmp_path):
    volume = load_volume(STS)
    model_input = to_model_grid(volume)
    denoised = replace(model_input, data=np.clip(model_input.data, 0, 16))
    save_dicom_series(
        back_to_input_grid(denoised, model_input, volume), volume.series, tmp_path / "out", model_description="identity"
    )
    old, old_headers = _slices(STS)
    new, new_headers = _slices(tmp_path / "out")
    relative = np.abs(new - old) / np.maximum(ndimage.maximum_filter(old, 5), 0.05)
    assert relative.max() < 0.02
    smooth = ndimage.maximum_filter(old, 3) - ndimage.minimum_filter(old, 3) < 0.5 * old
    assert smooth.sum() > 10_000
    assert (np.abs(new - old)[smooth] / old[smooth]).max() < 0.005
    for a, b in zip(old_headers, new_headers, strict=True):
        for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns"):
            assert a[keyword].value == b[keyword].value


def _slices(folder: Path):
    """SUV of the slices as they are stored, without any resampling, and their headers."""
    with open_series(folder) as series:
        factors = conversion_of(series).factors
        return np.stack([series.read(k)[0] * factors[k] for k in range(len(factors))], -1), series.headers
