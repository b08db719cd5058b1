"""Which files in `--save_dir` a run removes or replaces: those of an earlier run on the same scan, and no others."""

import json

import numpy as np
import pytest

from guided_diffusion.errors import InputError
from guided_diffusion.inference.earlier_results import check_replaceable, results_aside
from guided_diffusion.inference.resume import FinishedPatches
from guided_diffusion.inference.subjects import Subject, place_of
from tests.denoising import denoise

KEY, VOXELS = "ab" * 32, "cd" * 32
FLAGS = {"report": False, "series": None}


def manifest_of(path, voxels=VOXELS, files=("denoised.nii.gz",), series=None):
    scan = {"name": path.name, "path": place_of(str(path)), "sha256_of_voxels_and_affine": voxels}
    return json.dumps({"key": KEY, "input": scan, "flags": {"series": series}, "files": list(files)})


def check(subject, voxels=VOXELS, several=False, **flags):
    finished = FinishedPatches.of_run(subject.folder, KEY)
    check_replaceable(subject, voxels, FLAGS | flags, finished, several)


@pytest.fixture
def subject(tmp_path):
    (tmp_path / "out").mkdir()
    return Subject(str(tmp_path / "a.nii.gz"), tmp_path / "out")


def test_a_second_scan_into_the_same_folder_is_refused_before_the_work(small, tmp_path):
    denoise(small / "scan.npz", small / "small.pt", tmp_path / "out", "--timestep_respacing", "1")
    other = tmp_path / "other.npz"
    np.savez(other, np.load(small / "scan.npz")["arr_0"] * np.float32(0.5))
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir() if path.name != "log.txt"}
    with pytest.raises(InputError, match=r"out: holds the results of /.*/scan\.npz; choose another --save_dir"):
        denoise(other, small / "small.pt", tmp_path / "out", "--timestep_respacing", "1")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir() if path.name != "log.txt"} == before


def test_the_same_voxels_or_the_same_path_are_the_same_scan(subject, tmp_path):
    (subject.folder / "denoised.nii.gz").touch()
    for path, voxels in ((tmp_path / "copied.nii.gz", VOXELS), (tmp_path / "a.nii.gz", "0" * 64)):
        (subject.folder / "run.json").write_text(manifest_of(path, voxels))
        check(subject)
    (subject.folder / "run.json").write_text(manifest_of(tmp_path / "b" / "a.nii.gz", "0" * 64))
    with pytest.raises(InputError, match=r"holds the results of .*/b/a\.nii\.gz"):
        check(subject)


def test_another_series_of_a_study_is_another_scan(subject, tmp_path):
    (subject.folder / "run.json").write_text(manifest_of(tmp_path / "a.nii.gz", "0" * 64, series="4"))
    check(subject, series="4")
    with pytest.raises(InputError, match="holds the results of"):
        check(subject, series="5")


def test_a_manifest_without_the_path_tells_scans_by_their_voxels(subject, tmp_path):
    manifest = json.loads(manifest_of(tmp_path / "a.nii.gz"))
    del manifest["input"]["path"]
    (subject.folder / "run.json").write_text(json.dumps(manifest))
    check(subject)
    with pytest.raises(InputError, match=r"holds the results of a\.nii\.gz"):
        check(subject, voxels="0" * 64)


@pytest.mark.parametrize("name", ["run.json", "denoised.nii.gz", "samples_1x2x3.npz"])
@pytest.mark.parametrize("content", ['{"my": "own"}', "[]", "no JSON"])
def test_files_of_others_are_not_written_over(name, content, subject):
    (subject.folder / name).write_text(content)
    with pytest.raises(InputError, match=f"{name}: would be written over, but no run.json of this program lists it"):
        check(subject)


def test_files_that_this_run_does_not_write_do_not_matter(subject):
    for name in ("report.html", "uncertainty.nii.gz", "uncertainty_1x2x3.npz", "samples_of_mine.npz"):
        (subject.folder / name).touch()
    check(subject)
    with pytest.raises(InputError, match=r"report\.html: would be written over"):
        check(subject, report=True)
    (subject.folder / "report.html").unlink()
    with pytest.raises(InputError, match=r"uncertainty\.nii\.gz: would be written over"):
        check(subject, several=True)


def test_a_run_that_was_killed_while_its_results_were_moved_goes_on(subject):
    (subject.folder / "denoised.nii.gz").touch()
    FinishedPatches.of_run(subject.folder, KEY).save(0, np.zeros((1, 2, 2, 2), np.float32))
    check(subject)
    (subject.folder / "run.json").write_text('{"my": "own"}')  # which the moved results would not have had beside them
    with pytest.raises(InputError, match=r"run\.json: would be written over"):
        check(subject)


def test_results_that_the_manifest_lists_are_removed_and_other_files_stay(subject, tmp_path):
    listed = ["denoised.nii.gz", "uncertainty.nii.gz", "samples_1x1x1.npz", "notes.txt"]
    for name in (*listed, "report.html", "uncertainty_3x3x3.npz"):
        (subject.folder / name).write_text("old")
    (subject.folder / "run.json").write_text(manifest_of(tmp_path / "a.nii.gz", files=listed))
    with results_aside(subject) as aside:
        for name in ("denoised.nii.gz", "run.json"):
            (aside.folder / name).write_text("new")
    assert {path.name: path.read_text() for path in subject.folder.iterdir()} == {
        "denoised.nii.gz": "new",
        "run.json": "new",
        "notes.txt": "old",
        "report.html": "old",
        "uncertainty_3x3x3.npz": "old",
    }
