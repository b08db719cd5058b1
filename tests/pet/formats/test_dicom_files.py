"""Every file of a DICOM folder is used or named: what is read without a header, what is refused, what is left out."""

import gzip
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pytest

from guided_diffusion.errors import InputError
from guided_diffusion.pet.volume import load_volume
from tests.dicom_series import write_series

SUV_PER_BQML = 4e-4  # of tests.dicom_series.pet_header


@pytest.fixture
def stored():
    return np.random.default_rng(0).permutation(5 * 7 * 6).reshape(5, 7, 6).astype(np.int16) * 100


def same_voxels(folder: Path, stored: np.ndarray, **how) -> list[str]:
    """Compares what is loaded with the stored values, and returns the notices."""
    volume = load_volume(folder, **how)
    np.testing.assert_allclose(volume.data, stored * SUV_PER_BQML, rtol=1e-6)
    return volume.source["notices"]


def without_part10(path: Path, keep_meta: bool = False, implicit: bool = True) -> None:
    dataset = pydicom.dcmread(path)
    if keep_meta:
        path.write_bytes(path.read_bytes()[132:])
        return
    del dataset.file_meta
    dataset.preamble = None
    dataset.save_as(path, implicit_vr=implicit, little_endian=True, enforce_file_format=False)


@pytest.mark.parametrize("how", [{}, {"implicit": False}, {"keep_meta": True}])
@pytest.mark.parametrize("pattern", ["{}.dcm", "IM{}", "{}.IMA", "scan{}.xyz"])
def test_files_without_a_part10_header_are_read(tmp_path, stored, how, pattern):
    for k, path in enumerate(write_series(tmp_path / "s", stored)):
        without_part10(path, **how)
        path.rename(tmp_path / "s" / pattern.format(k))
    assert same_voxels(tmp_path / "s", stored) == []


