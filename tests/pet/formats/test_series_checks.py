"""Objects that are no slices, and slices that are not of one patient, under one SeriesInstanceUID."""

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    BasicTextSRStorage,
    CTImageStorage,
    ExplicitVRLittleEndian,
    GrayscaleSoftcopyPresentationStateStorage,
    RawDataStorage,
    SecondaryCaptureImageStorage,
    generate_uid,
)

from guided_diffusion.errors import InputError
from guided_diffusion.pet.volume import load_volume
from tests.dicom_series import write_series

SUV_PER_BQML = 4e-4
UID = "1.2.826.0.1.3680043.8.498.7"


@pytest.fixture
def stored():
    return np.random.default_rng(0).permutation(5 * 7 * 6).reshape(5, 7, 6).astype(np.int16) * 100


def intruder(path, kind, modality):
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.SeriesInstanceUID = kind, generate_uid(), UID
    dataset.Modality = modality
    if kind == SecondaryCaptureImageStorage:
        dataset.Rows, dataset.Columns, dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 8, 8, 3, "RGB"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
        dataset.PlanarConfiguration, dataset.PixelData = 0, bytes(192)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.save_as(path, enforce_file_format=True)


@pytest.mark.parametrize("name", ["0000.dcm", "zz.dcm"])
@pytest.mark.parametrize(
    ("kind", "modality"),
    [
        (BasicTextSRStorage, "SR"),
        (SecondaryCaptureImageStorage, "PT"),
        (GrayscaleSoftcopyPresentationStateStorage, "PR"),
        (RawDataStorage, "PT"),
    ],
)
def test_what_is_no_image_is_left_out_and_named(tmp_path, stored, name, kind, modality):
    write_series(tmp_path / "s", stored, uid=UID)
    intruder(tmp_path / "s" / name, kind, modality)
    volume = load_volume(tmp_path / "s")
    np.testing.assert_allclose(volume.data, stored * SUV_PER_BQML, rtol=1e-6)
    (notice,) = volume.source["notices"]
    assert notice == f"{tmp_path / 's' / name}: left out, no PET image (SOP class {kind.name})"


def test_a_series_of_nothing_but_reports_says_so(tmp_path):
    (tmp_path / "s").mkdir()
    intruder(tmp_path / "s" / "a.dcm", RawDataStorage, "PT")
    with pytest.raises(
        InputError, match=r"a\.dcm: .* is missing, and it is no PET image \(SOP class Raw Data Storage\)"
    ):
        load_volume(tmp_path / "s")


def test_secondary_captures_of_a_pet_are_read_where_there_is_nothing_else(tmp_path, stored):
    write_series(tmp_path / "s", stored, SOPClassUID=SecondaryCaptureImageStorage)
    np.testing.assert_allclose(load_volume(tmp_path / "s").data, stored * SUV_PER_BQML, rtol=1e-6)
    for path in write_series(tmp_path / "bare", stored):
        dataset = pydicom.dcmread(path)
        del dataset.SOPClassUID
        dataset.save_as(path)
    np.testing.assert_allclose(load_volume(tmp_path / "bare").data, stored * SUV_PER_BQML, rtol=1e-6)


def _set(paths, keyword, value):
    for path in paths:
        dataset = pydicom.dcmread(path)
        setattr(dataset, keyword, value)
        dataset.save_as(path)


@pytest.mark.parametrize("keyword", ["PatientID", "FrameOfReferenceUID", "StudyInstanceUID"])
@pytest.mark.parametrize("count", [1, 3])
def test_slices_of_two_patients_or_examinations_are_refused(tmp_path, stored, keyword, count):
    paths = write_series(tmp_path / "s", stored, PatientID="Sentinel")
    _set(paths[:count], keyword, "1.2.3.4.1948")
    with pytest.raises(
        InputError, match=rf"\.dcm and .*\.dcm: one series, but {keyword} \(.*\) differs; separate"
    ) as caught:
        load_volume(tmp_path / "s")
    assert "Sentinel" not in str(caught.value)
    assert "1948" not in str(caught.value)


