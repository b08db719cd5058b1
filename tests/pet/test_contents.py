"""What a path holds: a scan, or subjects; what lies beside is left out by name; two readings are refused."""

import json
import os
import shutil
import zipfile

import nibabel as nib
import numpy as np
import pydicom
import pytest

from guided_diffusion.errors import InputError
from guided_diffusion.image_datasets import find_pairs
from guided_diffusion.pet.contents import contents_of, names_of
from guided_diffusion.pet.volume import load_volume
from tests.dicom_series import write_series

STORED = np.random.default_rng(0).integers(500, 9000, (4, 5, 6)).astype(np.int16)
SUV = (STORED * 4e-4).astype(np.float32)


def nifti(path, suv=SUV, kind=nib.Nifti1Image):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(kind(suv, np.diag([-4.0, -4, 4, 1])), path)
    return path


def series(folder, study="1.2.3", patient="A", **changes):
    return write_series(folder, STORED, StudyInstanceUID=study, PatientID=patient, **changes)


def set_study(paths, **changes):
    for path in paths:
        dataset = pydicom.dcmread(path)
        for keyword, value in changes.items():
            setattr(dataset, keyword, value)
        dataset.save_as(path)


def scan_names(folder, **how):
    found = contents_of(folder, **how)
    return names_of(found.scans, folder), list(found.notices)


def patient(folder, number):
    set_study(write_series(folder, STORED), StudyInstanceUID=f"1.2.{number}", PatientID=f"P{number}")


def test_slices_count_before_volumes_and_archives_beside_them(tmp_path):
    write_series(tmp_path, STORED)
    nifti(tmp_path / "4_PET_WB.nii.gz", SUV * 2.5)
    nifti(tmp_path / "converted" / "x.nii.gz", SUV * 2.5)
    (tmp_path / "4_PET_WB.json").write_text("{}")
    with zipfile.ZipFile(tmp_path / "notes.zip", "w") as archive:
        archive.writestr("readme.txt", "x")
    assert contents_of(tmp_path).scans == (tmp_path,)
    volume = load_volume(tmp_path)
    np.testing.assert_allclose(volume.data, SUV, rtol=1e-5)
    assert volume.source["notices"] == [
        "left out (no DICOM file): 4_PET_WB.json, 4_PET_WB.nii.gz, notes.zip, converted/x.nii.gz"
    ]


@pytest.mark.parametrize("stray", ["LICENSE", "metadata.csv", "manifest.csv", "notes.zip", "report.pdf"])
def test_a_stray_file_does_not_merge_patients(tmp_path, stray):
    for number in (1, 2):
        patient(tmp_path / f"P{number}" / "pet", number)
    if stray.endswith("zip"):
        with zipfile.ZipFile(tmp_path / stray, "w") as archive:
            archive.writestr("readme.txt", "x")
    else:
        (tmp_path / stray).write_text("Series UID,Collection\n1,2\n")
    names, notices = scan_names(tmp_path)
    assert names == ["P1", "P2"]
    reason = "no DICOM in the zip" if stray.endswith("zip") else "no image that is known"
    assert notices == [f"left out ({reason}): {stray}"]
    with pytest.raises(InputError, match=r"holds 2 scans; give the path of one: P1, P2"):
        load_volume(tmp_path)


def test_patients_that_share_a_study_uid_are_two(tmp_path):
    """As careless anonymisers leave them."""
    for number in (1, 2):
        set_study(write_series(tmp_path / f"P{number}", STORED), StudyInstanceUID="1.2.3", PatientID=f"P{number}")
    assert scan_names(tmp_path)[0] == ["P1", "P2"]
    for number in (1, 2):
        set_study((tmp_path / f"P{number}").iterdir(), PatientID="anonymous")
    assert contents_of(tmp_path).scans == (tmp_path,)


def test_a_study_with_masks_and_ct_is_one_scan(tmp_path):
    write_series(tmp_path / "PT", STORED)
    write_series(tmp_path / "CT", STORED, Modality="CT", SOPClassUID="1.2.840.10008.5.1.4.1.1.2")
    nifti(tmp_path / "seg.nii.gz")
    nifti(tmp_path / "tumour.nii.gz", (SUV > 1).astype(np.uint8))
    assert contents_of(tmp_path).scans == (tmp_path,)
    notices = load_volume(tmp_path).source["notices"]
    assert "(CT, 6 slices" in notices[-1]
    assert "left out (no DICOM file): seg.nii.gz, tumour.nii.gz" in notices


