"""`scripts/test.py` after a break, and beside the results of earlier runs."""

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from guided_diffusion.errors import InputError
from guided_diffusion.inference import blend_at_end
from guided_diffusion.inference.subjects import find_subjects
from tests.denoising import denoise, denoise_on, samples_in
from tests.mpi import needs_mpiexec


def test_a_folder_of_subjects_and_a_rerun(small, tmp_path):
    subjects = tmp_path / "subjects"
    subjects.mkdir()
    scan = np.load(small / "scan.npz")["arr_0"]
    for name, factor in (("one", 1.0), ("two", 0.5)):
        np.savez(subjects / f"{name}.npz", arr_0=scan * np.float32(factor))
    denoise(subjects, small / "small.pt", tmp_path / "out", "--realisations", 2, "--timestep_respacing", "1")
    denoise(subjects, small / "small.pt", tmp_path / "out")
    for name in ("one", "two"):
        assert sorted(file.name for file in (tmp_path / "out" / name).iterdir()) == ["run.json", "samples_18x21x73.npz"]
        alone = samples_in(denoise(subjects / f"{name}.npz", small / "small.pt", tmp_path / f"alone_{name}"))
        np.testing.assert_array_equal(samples_in(tmp_path / "out" / name), alone)


def test_results_inside_the_folder_of_subjects_are_no_subject(small, tmp_path):
    shutil.copy(small / "scan.npz", tmp_path / "one.npz")
    (tmp_path / "two").mkdir()
    for _ in range(2):  # the second time the results are there
        subjects = find_subjects(str(tmp_path), str(tmp_path / "out"))
        assert [Path(subject.path).name for subject in subjects] == ["one.npz", "two"]
        assert [subject.folder for subject in subjects] == [tmp_path / "out" / "one", tmp_path / "out" / "two"]
        (tmp_path / "out" / "one").mkdir(exist_ok=True)
        (tmp_path / "out" / "one" / "samples_1x1x1.npz").touch()


def test_results_do_not_mix_with_the_scans(small, tmp_path):
    """They would be taken for scans by the next run."""
    shutil.copy(small / "scan.npz", tmp_path / "one.npz")
    with pytest.raises(InputError, match="results would lie among the scans"):
        find_subjects(str(tmp_path), f"{tmp_path}/.")


def test_an_interrupted_run_is_continued_to_the_same_bits(small, tmp_path, monkeypatch):
    arguments = (small / "scan.npz", small / "small.pt", tmp_path / "out", "--resume", True)
    whole = samples_in(denoise(small / "scan.npz", small / "small.pt", tmp_path / "whole"))
    sample, calls = blend_at_end.sample_batch, []

    def failing(task, *rest):
        calls.append(task.starts)
        if len(calls) == 3:
            raise RuntimeError("the power is out")
        return sample(task, *rest)

    monkeypatch.setattr(blend_at_end, "sample_batch", failing)
    with pytest.raises(RuntimeError, match="power"):
        denoise(*arguments)
    assert not list((tmp_path / "out").glob("samples*"))
    np.testing.assert_array_equal(samples_in(denoise(*arguments)), whole)
    assert calls == [(0,), (12,), (24,), (24,), (36,), (48,), (57,)]
    left = tmp_path / "out" / ".unfinished-0123456789abcdef"  # as a run killed just before its end leaves it
    left.mkdir()
    denoise(*arguments)
    assert len(calls) == 7
    assert not left.exists()
    assert "finished already" in (tmp_path / "out" / "log.txt").read_text()
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["log.txt", "run.json", "samples_18x21x73.npz"]
    (tmp_path / "out" / "samples_18x21x73.npz").unlink()
    denoise(*arguments)
    assert len(calls) == 13
    np.testing.assert_array_equal(samples_in(tmp_path / "out"), whole)
    denoise(*arguments, "--seed", 11)
    assert len(calls) == 19


@needs_mpiexec
def test_realisations_are_the_same_on_any_number_of_ranks_and_go_on_after_a_break(small, tmp_path, monkeypatch):
    arguments = (small / "scan.nii.gz", small / "small.pt")
    more = ("--realisations", 3, "--timestep_respacing", "1", "--resume", True)
    denoise_on(4, *arguments, tmp_path / "ranks", *more)
    sample, calls = blend_at_end.sample_batch, []

    def failing(task, *rest):
        calls.append(task)
        if len(calls) == 5:
            raise RuntimeError("the power is out")
        return sample(task, *rest)

    monkeypatch.setattr(blend_at_end, "sample_batch", failing)
    with pytest.raises(RuntimeError, match="power"):
        denoise(*arguments, tmp_path / "alone", *more)
    denoise(*arguments, tmp_path / "alone", *more)
    assert len(calls) == 10
    names = sorted(file.name for file in (tmp_path / "alone").iterdir())
    grid = "x".join(map(str, samples_in(tmp_path / "alone").shape))
    arrays = [f"samples_{grid}.npz", f"uncertainty_{grid}.npz"]
    assert names == ["denoised.nii.gz", "log.txt", "run.json", arrays[0], "uncertainty.nii.gz", arrays[1]]
    for name in arrays:
        loaded = [np.load(tmp_path / folder / name)["arr_0"] for folder in ("ranks", "alone")]
        np.testing.assert_array_equal(*loaded)
    for name in ("denoised.nii.gz", "uncertainty.nii.gz"):
        images = [nib.load(tmp_path / folder / name) for folder in ("ranks", "alone")]
        np.testing.assert_array_equal(*(image.get_fdata() for image in images))
        assert images[0].shape == (20, 24, 40)
    assert images[0].get_fdata().mean() > 0.01


def test_a_mistake_leaves_earlier_results_and_patches_alone(small, tmp_path):
    denoise(small / "scan.npz", small / "small.pt", tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir() if file.name != "log.txt"}
    for mistake in (("--num_samples", 5), ("--overlap", 60), ("--seed", -1)):
        with pytest.raises(InputError):
            denoise(small / "scan.npz", small / "small.pt", tmp_path, *mistake)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir() if file.name != "log.txt"} == before


def test_results_never_replace_the_scan(small, tmp_path):
    scan = tmp_path / "samples_1x2x3.npz"
    scan.write_bytes((small / "scan.npz").read_bytes())
    (tmp_path / "samples_of_mine.npz").touch()
    with pytest.raises(InputError, match="replace this scan"):
        denoise(scan, small / "small.pt", tmp_path)
    scan.rename(tmp_path / "scan.npz")
    denoise(small / "scan.npz", small / "small.pt", tmp_path)
    assert (tmp_path / "samples_of_mine.npz").exists()