def test_uids_that_an_anonymiser_drew_for_each_file_say_nothing(tmp_path, stored):
    paths = write_series(tmp_path / "s", stored)
    for path in paths:
        _set([path], "FrameOfReferenceUID", generate_uid())
        _set([path], "StudyInstanceUID", generate_uid())
    np.testing.assert_allclose(load_volume(tmp_path / "s").data, stored * SUV_PER_BQML, rtol=1e-6)


def test_a_slice_in_another_unit_is_refused_and_named(tmp_path, stored):
    paths = write_series(tmp_path / "s", stored)
    _set(paths[2:3], "Units", "CNTS")
    message = r"s: no SUV: Units .* BQML and CNTS \(first in .*0004\.dcm\); separate the two"
    with pytest.raises(InputError, match=message):
        load_volume(tmp_path / "s")


def test_raw_data_beside_a_pet_series_is_no_series_to_choose(tmp_path, stored):
    write_series(tmp_path / "s" / "pet", stored)
    raw = tmp_path / "s" / "raw"
    (path, *others) = write_series(raw, stored, SOPClassUID=RawDataStorage)
    for other in others:
        other.unlink()
    dataset = pydicom.dcmread(path)
    del dataset.PixelData, dataset.Rows, dataset.Columns
    dataset.save_as(path)
    volume = load_volume(tmp_path / "s")
    np.testing.assert_allclose(volume.data, stored * SUV_PER_BQML, rtol=1e-6)
    assert "left out (another series): number 4 (PT, 1 slices" in volume.source["notices"][0]


@pytest.mark.parametrize("modality", [None, "PET", "pt"])
def test_pet_is_pet_whatever_its_modality_is_called(tmp_path, stored, modality):
    write_series(tmp_path / "s" / "pet", stored, Modality=modality)
    write_series(tmp_path / "s" / "ct", stored, Modality="CT", SOPClassUID=CTImageStorage, SeriesNumber=5)
    volume = load_volume(tmp_path / "s")
    np.testing.assert_allclose(volume.data, stored * SUV_PER_BQML, rtol=1e-6)
    (notice,) = volume.source["notices"]
    assert "number 5 (CT" in notice


def test_codes_in_small_letters_are_codes(tmp_path, stored):
    write_series(tmp_path / "s", stored)
    write_series(tmp_path / "small", stored, CorrectedImage=["decy", "attn"], PatientSex="m")
    volume, expected = load_volume(tmp_path / "small"), load_volume(tmp_path / "s")
    np.testing.assert_array_equal(volume.data, expected.data)
    assert volume.source["suv_basis_ratios"] == expected.source["suv_basis_ratios"]
    assert volume.source["suv_basis_ratios"].keys() == {"bw", "lbm", "bsa"}


@pytest.mark.parametrize("kind", [["DERIVED", "SECONDARY", "MIP"], ["DERIVED", "PRIMARY", "AXIAL", "mpr"]])
def test_what_a_workstation_made_of_a_series_does_not_count_beside_it(tmp_path, stored, kind):
    write_series(tmp_path / "s" / "pet", stored)
    write_series(tmp_path / "s" / "nac", stored // 3, CorrectedImage=["DECY"], SeriesNumber=5)
    for path in write_series(tmp_path / "s" / "made", stored // 2, SeriesNumber=90, uid="1.2.90"):
        dataset = pydicom.dcmread(path)
        dataset.ImageType = kind
        dataset.save_as(path)
    volume = load_volume(tmp_path / "s")
    np.testing.assert_allclose(volume.data, stored * SUV_PER_BQML, rtol=1e-6)
    (notice,) = volume.source["notices"]
    assert "left out (another series)" in notice
    assert "number 90 (PT, 6 slices" in notice
    for alone in (load_volume(tmp_path / "s", series="90"), load_volume(tmp_path / "s" / "made")):
        np.testing.assert_allclose(alone.data, stored // 2 * SUV_PER_BQML, rtol=1e-6)
