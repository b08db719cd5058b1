"""A derived series is written from the headers that were loaded, and what it lacks is said before any work."""

import shutil
from dataclasses import replace

import numpy as np
import pydicom
import pytest

from guided_diffusion.errors import InputError
from guided_diffusion.pet.formats.dicom import open_series
from guided_diffusion.pet.formats.dicom_writer import check_derivable, save_dicom_series
from guided_diffusion.pet.volume import load_volume
from tests.denoising import denoise
from tests.dicom_series import write_series

STORED = np.random.default_rng(0).integers(500, 9000, (4, 5, 6)).astype(np.int16)


def without(paths, *keywords, keep_meta=False):
    for path in paths:
        dataset = pydicom.dcmread(path)
        for keyword in keywords:
            if not keep_meta:
                dataset.file_meta.pop(f"MediaStorage{keyword}", None)
            delattr(dataset, keyword)
        pydicom.dcmwrite(path, dataset, enforce_file_format=False)


@pytest.mark.parametrize("keyword", ["SOPInstanceUID", "SOPClassUID"])
def test_a_uid_that_only_the_meta_header_has_is_taken_from_there(tmp_path, keyword):
    paths = write_series(tmp_path / "s", STORED)
    expected = {str(pydicom.dcmread(path)[keyword].value) for path in paths}
    without(paths, keyword, keep_meta=True)
    volume = load_volume(tmp_path / "s")
    save_dicom_series(volume, volume.series, tmp_path / "out", model_description="m")
    derived = [pydicom.dcmread(path).SourceImageSequence[0] for path in (tmp_path / "out").iterdir()]
    assert {str(source[f"Referenced{keyword}"].value) for source in derived} == expected


@pytest.mark.parametrize("keyword", ["SOPInstanceUID", "SOPClassUID"])
def test_a_uid_that_is_nowhere_is_said_before_the_work(tmp_path, small, keyword):
    without(write_series(tmp_path / "s", STORED)[2:3], keyword)
    message = rf"s/0004\.dcm: {keyword} \(0008,001[68]\) is missing, which a derived series .* leave out --write_dicom"
    with pytest.raises(InputError, match=message):
        denoise(tmp_path / "s", small / "small.pt", tmp_path / "out", "--write_dicom", True)
    assert [path.name for path in (tmp_path / "out").iterdir() if path.name[0] != "."] == ["log.txt"]
    np.testing.assert_allclose(load_volume(tmp_path / "s").data, STORED * 4e-4, rtol=1e-6)


def test_a_folder_of_others_where_the_series_goes_is_said_before_the_work(tmp_path, small):
    write_series(tmp_path / "s", STORED)
    write_series(tmp_path / "out" / "denoised_dicom", STORED)
    with pytest.raises(InputError, match="denoised_dicom: exists and holds something else"):
        denoise(tmp_path / "s", small / "small.pt", tmp_path / "out", "--write_dicom", True)
    assert len(list((tmp_path / "out" / "denoised_dicom").iterdir())) == 6


def test_a_header_that_cannot_be_encoded_is_named(tmp_path):
    write_series(tmp_path / "s", STORED)
    series = load_volume(tmp_path / "s").series
    series.headers[3].add_new((0x0009, 0x1001), "US", "no number")
    with pytest.raises(InputError, match=r"\.dcm: its header cannot be written into a derived series"):
        check_derivable(series, tmp_path / "out")


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        # A reader takes the first acquisition, at 12:00, for the start: 2^(-15 min / half-life).
        ("scan_start", "121500", "series with --scan_start would be read with 0.910 times the SUV.*leave out --write"),
        (
            "half_life_s",
            6000,
            r"series with --half_life_s could not be read; .* --write_dicom \(no SUV: RadionuclideHal",
        ),
    ],
)
def test_what_the_user_gave_that_a_reader_would_not_find_is_said_before_the_work(tmp_path, small, flag, value, message):
    write_series(tmp_path / "s", STORED, headers=[{"AcquisitionTime": f"12{2 * k:02d}00"} for k in range(6)])
    with pytest.raises(InputError, match=message):
        denoise(tmp_path / "s", small / "small.pt", tmp_path / "out", "--write_dicom", True, f"--{flag}", value)
    assert [path.name for path in (tmp_path / "out").iterdir() if path.name[0] != "."] == ["log.txt"]


def test_a_folder_that_is_replaced_during_a_run_changes_nothing(tmp_path):
    """One patient's voxels never come out under another's name and factor."""
    write_series(tmp_path / "s", STORED, PatientID="A", PatientWeight="70")
    volume = load_volume(tmp_path / "s")
    shutil.rmtree(tmp_path / "s")
    write_series(tmp_path / "s", STORED // 3, PatientID="B", PatientWeight="35")
    half = replace(volume, data=volume.data / 2)
    save_dicom_series(half, volume.series, tmp_path / "out", model_description="m")
    derived = load_volume(tmp_path / "out")
    np.testing.assert_allclose(derived.data, STORED * 2e-4, atol=1e-3)
    assert {pydicom.dcmread(path).PatientID for path in (tmp_path / "out").iterdir()} == {"A"}
    shutil.rmtree(tmp_path / "s")
    save_dicom_series(half, volume.series, tmp_path / "again", model_description="m")
    for path in (tmp_path / "out").iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def test_a_slice_that_is_replaced_between_header_and_pixels_is_refused(tmp_path):
    write_series(tmp_path / "s", STORED, uid="1.2.3")
    with open_series(tmp_path / "s") as found:
        values, header = found.read(2)
        np.testing.assert_array_equal(values, STORED[..., 2])
        assert "PixelData" not in header
        assert header.PatientBirthDate == "19481231"
        write_series(tmp_path / "s", STORED, uid="1.2.3", PatientWeight="35")
        with pytest.raises(InputError, match=r"\.dcm: was replaced by another file while the series was read"):
            found.read(2)


def test_implicit_data_under_a_header_that_says_explicit_are_written(tmp_path):
    explicit = pydicom.uid.ExplicitVRLittleEndian.encode().ljust(20, b"\0")
    for path in write_series(tmp_path / "s", STORED, syntax=pydicom.uid.ImplicitVRLittleEndian):
        content = path.read_bytes()
        place = content.index(b"\x02\0\x10\0UI") + 6  # of the syntax in the meta header, whose length is at 140
        length = int.from_bytes(content[place : place + 2], "little")
        group = int.from_bytes(content[140:144], "little") + len(explicit) - length
        rest = content[place + 2 + length :]
        content = content[:place] + len(explicit).to_bytes(2, "little") + explicit + rest
        path.write_bytes(content[:140] + group.to_bytes(4, "little") + content[144:])
    volume = load_volume(tmp_path / "s")
    check_derivable(volume.series, tmp_path / "out")
    save_dicom_series(volume, volume.series, tmp_path / "out", model_description="m")
    np.testing.assert_allclose(load_volume(tmp_path / "out").data, volume.data, atol=1e-3)
