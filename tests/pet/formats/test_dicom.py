"""DICOM series: slices in space, what is wrong with them, choosing among series, hostile files."""

import shutil
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.uid import ImplicitVRLittleEndian, JPEG2000Lossless

from guided_diffusion.errors import InputError
from guided_diffusion.pet.suv import SUVError, SUVOverrides
from guided_diffusion.pet.volume import load_volume
from tests.dicom_series import write_series

SUV_PER_BQML = 4e-4  # of tests.dicom_series.pet_header
STS = Path(__file__).parents[4] / "shared" / "real_pet" / "STS_001"
needs_sts = pytest.mark.skipif(not STS.is_dir(), reason=f"needs the public series {STS.name} in ../shared/real_pet")

TILT = np.deg2rad(20)
OBLIQUE = tuple(np.round([np.cos(TILT), np.sin(TILT), 0, -np.sin(TILT), np.cos(TILT), 0], 12))
CORONAL = (1, 0, 0, 0, 0, -1)


@pytest.fixture
def stored():
    """Stored values [column, row, slice], every one different."""
    return np.random.default_rng(0).permutation(5 * 7 * 6).reshape(5, 7, 6).astype(np.int16) * 100


@pytest.mark.parametrize("orientation", [(1, 0, 0, 0, 1, 0), (-1, 0, 0, 0, 1, 0), CORONAL, OBLIQUE])
def test_voxels_lie_where_the_header_puts_them(tmp_path, stored, orientation):
    write_series(tmp_path / "s", stored, orientation=orientation)
    volume = load_volume(tmp_path / "s")
    np.testing.assert_allclose(volume.data, stored * SUV_PER_BQML, rtol=1e-6)
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    for i, j, k in ((0, 0, 0), (4, 0, 0), (0, 6, 0), (0, 0, 5), (2, 3, 4)):
        lps = np.array([-50, -60, 10]) + 4 * i * row + 5 * j * column + 3 * k * np.cross(row, column)
        ras = nib.affines.apply_affine(volume.affine, (i, j, k))
        np.testing.assert_allclose(ras, lps * (-1, -1, 1), atol=1e-6)


def test_a_tilted_gantry_shears_the_affine(tmp_path, stored):
    steps = np.outer(np.arange(6), (0, 0, 3.0))
    tilted = (1, 0, 0, 0, np.cos(TILT), np.sin(TILT))
    write_series(tmp_path / "s", stored, orientation=tilted, steps=steps)
    volume = load_volume(tmp_path / "s")
    np.testing.assert_allclose(volume.data, stored * SUV_PER_BQML, rtol=1e-6)
    np.testing.assert_allclose(volume.affine[:3, 2], (0, 0, 3), atol=1e-9)
    np.testing.assert_allclose(volume.affine[:3, 1], (0, -5 * np.cos(TILT), 5 * np.sin(TILT)), atol=1e-6)


def test_every_slice_has_its_own_slope(tmp_path, stored):
    slopes = np.array([0.5, 1, 2, 3, 0.25, 1.7141])
    write_series(tmp_path / "s", stored, slopes=slopes)
    np.testing.assert_allclose(load_volume(tmp_path / "s").data, stored * slopes * SUV_PER_BQML, rtol=1e-6)


def test_unequal_spacing_is_resampled_by_position(tmp_path):
    """A profile that is smooth along z, sampled at uneven places, comes back as if sampled evenly."""
    z = np.array([0, 3.1, 6.0, 9.2, 11.9, 15.1, 18.0, 20.8, 24.1, 27.0])

    def profile(mm):
        return 8000 + 3000 * np.sin(mm / 5)

    values = np.broadcast_to(np.rint(profile(z)), (3, 4, 10)).astype(np.int16)
    write_series(tmp_path / "s", values, steps=np.outer(z, (0, 0, 1)))
    volume = load_volume(tmp_path / "s")
    assert volume.voxel_mm[2] == pytest.approx(3.0)
    even = 3.0 * np.arange(10)
    np.testing.assert_allclose(volume.data[1, 2], profile(even) * SUV_PER_BQML, rtol=0.002)
    # taking the slices as if they were even is far further off
    assert np.abs(profile(z) / profile(even) - 1).max() > 0.01
    assert volume.source["spacing"].startswith("unequal, 2.7 to 3.3 mm")