def test_a_patient_without_pet_is_named_among_others(tmp_path):
    for number in (1, 2, 3):
        patient(tmp_path / f"P{number}", number)
    set_study((tmp_path / "P2").iterdir(), Modality="CT", SOPClassUID="1.2.840.10008.5.1.4.1.1.2")
    assert scan_names(tmp_path) == (["P1", "P3"], ["left out (DICOM, but no PET): P2"])


def test_studies_of_one_patient_are_a_scan_each(tmp_path):
    for number, name in enumerate(("baseline", "follow-up")):
        set_study(write_series(tmp_path / "A" / name, STORED), StudyInstanceUID=f"1.2.{number}", PatientID="A")
    assert scan_names(tmp_path)[0] == ["A/baseline", "A/follow-up"]


def test_one_dicom_scan_beside_a_volume_may_be_read_in_two_ways(tmp_path):
    patient(tmp_path / "P1", 1)
    nifti(tmp_path / "P2.nii.gz")
    message = r"may be one DICOM study \(P1\) .* or several subjects \(P1, P2\.nii\.gz\); give the path of the one"
    with pytest.raises(InputError, match=message):
        contents_of(tmp_path)
    patient(tmp_path / "P3", 3)
    assert scan_names(tmp_path) == (["P1", "P2", "P3"], [])


def test_bids_and_a_folder_per_patient_are_a_scan_per_volume(tmp_path):
    for subject in ("01", "02"):
        nifti(tmp_path / "flat" / f"sub-{subject}" / "pet.nii.gz")
        nifti(tmp_path / "bids" / f"sub-{subject}" / "pet" / f"sub-{subject}_pet.nii.gz")
        nifti(tmp_path / "bids" / f"sub-{subject}" / "anat" / f"sub-{subject}_T1w.nii.gz")
        (tmp_path / "bids" / f"sub-{subject}" / "pet" / f"sub-{subject}_pet.json").write_text("{}")
    for session in ("1", "2"):
        nifti(tmp_path / "bids" / "sub-03" / f"ses-{session}" / "pet" / f"sub-03_ses-{session}_pet.nii.gz")
    nifti(tmp_path / "bids" / "derivatives" / "sub-01" / "sub-01_pet.nii.gz")
    (tmp_path / "bids" / "dataset_description.json").write_text("{}")
    assert scan_names(tmp_path / "flat") == (["sub-01", "sub-02"], [])
    names, notices = scan_names(tmp_path / "bids")
    assert names == ["sub-01", "sub-02", "sub-03/ses-1", "sub-03/ses-2"]
    assert notices == [
        "left out (no image that is known): dataset_description.json, sub-01/pet/sub-01_pet.json,"
        " sub-02/pet/sub-02_pet.json",
        "left out (of a BIDS data set, not a subject): derivatives",
        "left out (by its name no PET): sub-01/anat/sub-01_T1w.nii.gz, sub-02/anat/sub-02_T1w.nii.gz",
    ]


def test_nnunet_keeps_its_pet_channel_by_dataset_json(tmp_path):
    for case in ("a", "b"):
        for channel in ("0000", "0001"):
            nifti(tmp_path / "imagesTr" / f"{case}_{channel}.nii.gz")
        nifti(tmp_path / "labelsTr" / f"{case}.nii.gz", (SUV > 1).astype(np.uint8))
    (tmp_path / "dataset.json").write_text(json.dumps({"channel_names": {"0": "CT", "1": "PET"}}))
    names, notices = scan_names(tmp_path)
    assert names == ["imagesTr/a_0001", "imagesTr/b_0001"]
    assert notices == [
        "left out (no image that is known): dataset.json",
        "left out (by dataset.json no PET channel): imagesTr/a_0000.nii.gz, imagesTr/b_0000.nii.gz",
        "left out (by its name a mask): labelsTr/a.nii.gz, labelsTr/b.nii.gz",
    ]


def test_maps_projections_and_uncorrected_images_are_no_scans_though_called_pet(tmp_path):
    for name in (
        "a/PET_AC", "a/PET_NAC", "a/PET_MIP", "a/PET_umap", "a/mu-map", "a/attenuation_map", "b/AC/pet", "b/NAC/pet",
        "c/SUV", "c/PET", "d/sub-01_rec-acstat_pet", "d/sub-01_rec-nacstat_pet", "e/PET", "f/AC_and_NAC/pet_ac",
    ):  # fmt: skip
        nifti(tmp_path / f"{name}.nii.gz")
    names, notices = scan_names(tmp_path)
    assert names == ["a", "b", "c", "d", "e", "f"]
    assert [scan.name for scan in contents_of(tmp_path).scans if scan.parent.name == "c"] == ["SUV.nii.gz"]
    assert notices == [
        "left out (by its name a projection): a/PET_MIP.nii.gz",
        "left out (by its name without attenuation correction): a/PET_NAC.nii.gz, b/NAC/pet.nii.gz,"
        " d/sub-01_rec-nacstat_pet.nii.gz",
        "left out (by its name a map of attenuation): a/PET_umap.nii.gz, a/attenuation_map.nii.gz, a/mu-map.nii.gz",
        "left out (beside the scan in SUV): c/PET.nii.gz",
    ]
    np.testing.assert_allclose(load_volume(tmp_path / "a" / "PET_NAC.nii.gz").data, SUV)  # as asked for