def test_gzipped_slices_are_read(tmp_path, stored):
    for path in write_series(tmp_path / "s", stored):
        path.with_suffix(".dcm.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert same_voxels(tmp_path / "s", stored) == []


@pytest.mark.parametrize("content", [b"", b"not an image", b"DICM"])
@pytest.mark.parametrize("pattern", ["IM{}", "1.2.840.99.{}", "{:016x}"])
def test_a_ruined_slice_without_a_suffix_is_no_stray_file(tmp_path, stored, content, pattern):
    """The last slice is damaged: without a word the series would just be shorter."""
    paths = write_series(tmp_path / "s", stored)
    names = [pattern.format(200 + 37 * k) for k in range(len(paths))]
    for path, name in zip(paths, names, strict=True):
        path.rename(path.with_name(name))
    (tmp_path / "s" / names[-1]).write_bytes(content)
    state = "is no DICOM file" if content else "is empty"
    with pytest.raises(InputError, match=rf"s/{names[-1]}: {state} although it is called like the slices beside it"):
        load_volume(tmp_path / "s")


@pytest.mark.parametrize("kept", [0, 4])
@pytest.mark.parametrize("by_icloud", [True, False])
def test_slices_whose_content_is_elsewhere_are_missed(tmp_path, stored, by_icloud, kept):
    """Of git-annex, whose links lead to nothing until it fetches, or of iCloud, which leaves placeholders."""
    for path in sorted(write_series(tmp_path / "s", stored))[kept:]:
        path.unlink()
        if by_icloud:
            path.with_name(f".{path.name}.icloud").write_bytes(b"bplist00")
        else:
            path.symlink_to(f"../.git/annex/objects/{path.name}")
    state = "not downloaded from iCloud" if by_icloud else "a link to nothing"
    beside = " although it is called like the slices beside it" if kept else ""
    with pytest.raises(InputError, match=rf"s/000{kept + 1}\.dcm: is {state}{beside}; fetch its content"):
        load_volume(tmp_path / "s")


@pytest.mark.parametrize("length", [9, 60, 140, 400, 600, 800])
def test_a_slice_cut_off_in_its_header_is_named(tmp_path, stored, length):
    paths = write_series(tmp_path / "s", stored)
    for path in paths:
        without_part10(path)
    cut = paths[-1].rename(paths[-1].with_name("last"))
    cut.write_bytes(cut.read_bytes()[:length])
    with pytest.raises(InputError, match=r"s/last\b"):
        load_volume(tmp_path / "s")


@pytest.mark.parametrize("length", [9, 100, 600])
def test_zeros_are_a_slice_that_was_cut_off_whatever_the_name(tmp_path, stored, length):
    write_series(tmp_path / "s", stored)
    (tmp_path / "s" / "last").write_bytes(bytes(length))
    with pytest.raises(InputError, match=r"s/last: begins with zeros"):
        load_volume(tmp_path / "s")


def test_stray_files_are_left_out_by_name_and_reason(tmp_path, stored):
    paths = write_series(tmp_path / "s", stored)
    folder = tmp_path / "s"
    for name in ("LICENSE", "metadata.csv"):
        (folder / name).write_text("text")
    (folder / "empty").touch()
    np.savez(folder / "mask.npz", np.ones((3, 3, 3)))
    os.mkfifo(folder / "pipe.dcm")
    os.symlink(folder / "nowhere", folder / "dangling")
    os.symlink(tmp_path, folder / "up")
    (folder / "circle").mkdir()
    os.symlink(folder / "circle", folder / "circle" / "again")
    assert same_voxels(folder, stored) == [
        "left out (no regular file): pipe.dcm",
        "left out (a link to nothing): dangling",
        "left out (a link to a folder around this one): up",
        "left out (a link to a folder that is read already): circle/again",
        "left out (no DICOM file): LICENSE, mask.npz, metadata.csv",
        "left out (empty): empty",
    ]
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as archive:
        for path in paths:
            archive.write(path, path.name)
        archive.writestr("__MACOSX/._x", "what macOS puts beside each file")
        archive.writestr("README", "text")
    assert same_voxels(tmp_path / "s.zip", stored) == [
        "left out (hidden): ._x",
        "left out (no DICOM file): README",
    ]


def test_names_of_folders_in_a_zip_are_not_shown(tmp_path, stored):
    """Exports call them by the patient. Series in folders with files of equal names stay apart."""
    paths = write_series(tmp_path / "s", stored)
    others = write_series(tmp_path / "other", stored * 2, Modality="CT", SeriesNumber=5)
    with zipfile.ZipFile(tmp_path / "export.zip", "w") as archive:
        for path, other in zip(paths, others, strict=True):
            archive.write(path, f"DOE^JOHN 19500101/PT/{path.name}")
            archive.write(other, f"DOE^JOHN 19500101/CT/{other.name}")
        archive.writestr("DOE^JOHN 19500101/report.pdf", b"%PDF-1.4")
    left_out, another = same_voxels(tmp_path / "export.zip", stored)
    assert left_out == "left out (no DICOM file): folder 1/report.pdf"
    assert another.startswith("left out (another series): number 5 (CT, 6 slices")
    with zipfile.ZipFile(tmp_path / "export.zip", "a") as archive:
        archive.writestr("DOE^JOHN 19500101/PT/x.dcm", b"text")
    with pytest.raises(InputError, match=r"export\.zip:folder 3/x\.dcm: is no DICOM file") as caught:
        load_volume(tmp_path / "export.zip")
    assert "DOE" not in str(caught.value)


def test_linked_files_and_folders_are_read(tmp_path, stored):
    write_series(tmp_path / "store" / "pet", stored)
    (tmp_path / "study").mkdir()
    os.symlink(tmp_path / "store" / "pet", tmp_path / "study" / "PET")
    os.symlink(tmp_path / "store", tmp_path / "study" / "again")
    (tmp_path / "files").mkdir()
    for path in (tmp_path / "store" / "pet").iterdir():
        os.symlink(path, tmp_path / "files" / path.name)
    assert same_voxels(tmp_path / "files", stored) == []
    (notice,) = same_voxels(tmp_path / "study", stored)
    assert notice == "left out (a link to a folder that is read already): again/pet"


def test_copies_are_taken_once(tmp_path, stored):
    paths = write_series(tmp_path / "s", stored)
    shutil.copy(paths[3], tmp_path / "s" / "0003(1).dcm")
    assert same_voxels(tmp_path / "s", stored) == ["left out (a copy of a slice that is taken): 0003.dcm"]
    shutil.copytree(tmp_path / "s", tmp_path / "s" / "again")
    (notice,) = same_voxels(tmp_path / "s", stored)
    assert notice.startswith("left out (a copy of a slice that is taken): 0003.dcm, again/0001.dcm")


def test_a_copy_in_another_transfer_syntax_or_without_a_uid_is_a_copy(tmp_path, stored):
    paths = write_series(tmp_path / "s", stored)
    without_part10(Path(shutil.copy(paths[0], tmp_path / "s" / "a.dcm")))
    for path in (paths[1], tmp_path / "s" / "b.dcm"):
        dataset = pydicom.dcmread(paths[1])
        if "SOPInstanceUID" in dataset:
            del dataset.SOPInstanceUID, dataset.file_meta.MediaStorageSOPInstanceUID
        dataset.save_as(path, enforce_file_format=False)
    assert same_voxels(tmp_path / "s", stored) == ["left out (a copy of a slice that is taken): a.dcm, b.dcm"]


def test_a_copy_under_another_uid_is_a_copy_and_other_pixels_are_not(tmp_path, stored):
    for number, path in enumerate(write_series(tmp_path / "s", stored), start=1):
        dataset = pydicom.dcmread(path)
        dataset.SOPInstanceUID, dataset.InstanceNumber = f"1.2.3.{number}", 6 + number
        dataset.save_as(tmp_path / "s" / f"again{number}.dcm")
    (notice,) = same_voxels(tmp_path / "s", stored)
    assert notice.startswith("left out (a copy of a slice that is taken): again1.dcm, again2.dcm")
    dataset.PixelData = bytes(len(dataset.PixelData))
    dataset.save_as(tmp_path / "s" / "again6.dcm")
    with pytest.raises(InputError, match=r"again6\.dcm: two slices at the same place"):
        load_volume(tmp_path / "s")


@pytest.mark.parametrize("name", ["a{}.dcm", "z{}.dcm"])
@pytest.mark.parametrize(
    ("keyword", "kind", "value"),
    [
        ("RescaleSlope", "DS", "1.25"),
        ("RescaleIntercept", "DS", "40"),
        ("PixelPaddingValue", "SS", 2000),
        ("PixelRepresentation", "US", 0),
    ],
)
def test_equal_pixels_that_stand_for_other_values_are_no_copies(tmp_path, stored, keyword, kind, value, name):
    """As a series and the same recalibrated, or the gates of a scan: neither is taken by the order of its names."""
    for number, path in enumerate(write_series(tmp_path / "s", stored - 5000)):
        dataset = pydicom.dcmread(path)
        dataset.add_new(keyword, kind, value)
        dataset.save_as(tmp_path / "s" / name.format(number))
    with pytest.raises(InputError, match=r"\.dcm: two slices at the same place; remove the copy"):
        load_volume(tmp_path / "s")


def test_a_copy_may_write_its_slope_otherwise(tmp_path, stored):
    for number, path in enumerate(write_series(tmp_path / "s", stored)):
        dataset = pydicom.dcmread(path)
        dataset.RescaleSlope, dataset.RescaleIntercept = "1.000", "0.0"
        dataset.save_as(tmp_path / "s" / f"z{number}.dcm")
    (notice,) = same_voxels(tmp_path / "s", stored)
    assert notice.startswith("left out (a copy of a slice that is taken): z0.dcm")


@pytest.mark.parametrize("missing", [0, 5])
def test_slices_missing_at_an_end_are_noticed_by_their_number(tmp_path, stored, missing):
    paths = write_series(tmp_path / "s", stored, NumberOfSlices=6)
    assert same_voxels(tmp_path / "s", stored) == []
    paths[missing].unlink()
    with pytest.raises(InputError, match=r"holds 5 slices, but NumberOfSlices \(0054,0081\) is 6: slices are missing"):
        load_volume(tmp_path / "s")
    dataset = pydicom.dcmread(paths[2])
    dataset.NumberOfSlices = 7
    dataset.save_as(paths[2])
    with pytest.raises(InputError, match=r"holds 5 slices, but NumberOfSlices \(0054,0081\) is 6: slices are missing"):
        load_volume(tmp_path / "s")


def scramble(paths: list[Path], *keywords: str) -> None:
    for path in paths:
        dataset = pydicom.dcmread(path)
        for keyword in keywords:
            setattr(dataset, keyword, pydicom.uid.generate_uid())
        dataset.save_as(path)


@pytest.mark.parametrize("more", [(), ("StudyInstanceUID", "FrameOfReferenceUID", "SOPInstanceUID")])
def test_slices_with_a_series_uid_each_are_taken_together_by_number(tmp_path, stored, more):
    scramble(write_series(tmp_path / "s", stored), "SeriesInstanceUID", *more)
    with pytest.raises(InputError, match=r"each of 6 PET slices has a SeriesInstanceUID .*--series .* together: 4$"):
        load_volume(tmp_path / "s")
    assert same_voxels(tmp_path / "s", stored, series="4") == []
    with pytest.raises(InputError, match="--series 5 fits 0 series") as caught:
        load_volume(tmp_path / "s", series="5")
    assert len(str(caught.value)) < 800


def test_two_scrambled_series_are_told_apart_by_number(tmp_path, stored):
    scramble(write_series(tmp_path / "s" / "a", stored), "SeriesInstanceUID")
    scramble(write_series(tmp_path / "s" / "b", stored // 2, SeriesNumber=7), "SeriesInstanceUID")
    with pytest.raises(InputError, match=r"each of 12 PET slices .* together: 4, 7$"):
        load_volume(tmp_path / "s")
    (notice,) = same_voxels(tmp_path / "s", stored // 2, series="7")
    assert notice.startswith("left out (another series): number 4 (PT, 1 slices")
    assert notice.count("number 4 (PT, 1 slices") == 6


def test_a_scrambled_series_without_number_says_so(tmp_path, stored):
    scramble(write_series(tmp_path / "s", stored, SeriesNumber=""), "SeriesInstanceUID")
    with pytest.raises(InputError, match=r"no SeriesNumber \(0020,0011\) tells which belong together"):
        load_volume(tmp_path / "s")


def test_other_series_are_named_and_one_that_this_program_derived_does_not_count(tmp_path, stored):
    write_series(tmp_path / "s" / "ct", stored, Modality="CT", SOPClassUID="1.2.840.10008.5.1.4.1.1.2", uid="1.2.9")
    write_series(tmp_path / "s" / "pet", stored, uid="1.2.3")
    derived = {"DerivationDescription": "Denoised by PET-3D-DDPM with the model m.", "uid": "1.2.4", "SeriesNumber": 9}
    write_series(tmp_path / "s" / "derived", stored // 2, **derived)
    (notice,) = same_voxels(tmp_path / "s", stored)
    assert "number 4 (CT, 6 slices, UID 1.2.9)" in notice
    assert "number 9 (PT, 6 slices, UID 1.2.4)" in notice
    assert "1.2.3" not in notice.replace("1.2.9", "").replace("1.2.4", "")
    same_voxels(tmp_path / "s" / "derived", stored // 2)
    assert len(same_voxels(tmp_path / "s", stored // 2, series="9")) == 1


def test_a_slice_whose_value_representation_is_none_is_refused(tmp_path, stored):
    """Found by fuzzing: the library decodes this tag only when others are compared."""
    paths = write_series(tmp_path / "s", stored)
    whole = paths[1].read_bytes()
    assert whole.count(b"\x28\x00\x03\x01US") == 1
    paths[1].write_bytes(whole.replace(b"\x28\x00\x03\x01US", b"\x28\x00\x03\x01QS"))
    with pytest.raises(InputError, match=f"{paths[1].name}: its pixel data are missing or truncated"):
        load_volume(tmp_path / "s")