def test_slices_of_beds_that_overlap_are_told_of(tmp_path):
    z = np.array([0, 3, 6, 9, 12, 13.2, 16.2, 19.2, 22.2, 25.2])
    write_series(tmp_path / "s", np.full((3, 4, 10), 9000, np.int16), steps=np.outer(z, (0, 0, 1)))
    (notice,) = load_volume(tmp_path / "s").source["notices"]
    assert "s: slices lie 1.2 mm apart where others are 3 mm, as in beds that overlap; they are resampled" in notice


def test_resampling_does_not_ring_below_zero(tmp_path):
    z = np.array([0, 3.2, 6.0, 9.1, 12.0])
    values = np.zeros((2, 2, 5), np.int16)
    values[..., 2] = 20000
    write_series(tmp_path / "s", values, steps=np.outer(z, (0, 0, 1)))
    assert load_volume(tmp_path / "s").data.min() == 0


@needs_sts
def test_the_real_series_has_its_known_peak_and_uneven_slices():
    volume = load_volume(STS)
    assert volume.data.shape == (128, 128, 267)
    assert volume.data.max() == pytest.approx(66.5, abs=0.05)
    assert volume.source["spacing"] == "unequal, 3.19 to 3.29 mm, resampled to 3.27 mm by position"
    np.testing.assert_allclose(volume.voxel_mm, (4.6875, 4.6875, 3.27), atol=1e-4)


def test_nested_folders_zips_and_other_files(tmp_path, stored):
    paths = write_series(tmp_path / "s" / "deep" / "deeper", stored)
    (tmp_path / "s" / "README").write_text("not DICOM")
    (tmp_path / "s" / ".hidden.dcm").write_text("neither")
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as archive:
        for path in paths:
            archive.write(path, f"a/b/{path.name}")
            archive.writestr(f"__MACOSX/a/b/._{path.name}", "what macOS puts beside each file")
    for name in ("s", "s.zip"):
        np.testing.assert_allclose(load_volume(tmp_path / name).data, stored * SUV_PER_BQML, rtol=1e-6)


def test_one_pet_series_among_others_is_found(tmp_path, stored):
    write_series(tmp_path / "s" / "ct", stored, Modality="CT")
    write_series(tmp_path / "s" / "nac", stored, CorrectedImage=["DECY"])
    write_series(tmp_path / "s" / "pet", stored)
    np.testing.assert_allclose(load_volume(tmp_path / "s").data, stored * SUV_PER_BQML, rtol=1e-6)