def test_masks_are_told_by_what_they_hold(tmp_path):
    """By a few whole numbers without a scale, in whatever type; an image in scaled whole numbers is none."""
    nifti(tmp_path / "a" / "tumour.nii.gz", (SUV > 1).astype(np.uint8))
    nifti(tmp_path / "a" / "lesions.nii.gz", (SUV > 1).astype(np.int16) * 7)
    nifti(tmp_path / "a" / "free.mgz", (SUV > 1).astype(np.int32), nib.MGHImage)
    image = nib.Nifti1Image(np.arange(120, dtype=np.int16).reshape(4, 5, 6), np.eye(4))
    image.header.set_slope_inter(0.05, 0)
    nib.save(image, tmp_path / "a" / "image.nii.gz")
    nifti(tmp_path / "b" / "floats.nii")
    names, notices = scan_names(tmp_path)
    assert names == ["a", "b"]
    assert notices == [
        "left out (whole numbers without a scale, as in a mask): a/free.mgz, a/lesions.nii.gz, a/tumour.nii.gz"
    ]


def test_capital_suffixes_pairs_and_other_formats_are_seen(tmp_path):
    nifti(tmp_path / "A.NII.GZ")
    nifti(tmp_path / "b.img", kind=nib.Nifti1Pair)
    nifti(tmp_path / "c.mgz", kind=nib.MGHImage)
    nifti(tmp_path / "d.img", kind=nib.Spm99AnalyzeImage)
    shutil.copy(os.path.join(os.path.dirname(nib.__file__), "tests", "data", "tinypet.v"), tmp_path / "e.V")
    names, notices = scan_names(tmp_path)
    assert (names, notices) == (["A", "b", "c", "d", "e"], [])


def test_linked_and_zipped_subjects_are_read(tmp_path):
    patient(tmp_path / "store" / "x", 1)
    (tmp_path / "all").mkdir()
    os.symlink(tmp_path / "store" / "x", tmp_path / "all" / "P1")
    os.symlink(tmp_path / "all", tmp_path / "all" / "circle")
    with zipfile.ZipFile(tmp_path / "all" / "P2.ZIP", "w") as archive:
        for path in write_series(tmp_path / "y", STORED):
            archive.write(path, f"deep/{path.name}")
    names, notices = scan_names(tmp_path / "all")
    assert (names, notices) == (["P1", "P2"], ["left out (a link to a folder around this one): circle"])
    for scan in contents_of(tmp_path / "all").scans:
        np.testing.assert_allclose(load_volume(scan).data, SUV, rtol=1e-5)


