import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from evaluation.compared_files import to_suv
from evaluation.get_ssim_psnr import main
from guided_diffusion.pet.grid import Volume
from guided_diffusion.pet.orientation import turned
from tests.evaluation_study import Study, write_nifti

ROOT = Path(__file__).parents[2]


@pytest.fixture
def study(tmp_path):
    return Study(tmp_path)


@pytest.fixture
def run(monkeypatch):
    def run(arguments):
        monkeypatch.setattr(sys, "argv", ["get_ssim_psnr.py", *arguments])
        main()

    return run


def read_table(path):
    with open(path, newline="") as file:
        return {row.pop("subject"): {key: float(value) for key, value in row.items()} for row in csv.DictReader(file)}


def test_published_command_line(study):
    arguments = study.published("--csv", str(study.csv))
    done = subprocess.run(
        [sys.executable, "evaluation/get_ssim_psnr.py", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": "."},
        capture_output=True,
        text=True,
        check=True,
    )
    table = read_table(study.csv)
    assert list(table) == ["a", "b"]
    expected = np.array([study.expected("a"), study.expected("b")])
    for row, numbers in zip(table.values(), expected, strict=True):
        assert list(row) == ["ssim", "psnr", "psnr_published"]
        assert list(row.values()) == pytest.approx(numbers.tolist(), abs=1e-4)

    lines = done.stdout.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["subject", "a", "b", "mean", "standard deviation"]
    mean = expected.sum(axis=0) / 2
    deviation = np.abs(expected[0] - expected[1]) / 2  # of a population of two
    printed = [[float(cell) for cell in line.split()[-3:]] for line in lines[1:]]
    assert printed == [pytest.approx(row.tolist(), abs=0.006) for row in (*expected, mean, deviation)]
    assert [row[0] for row in printed] == pytest.approx([*expected[:, 0], mean[0], deviation[0]], abs=6e-5)


def test_negative_generated_values_count_as_zero(study, run):
    assert (study.generated["a"] < -0.5).any()
    run(study.arguments("--csv", str(study.csv)))
    before = read_table(study.csv)
    study.write_generated("a", np.maximum(study.generated["a"], 0) / 16)
    run(study.arguments("--csv", str(study.csv)))
    assert read_table(study.csv) == before


def test_without_scans_there_is_no_published_psnr(study, run, capsys):
    run(study.arguments("--csv", str(study.csv)))
    assert list(read_table(study.csv)["a"]) == ["ssim", "psnr"]
    assert "published" not in capsys.readouterr().out


def test_a_file_that_is_still_being_written_is_left_alone(study, run):
    (study.gen_dir / "a" / ".tmp-7-samples_12x14x16.npz").write_bytes(b"half")
    run(study.arguments("--csv", str(study.csv)))
    assert read_table(study.csv)["a"]["psnr"] == pytest.approx(study.expected("a")[1], abs=1e-4)


def test_the_uncertainty_beside_a_result_is_not_evaluated(study, run):
    np.savez(study.gen_dir / "a" / "uncertainty_12x14x16.npz", np.ones((12, 14, 16)))
    run(study.arguments("--csv", str(study.csv)))
    assert read_table(study.csv)["a"]["psnr"] == pytest.approx(study.expected("a")[1], abs=1e-4)


def test_equal_volumes_have_a_psnr_of_100(study, run):
    study.write_generated("a", study.reference["a"] / 16)
    run(study.published("--csv", str(study.csv)))
    row = read_table(study.csv)["a"]
    assert (row["psnr"], row["psnr_published"]) == (100, 100)
    assert row["ssim"] == pytest.approx(1, abs=1e-6)


def test_volumes_thinner_than_the_window_have_a_psnr_only(study, run, capsys):
    thin, generated = study.reference["a"][:, :, :6], study.generated["a"][:, :, :6]
    study.write_reference("a", np.stack([thin, thin]) / 16)
    study.write_generated("a", generated / 16)
    run(study.arguments("--csv", str(study.csv)))
    psnr = 10 * np.log10(16**2 / ((thin - np.maximum(generated, 0)) ** 2).mean())
    with open(study.csv, newline="") as file:
        row = next(csv.DictReader(file))
    assert (row["ssim"], float(row["psnr"])) == ("", pytest.approx(psnr, abs=1e-4))
    printed = capsys.readouterr()
    lines = [line.split() for line in printed.out.splitlines()]
    ssim, other = study.expected("b")[:2]
    assert lines[1] == ["a", "-", f"{psnr:.2f}"]
    assert lines[3] == ["mean", f"{ssim:.4f}", f"{(psnr + other) / 2:.2f}"]
    assert printed.err == "notice: no SSIM, which needs 7 voxels along every axis: a\n"


@pytest.mark.parametrize("codes", ["RAS", "SPL"])
def test_axes_stored_in_another_order_are_the_same_image(study, run, codes):
    affine = np.diag([-2.0, -2, 3, 1])
    for name in ("a", "b"):
        (study.gtr_dir / f"{name}.npz").unlink()
        write_nifti(study.gtr_dir / f"{name}.nii.gz", study.reference[name], affine)
        stored = turned(Volume(study.generated[name], affine), codes)
        write_nifti(study.gen_dir / name / "denoised.nii.gz", stored.data, stored.affine)
    run(study.arguments("--csv", str(study.csv), "--gtr_units", "suv", "--gen_units", "suv"))
    for name, row in read_table(study.csv).items():
        assert (row["ssim"], row["psnr"]) == pytest.approx(study.expected(name)[:2], abs=1e-4)


def test_units_of_either_side(study, run):
    run(study.arguments("--csv", str(study.csv)))
    normalised = read_table(study.csv)
    for name in ("a", "b"):
        # SUV as inference reads it: not clipped yet.
        reference = np.where(study.reference[name] == 16, 80, study.reference[name])
        study.write_reference(name, np.stack([reference, reference]))
    run(study.arguments("--csv", str(study.csv), "--gtr_units", "suv"))
    mixed = read_table(study.csv)
    for name in ("a", "b"):
        study.write_generated(name, study.generated[name])
    run(study.arguments("--csv", str(study.csv), "--gtr_units", "suv", "--gen_units", "suv"))
    for name, row in normalised.items():
        assert mixed[name] == pytest.approx(row, rel=1e-5)
        assert read_table(study.csv)[name] == pytest.approx(row, rel=1e-5)


def as_nifti(study):
    """The same study as scripts/test.py leaves it for NIfTI input: SUV, with the .npz beside the NIfTI."""
    affine = np.diag([2, 2, 3, 1])
    for name in ("a", "b"):
        (study.gtr_dir / f"{name}.npz").unlink()
        write_nifti(study.gtr_dir / f"{name}.nii.gz", study.reference[name], affine)
        write_nifti(study.gen_dir / name / "denoised.nii.gz", study.generated[name], affine)
    return study.arguments("--gtr_units", "suv", "--gen_units", "suv", "--csv", str(study.csv))


def test_nifti_gives_the_numbers_of_npz(study, run):
    run(study.arguments("--csv", str(study.csv)))
    table = read_table(study.csv)
    run(as_nifti(study))
    for name, row in table.items():
        assert read_table(study.csv)[name] == pytest.approx(row, rel=1e-5)


def test_a_pair_as_generated_file_measures_its_low_dose(study, run):
    run(study.arguments("--csv", str(study.csv)))
    table = read_table(study.csv)
    for name in ("a", "b"):
        study.write_generated(name, np.stack([study.generated[name], study.reference[name]]) / 16)
    run(study.arguments("--csv", str(study.csv)))
    assert read_table(study.csv) == table


def test_an_empty_image_is_judged_and_not_refused():
    assert to_suv(np.zeros((2, 2, 2), np.float32), "suv", Path("x.nii"), "--gen_units").max() == 0


def test_normalised_values_are_multiplied_and_suv_is_clipped():
    array = np.array([[[-0.25, 0.5, 1.0]]], np.float32)
    assert to_suv(array, "normalised", Path("x"), "--gen_units").tolist() == [[[-4, 8, 16]]]
    assert to_suv(array * 30, "suv", Path("x"), "--gen_units").tolist() == [[[0, 15, 16]]]