def test_several_pet_series_are_listed_and_can_be_chosen(tmp_path, stored):
    write_series(tmp_path / "s" / "a", stored, SeriesNumber=4, uid="1.2.3.4")
    write_series(tmp_path / "s" / "b", stored // 2, SeriesNumber=7, uid="1.2.3.7")
    with pytest.raises(InputError, match=r"2 PET series.*--series.*number 4 .*1\.2\.3\.4.*number 7 .*6 slices"):
        load_volume(tmp_path / "s")
    for series in ("7", "1.2.3.7"):
        volume = load_volume(tmp_path / "s", series=series)
        np.testing.assert_allclose(volume.data, stored // 2 * SUV_PER_BQML, rtol=1e-6)
    with pytest.raises(InputError, match=r"--series 9 fits 0 series.*number 4"):
        load_volume(tmp_path / "s", series="9")


def test_overrides_are_used_and_recorded(tmp_path, stored):
    write_series(tmp_path / "s", stored, PatientWeight="0")
    with pytest.raises(SUVError, match=r"s: no SUV: PatientWeight \(0010,1030\) is '0'"):
        load_volume(tmp_path / "s")
    volume = load_volume(tmp_path / "s", overrides=SUVOverrides(weight_kg=35))
    np.testing.assert_allclose(volume.data, stored * SUV_PER_BQML / 2, rtol=1e-6)
    assert volume.source["suv_overrides"] == {"weight_kg": 35}
    assert volume.source["suv_factor"] == pytest.approx(SUV_PER_BQML / 2)


def test_compressed_pixels_are_read_or_the_missing_decoder_is_named(tmp_path, stored):
    paths = write_series(tmp_path / "rle", stored)
    for path in paths:
        dataset = pydicom.dcmread(path)
        dataset.compress(pydicom.uid.RLELossless)
        dataset.save_as(path)
    np.testing.assert_allclose(load_volume(tmp_path / "rle").data, stored * SUV_PER_BQML, rtol=1e-6)
    for path in write_series(tmp_path / "j2k", stored):
        dataset = pydicom.dcmread(path)
        dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
        dataset.PixelData = pydicom.encaps.encapsulate([b"\xff\x4f\xff\x51" + bytes(200)])
        dataset["PixelData"].is_undefined_length = True
        dataset.save_as(path)
    with pytest.raises(InputError, match=r"no decoder for its compression \(JPEG 2000.*pip install"):
        load_volume(tmp_path / "j2k")


def test_a_private_transfer_syntax_is_named(tmp_path, stored):
    """GE's for implicit data with big-endian pixels, which no package decodes."""
    for path in write_series(tmp_path / "s", stored, syntax=ImplicitVRLittleEndian):
        whole = path.read_bytes()
        assert whole.count(b"1.2.840.10008.1.2\0") == 1
        path.write_bytes(whole.replace(b"1.2.840.10008.1.2\0", b"1.2.840.113619.5.2"))
    with pytest.raises(InputError, match=r"transfer syntax \(1\.2\.840\.113619\.5\.2\) is none of the standard's; exp"):
        load_volume(tmp_path / "s")


def _drop_slice(paths):
    paths[2].unlink()


def _copy_slice(paths):
    """Another slice at the same place: a copy of its header with other voxels."""
    dataset = pydicom.dcmread(paths[2])
    dataset.PixelData = dataset.PixelData[:-1] + b"\x07"
    dataset.save_as(paths[0].parent / "copy.dcm")


def _turn_slice(paths):
    dataset = pydicom.dcmread(paths[2])
    dataset.ImageOrientationPatient = list(CORONAL)
    dataset.save_as(paths[2])


def _other_spacing(paths):
    dataset = pydicom.dcmread(paths[2])
    dataset.PixelSpacing = [5.0, 4.1]
    dataset.save_as(paths[2])


def _move_slice(paths):
    dataset = pydicom.dcmread(paths[2])
    dataset.ImagePositionPatient = [-48, *dataset.ImagePositionPatient[1:]]
    dataset.save_as(paths[2])


def _truncate_pixels(paths):
    paths[2].write_bytes(paths[2].read_bytes()[:-20])


def _truncate_header(paths):
    paths[2].write_bytes(paths[2].read_bytes()[:500])


def _text_file(paths):
    (paths[0].parent / "notes.dcm").write_text("Dear colleague, " * 40)


def _huge_header(paths):
    for path in paths:
        dataset = pydicom.dcmread(path)
        dataset.Rows = dataset.Columns = 65535
        dataset.save_as(path)


def _no_position(paths):
    dataset = pydicom.dcmread(paths[2])
    del dataset.ImagePositionPatient
    dataset.save_as(paths[2])


def _multi_frame(paths):
    dataset = pydicom.dcmread(paths[0])
    for path in paths[1:]:
        path.unlink()
    dataset.NumberOfFrames = 6
    dataset.save_as(paths[0])


def _no_slope(paths):
    dataset = pydicom.dcmread(paths[2])
    del dataset.RescaleSlope
    dataset.save_as(paths[2])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_drop_slice, r"0005.dcm and .*0003.dcm: 6 mm apart where others are 3 mm; slices are missing"),
        (_copy_slice, r"0004.dcm and .*copy.dcm|copy.dcm and .*0004.dcm: two slices at the same place"),
        (_turn_slice, r"0004.dcm.*different orientation"),
        (_other_spacing, r"0004.dcm.*different pixel spacing"),
        (_move_slice, r"do not lie along one line"),
        (_truncate_pixels, r"0004.dcm: its pixel data are missing or truncated"),
        (_truncate_header, r"0004.dcm: is .*(truncated|damaged)"),
        (_text_file, r"notes.dcm: is no DICOM file"),
        (_huge_header, r"65535 x 65535 x 6 voxels"),
        (_no_position, r"0004.dcm: ImagePositionPatient \(0020,0032\) is missing; export"),
        (_multi_frame, r"multi-frame"),
        (_no_slope, r"0004.dcm: RescaleSlope \(0028,1053\) is missing"),
    ],
)
def test_what_is_wrong_with_a_series_is_named(tmp_path, stored, spoil, message):
    paths = write_series(tmp_path / "s", stored)
    spoil(paths)
    with pytest.raises(InputError, match=message) as caught:
        load_volume(tmp_path / "s")
    _is_one_line_without_the_patient(caught)


