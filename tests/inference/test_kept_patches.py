"""What `--resume True` takes over is what was kept: the rest is computed again, and nothing outside changes."""

import json
import os
import shutil

import nibabel as nib
import numpy as np
import pytest

from guided_diffusion.errors import InputError
from guided_diffusion.inference import blend_at_end, resume
from guided_diffusion.inference.resume import FinishedPatches
from guided_diffusion.inference.subjects import Subject
from tests.denoising import denoise, samples_in

SAMPLES = np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4)
KEY = "ab" * 32
QUICK = ("--timestep_respacing", "1")


def kept(folder, slices=16):
    return FinishedPatches.of_run(folder, KEY).with_patches_of(slices)


def file_of(folder, number):
    return folder / f".unfinished-{KEY[:16]}" / "16" / f"batch{number:04d}.kept"


def test_what_is_kept_comes_back(tmp_path):
    kept(tmp_path).save(3, SAMPLES)
    assert kept(tmp_path).has(3)
    assert not kept(tmp_path).has(2)
    np.testing.assert_array_equal(kept(tmp_path).load(3), SAMPLES)


def test_every_flipped_bit_and_every_shorter_file_is_noticed(tmp_path):
    kept(tmp_path).save(3, SAMPLES)
    file = file_of(tmp_path, 3)
    whole = file.read_bytes()
    damaged = [whole[:length] for length in range(0, len(whole), 17)]
    for place in range(len(whole)):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << place % 8
        damaged.append(bytes(flipped))
    for content in (*damaged, whole + b"0", b"other"):
        file.write_bytes(content)
        assert not kept(tmp_path).has(3)
        assert not file.exists()


def test_patches_of_another_place_plan_or_run_are_not_taken(tmp_path):
    kept(tmp_path).save(3, SAMPLES)
    content = file_of(tmp_path, 3).read_bytes()
    file_of(tmp_path, 4).write_bytes(content)
    assert not kept(tmp_path).has(4)
    kept(tmp_path, slices=8).save(3, SAMPLES)
    file_of(tmp_path, 3).write_bytes((tmp_path / f".unfinished-{KEY[:16]}" / "8" / "batch0003.kept").read_bytes())
    assert not kept(tmp_path).has(3)
    other = FinishedPatches.of_run(tmp_path, KEY[:16] + "0" * 48).with_patches_of(16)
    other.save(3, SAMPLES)
    assert not kept(tmp_path).has(3)


