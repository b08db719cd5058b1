"""Names in Latin-1, as old archives have them, survive; what is not compared is named."""

import csv
import os

import nibabel as nib
import numpy as np
import pytest

from evaluation.compared_files import find_subject_files, left_out_of
from guided_diffusion.errors import InputError
from guided_diffusion.image_datasets import find_pairs
from guided_diffusion.inference.subjects import find_subjects
from guided_diffusion.pet.preparation import check_output
from tests.denoising import denoise
from tests.mpi import run_script

ODD = os.fsdecode(b"Gr\xfcn")
SUV = np.random.default_rng(0).uniform(0, 9, (16, 16, 12)).astype(np.float32)


def test_the_table_of_an_odd_name_is_written_with_its_numbers(tmp_path):
    (tmp_path / "gtr").mkdir()
    (tmp_path / "gen" / ODD).mkdir(parents=True)
    np.savez(tmp_path / "gtr" / f"{ODD}.npz", np.stack([SUV, SUV]))
    np.savez(tmp_path / "gen" / ODD / "samples.npz", (SUV + 1) / 16)
    done = run_script(
        "evaluation/get_ssim_psnr.py",
        *("--gtr_dir", tmp_path / "gtr", "--gen_dir", tmp_path / "gen", "--gtr_units", "suv"),
        *("--csv", tmp_path / "table.csv"),
    )
    assert done.returncode == 0, done.stderr
    with open(tmp_path / "table.csv", encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["subject"] == "Gr\\udcfcn"
    assert float(row["psnr"]) == pytest.approx(20 * np.log10(16), abs=1e-3)
    assert "Gr?n" in done.stdout


def test_the_log_names_a_broken_subject_and_the_others_are_done(tmp_path, small):
    folder = tmp_path / ODD
    folder.mkdir()
    (folder / f"{ODD}.nii.gz").write_bytes(b"broken")
    (folder / "good.npz").write_bytes((small / "scan.npz").read_bytes())
    with pytest.raises(InputError, match="1 of 2 subjects failed"):
        denoise(folder, small / "small.pt", tmp_path / "out" / ODD, "--timestep_respacing", "1")
    log = (tmp_path / "out" / ODD / "log.txt").read_text()
    assert log.count("failed: ") == 1
    assert "Gr?n.nii.gz: no format that is known" in log
    assert log.count("wrote ") == 2


def test_odd_names_of_pairs_and_subjects_are_found(tmp_path):
    np.savez(tmp_path / f"{ODD}.npz", np.stack([SUV, SUV]))
    assert [pair.subject for pair in find_pairs(tmp_path, "train", (1.65,) * 3)] == [f"{ODD}.npz"]
    (subject,) = find_subjects(str(tmp_path), str(tmp_path / "out"))
    assert subject.folder.name == ODD


def test_files_that_are_not_compared_are_named(tmp_path):
    (tmp_path / "gtr").mkdir()
    (tmp_path / "gen" / "a").mkdir(parents=True)
    (tmp_path / "gen" / "b").mkdir()
    nib.save(nib.Nifti1Pair(SUV, np.eye(4)), tmp_path / "gtr" / "a.img")
    nib.save(nib.Nifti1Image(SUV, np.eye(4)), tmp_path / "gen" / "a" / "x.nii.gz")
    for name in ("gtr/a.mat", "gtr/README", "gen/log.txt"):
        (tmp_path / name).write_text("")
    subjects = find_subject_files(tmp_path / "gtr", tmp_path / "gen", None)
    assert [subject.reference.name for subject in subjects] == ["a.img"]
    assert left_out_of(tmp_path / "gtr", tmp_path / "gen", subjects) == [
        "left out (no reference): README",
        "left out (no reference of that name): b, log.txt",
    ]


@pytest.mark.parametrize(
    ("output", "inputs", "message"),
    [
        ("x.png", ["a.nii"], "the name must end in"),
        ("x.nii.gz", ["a.nii", "b.nii"], r"a pair .* needs the suffix \.npz"),
        ("a.npz", ["b.nii", "a.npz"], "would replace the input"),
        ("file/x.npz", ["a.nii"], "cannot write into"),
    ],
)
def test_what_cannot_be_written_is_said_before_anything_is_read(tmp_path, monkeypatch, output, inputs, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=message):
        check_output(output, inputs)