@pytest.mark.parametrize("modality", ["CT", "NM"])
def test_other_modalities_are_refused(tmp_path, stored, modality):
    write_series(tmp_path / "s", stored, Modality=modality)
    with pytest.raises(InputError, match=rf"Modality \(0008,0060\) is '{modality}', not PT") as caught:
        load_volume(tmp_path / "s")
    _is_one_line_without_the_patient(caught)
    with pytest.raises(InputError, match="not PT"):
        load_volume(tmp_path / "s", series="4")


def test_a_name_in_place_of_a_modality_is_not_quoted(tmp_path, stored):
    for number in (4, 7):
        folder = tmp_path / "s" / str(number)
        write_series(folder, stored, Modality="Sentinel^S", SeriesNumber=number, uid=f"1.2.{number}")
    for series, message in (("4", r"Modality \(0008,0060\) is no value of its kind"), ("9", r"number 4 \(no value of")):
        with pytest.raises(InputError, match=message) as caught:
            load_volume(tmp_path / "s", series=series)
        _is_one_line_without_the_patient(caught)


def test_hostile_zips_are_not_opened(tmp_path, stored):
    paths = write_series(tmp_path / "s", stored)
    for name, member in (("up.zip", "../../0001.dcm"), ("back.zip", "..\\0001.dcm"), ("root.zip", "/tmp/0001.dcm")):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr(zipfile.ZipInfo(member), paths[0].read_bytes())
        with pytest.raises(InputError, match=f"{name}: holds a member that points outside"):
            load_volume(tmp_path / name)
    (tmp_path / "text.zip").write_text("no zip")
    with pytest.raises(InputError, match=r"no complete \.zip"):
        load_volume(tmp_path / "text.zip")
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    with pytest.raises(InputError, match="no DICOM files"):
        load_volume(tmp_path / "empty.zip")


def test_values_that_break_the_standard_print_no_lines(tmp_path, stored, recwarn):
    odd = {"FrameOfReferenceUID": "1.2.840.00123.05", "PatientID": "X" * 90}
    paths = write_series(tmp_path / "s", stored)
    for path in paths:
        dataset = pydicom.dcmread(path)
        for keyword, value in odd.items():
            setattr(dataset, keyword, value)
        dataset.save_as(path)
    shutil.copy(paths[3], tmp_path / "s" / "copy.dcm")
    recwarn.clear()  # pydicom warned while the test wrote that
    np.testing.assert_allclose(load_volume(tmp_path / "s").data, stored * SUV_PER_BQML, rtol=1e-6)
    assert not list(recwarn)


def test_control_characters_and_names_never_reach_a_message(tmp_path, stored, recwarn, capfd):
    write_series(tmp_path / "s", stored, PatientName="Sentinel\x1b[31m\x07^Secret", Units="EV\x1bIL\n\r" + "x" * 99)
    recwarn.clear()  # pydicom warned while the test wrote that
    capfd.readouterr()
    with pytest.raises(SUVError, match=r"Units \(0054,1001\) is no value of its kind \(106 ch") as caught:
        load_volume(tmp_path / "s")
    _is_one_line_without_the_patient(caught)
    assert not [w for w in recwarn if "Sentinel" in str(w.message)]
    assert capfd.readouterr() == ("", "")


def _is_one_line_without_the_patient(caught):
    message = str(caught.value)
    assert message.isprintable()
    assert "Sentinel" not in message
    assert "1948" not in message


@pytest.mark.parametrize("keyword", ["PatientSize", "DecayFactor", "FrameReferenceTime"])
def test_a_number_that_is_none_counts_as_missing(tmp_path, stored, keyword):
    write_series(tmp_path / "s", stored, **{keyword: None})
    expected = load_volume(tmp_path / "s").data
    paths = write_series(tmp_path / "nan", stored, **{keyword: None})
    for path in paths:
        content = path.read_bytes()
        dataset = pydicom.dcmread(path)
        dataset.add(pydicom.DataElement(keyword, "DS", "1.0"))
        dataset.save_as(path)
        content = path.read_bytes()
        tag = pydicom.tag.Tag(keyword)
        place = content.index(tag.group.to_bytes(2, "little") + tag.element.to_bytes(2, "little") + b"DS")
        path.write_bytes(content[: place + 8] + b"NaN " + content[place + 12 :])
    np.testing.assert_array_equal(load_volume(tmp_path / "nan").data, expected)