def test_what_is_no_file_is_replaced_and_no_link_is_followed(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("mine")
    file = file_of(tmp_path, 3)
    makers = (
        lambda: os.mkfifo(file),
        file.mkdir,
        lambda: file.symlink_to(outside / "precious"),
        lambda: file.symlink_to("nothing"),
    )
    for make in makers:
        kept(tmp_path).save(3, SAMPLES)
        file.unlink()
        make()
        assert not kept(tmp_path).has(3)
        kept(tmp_path).save(3, SAMPLES)
        assert kept(tmp_path).has(3)
    for folder in (file.parent, file.parent.parent):
        kept(tmp_path).remove_own()
        folder.parent.mkdir(exist_ok=True)
        folder.symlink_to(outside)
        assert not kept(tmp_path).has(3)
        kept(tmp_path).save(3, SAMPLES)
        assert not folder.is_symlink()
        assert kept(tmp_path).has(3)
    kept(tmp_path).remove_own()
    file.parent.parent.symlink_to(outside)
    kept(tmp_path).remove_all()
    assert [path.name for path in outside.iterdir()] == ["precious"]
    assert (outside / "precious").read_text() == "mine"
    assert not file.parent.parent.is_symlink()


def stopped_after(small, out, patches, monkeypatch):
    """A run that ended after some patches, and the list of the calls of all later runs."""
    sample, calls = blend_at_end.sample_batch, []

    def failing(task, *rest):
        calls.append(task.starts)
        if len(calls) == patches + 1:
            raise RuntimeError("the power is out")
        return sample(task, *rest)

    monkeypatch.setattr(blend_at_end, "sample_batch", failing)
    with pytest.raises(RuntimeError, match="power"):
        denoise(small / "scan.npz", small / "small.pt", out, *QUICK, "--resume", True)
    calls.clear()
    monkeypatch.setattr(
        blend_at_end, "sample_batch", lambda task, *rest: calls.append(task.starts) or sample(task, *rest)
    )
    return calls


def test_a_damaged_kept_patch_is_computed_again_and_the_result_is_that_of_an_undisturbed_run(
    small, tmp_path, monkeypatch
):
    whole = samples_in(denoise(small / "scan.npz", small / "small.pt", tmp_path / "whole", *QUICK))
    calls = stopped_after(small, tmp_path / "out", 4, monkeypatch)
    files = sorted((tmp_path / "out").rglob("*.kept"))
    flipped = bytearray(files[0].read_bytes())
    flipped[-3] ^= 64
    files[0].write_bytes(flipped)
    files[1].write_bytes(b"")
    files[2].write_bytes(files[2].read_bytes()[:500])
    denoise(small / "scan.npz", small / "small.pt", tmp_path / "out", *QUICK, "--resume", True)
    assert calls == [(0,), (12,), (24,), (48,), (57,)]
    np.testing.assert_array_equal(samples_in(tmp_path / "out"), whole)
    assert (tmp_path / "out" / "log.txt").read_text().count("notice: kept patches are computed again: ") == 3


@pytest.fixture
def other_code(monkeypatch):
    """A function after which the program is of another version."""

    def change():
        monkeypatch.setattr(resume, "sha256_of_code", lambda _: "another version")
        resume.code_of_results.cache_clear()

    yield change
    resume.code_of_results.cache_clear()


def test_patches_of_another_version_are_not_taken(small, tmp_path, monkeypatch, other_code):
    calls = stopped_after(small, tmp_path / "out", 4, monkeypatch)
    other_code()
    denoise(small / "scan.npz", small / "small.pt", tmp_path / "out", *QUICK, "--resume", True)
    assert calls == [(0,), (12,), (24,), (36,), (48,), (57,)]
    log = (tmp_path / "out" / "log.txt").read_text()
    assert "notice: " in log
    assert "kept patches of other settings or of another version are not taken over" in log


def test_results_of_another_version_are_made_again(small, tmp_path, other_code):
    arguments = (small / "scan.npz", small / "small.pt", tmp_path, *QUICK, "--resume", True)
    whole = samples_in(denoise(*arguments))
    denoise(*arguments)
    told = "another version of this program made its results: the subject is done again"
    assert (tmp_path / "log.txt").read_text().count("finished already") == 1
    assert told not in (tmp_path / "log.txt").read_text()
    other_code()
    denoise(*arguments)
    log = (tmp_path / "log.txt").read_text()
    assert (log.count("finished already"), log.count(told)) == (1, 1)
    assert json.loads((tmp_path / "run.json").read_text())["code"] == "another version"
    np.testing.assert_array_equal(samples_in(tmp_path), whole)
    denoise(*arguments, "--seed", 11)  # other settings are no other version
    assert (tmp_path / "log.txt").read_text().count(told) == 1


@pytest.fixture(scope="module")
def finished(small, tmp_path_factory):
    return denoise(small / "scan.nii.gz", small / "small.pt", tmp_path_factory.mktemp("finished"), *QUICK)


DAMAGES = {
    "empty": lambda folder: (folder / "denoised.nii.gz").write_bytes(b""),
    "missing": lambda folder: (folder / "denoised.nii.gz").unlink(),
    "flipped": lambda folder: next(folder.glob("samples*")).open("rb+").write(b"X"),
    "list": lambda folder: (folder / "run.json").write_text("[]"),
    "null": lambda folder: (folder / "run.json").write_text("null"),
    "number": lambda folder: (folder / "run.json").write_text("7" * 5000),
    "deep": lambda folder: (folder / "run.json").write_text("[" * 100_000),
    "bytes": lambda folder: (folder / "run.json").write_bytes(b"\xff\xfe{"),
    "files": lambda folder: edit(folder / "run.json", files=3),
    "digests": lambda folder: edit(folder / "run.json", sha256=[1]),
    "elsewhere": lambda folder: edit(folder / "run.json", files=["../x"], sha256={"../x": "0"}),
    "nothing": lambda folder: edit(folder / "run.json", files=[], sha256={}),
    "link": lambda folder: (folder / "run.json").rename(folder / "old") and (folder / "run.json").symlink_to("old"),
}


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("name", DAMAGES)
def test_finished_results_that_are_damaged_are_not_taken(name, finished, tmp_path):
    for file in finished.iterdir():
        shutil.copy(file, tmp_path)
    key = json.loads((tmp_path / "run.json").read_text())["key"]
    subject = Subject("scan.nii.gz", tmp_path)
    assert subject.is_finished(key)
    assert not subject.is_finished("0" * 64)
    DAMAGES[name](tmp_path)
    assert not subject.is_finished(key)


def test_an_emptied_result_is_made_again(finished, small, tmp_path):
    shutil.copytree(finished, tmp_path / "out")
    (tmp_path / "out" / "denoised.nii.gz").write_bytes(b"")
    denoise(small / "scan.nii.gz", small / "small.pt", tmp_path / "out", *QUICK, "--resume", True)
    images = [nib.load(folder / "denoised.nii.gz").get_fdata() for folder in (tmp_path / "out", finished)]
    np.testing.assert_array_equal(*images)
    assert "denoised.nii.gz is missing or damaged: the subject is done again" in (tmp_path / "out/log.txt").read_text()


def test_a_folder_where_a_result_goes_is_named_before_the_work(small, tmp_path):
    (tmp_path / "out" / "run.json").mkdir(parents=True)
    with pytest.raises(InputError, match=r"run\.json: a folder stands where a result goes"):
        denoise(small / "scan.npz", small / "small.pt", tmp_path / "out")
    assert (tmp_path / "out" / "run.json").is_dir()


def test_results_do_not_go_through_links(small, tmp_path):
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "run.json").symlink_to(tmp_path / "precious")
    with pytest.raises(InputError, match=r"run\.json: would be written over"):
        denoise(small / "scan.npz", small / "small.pt", tmp_path / "out", *QUICK)
    (tmp_path / "out" / "run.json").unlink()
    denoise(small / "scan.npz", small / "small.pt", tmp_path / "out", *QUICK)
    (tmp_path / "out" / "samples_18x21x73.npz").unlink()
    (tmp_path / "out" / "samples_18x21x73.npz").symlink_to(tmp_path / "precious")
    denoise(small / "scan.npz", small / "small.pt", tmp_path / "out", *QUICK)
    assert not any(path.is_symlink() for path in (tmp_path / "out").iterdir())
    (tmp_path / "out" / "log.txt").unlink()
    (tmp_path / "out" / "log.txt").symlink_to(tmp_path / "precious")
    with pytest.raises(InputError, match=r"log\.txt"):
        denoise(small / "scan.npz", small / "small.pt", tmp_path / "out")
    assert (tmp_path / "precious").read_text() == "mine"


def test_a_linked_folder_of_a_subject_is_refused_and_the_others_are_done(small, tmp_path, caplog):
    (tmp_path / "scans").mkdir()
    for name in ("a.npz", "b.npz"):
        (tmp_path / "scans" / name).write_bytes((small / "scan.npz").read_bytes())
    (tmp_path / "outside").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a").symlink_to(tmp_path / "outside")
    with caplog.at_level("INFO"), pytest.raises(InputError, match="1 of 2 subjects failed"):
        denoise(tmp_path / "scans", small / "small.pt", tmp_path / "out", *QUICK)
    assert "a: a link leads from there" in caplog.text
    assert list((tmp_path / "outside").iterdir()) == []
    assert (tmp_path / "out" / "b" / "run.json").exists()