def write_results(folder, finished=True):
    """What a run leaves: a manifest, a log, volumes and a derived series."""
    nifti(folder / "denoised.nii.gz", SUV / 2)
    nifti(folder / "uncertainty.nii.gz", SUV / 9)
    np.savez(folder / "samples_4x5x6.npz", SUV / 16)
    derived = {"DerivationDescription": "Denoised by PET-3D-DDPM with the model m.", "uid": "1.2.4"}
    write_series(folder / "denoised_dicom", STORED // 2, **derived)
    (folder / "log.txt").write_text("...")
    files = ["denoised.nii.gz", "uncertainty.nii.gz", "samples_4x5x6.npz", "denoised_dicom"]
    if finished:
        (folder / "run.json").write_text(json.dumps({"key": "x", "checkpoint": {}, "files": files}))


@pytest.mark.parametrize("finished", [True, False])
def test_results_of_an_earlier_run_are_no_scans(tmp_path, finished):
    """A run that was killed before its manifest was written leaves a derived series too."""
    write_series(tmp_path / "scan" / "PT", STORED)
    write_results(tmp_path / "scan" / "PT" / "out", finished)
    np.testing.assert_allclose(load_volume(tmp_path / "scan" / "PT").data, SUV, rtol=1e-5)
    np.testing.assert_allclose(load_volume(tmp_path / "scan").data, SUV, rtol=1e-5)


def test_results_among_subjects_are_left_out(tmp_path):
    nifti(tmp_path / "a.nii.gz")
    nifti(tmp_path / "b" / "pet.nii.gz")
    write_results(tmp_path / "b")
    write_results(tmp_path / "old" / "a")
    nifti(tmp_path / "new" / "anything.nii.gz")
    names, notices = scan_names(tmp_path, excluded=tmp_path / "new")
    assert names == ["a", "b"]
    assert notices[0].startswith("left out (results of a run): new, b/denoised.nii.gz, b/denoised_dicom, b/log.txt")


@pytest.mark.parametrize(
    "run", ["[]", "null", "{", '{"key": 1}', '{"key": "x", "checkpoint": {}, "files": 3}', "[" * 9999]
)
def test_a_run_file_of_others_hides_nothing(tmp_path, run):
    nifti(tmp_path / "a" / "denoised.nii.gz")
    (tmp_path / "a" / "run.json").write_text(run)
    assert scan_names(tmp_path)[0] == ["a"]


def test_a_patient_whose_files_are_ruined_is_no_stray(tmp_path):
    """It fails when its turn comes, by name; passed over, nobody would miss it."""
    patient(tmp_path / "P1", 1)
    patient(tmp_path / "P2", 2)
    (tmp_path / "P3").mkdir()
    for system in ("$RECYCLE.BIN", "System Volume Information"):
        (tmp_path / system).mkdir()
    (tmp_path / "P4").mkdir()
    (tmp_path / "P4" / "0001.dcm").touch()
    (tmp_path / "P5").mkdir()
    (tmp_path / "P5" / "pet.nii.gz").write_bytes(b"\x1f\x8bbroken")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "protocol.txt").write_text("x")
    names, notices = scan_names(tmp_path)
    assert names == ["P1", "P2", "P3", "P4", "P5"]
    assert notices == [
        "left out (hidden): $RECYCLE.BIN, System Volume Information",
        "left out (no image that is known): P4/0001.dcm, docs/protocol.txt",
    ]
    for name, message in (
        ("P3", "no DICOM files"),
        ("P4", "0001.dcm: is empty"),
        ("P5/pet.nii.gz", r"P5/pet\.nii\.gz: "),
    ):
        with pytest.raises(InputError, match=message):
            load_volume(tmp_path / name)


def test_a_subject_whose_content_is_elsewhere_fails_by_name(tmp_path):
    nifti(tmp_path / "a.nii.gz")
    (tmp_path / "b.nii.gz").symlink_to("../.git/annex/objects/b")
    (tmp_path / "b_mask.nii.gz").symlink_to("../.git/annex/objects/m")
    (tmp_path / ".c.nii.gz.icloud").touch()
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "0001.dcm").symlink_to("../../.git/annex/objects/d")
    names, notices = scan_names(tmp_path)
    assert names == ["a", "b", "c", "d"]
    assert notices == ["left out (a link to nothing): b_mask.nii.gz, d/0001.dcm"]
    for name in ("b.nii.gz", "c.nii.gz", "d"):
        with pytest.raises(InputError, match=f"/{name}"):
            load_volume(tmp_path / name)


def test_a_folder_without_any_scan_says_what_it_holds(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "mask.nii.gz").touch()
    with pytest.raises(
        InputError, match=r"no DICOM files in it and no volume: left out \(by its name a mask\): a/mask"
    ):
        load_volume(tmp_path)


def test_one_dicom_file_is_sent_to_its_folder(tmp_path):
    paths = write_series(tmp_path / "s", STORED)
    with pytest.raises(InputError, match=r"0001\.dcm: is one DICOM file; give the folder of its series"):
        load_volume(paths[-1])


def test_pairs_are_found_under_links_and_capitals_and_not_among_results(tmp_path):
    pair = np.stack([SUV, SUV])
    np.savez(tmp_path / "a.npz", pair)
    os.rename(tmp_path / "a.npz", tmp_path / "A.NPZ")
    np.savez(tmp_path / "b.npz", pair)
    (tmp_path / "store").mkdir()
    os.rename(tmp_path / "b.npz", tmp_path / "store" / "b.npz")
    (tmp_path / "data").mkdir()
    os.rename(tmp_path / "A.NPZ", tmp_path / "data" / "A.NPZ")
    os.symlink(tmp_path / "store", tmp_path / "data" / "linked")
    write_results(tmp_path / "data" / "out")
    (tmp_path / "data" / "manifest.csv").write_text("Series UID,Collection\n")
    found = find_pairs(tmp_path / "data", "train", (4.0,) * 3)
    assert [pair.subject for pair in found] == ["A.NPZ", "linked/b.npz"]
