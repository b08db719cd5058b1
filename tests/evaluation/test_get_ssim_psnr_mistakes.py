import os
import pickle
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy.io import savemat

from evaluation.compared_files import SubjectFiles, read_pair, to_suv
from evaluation.get_ssim_psnr import main
from guided_diffusion.errors import InputError
from tests.evaluation_study import Study, write_nifti
from tests.sidecars import saved, without

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


def two_generated_files(study):
    np.savez(study.gen_dir / "a" / "older.npz", study.generated["a"])


def no_generated_file(study):
    (study.gen_dir / "b" / "samples_12x14x16.npz").unlink()


def no_generated_folder(study):
    no_generated_file(study)
    (study.gen_dir / "b").rmdir()


def other_shape(study):
    study.write_generated("b", study.generated["b"][:, :, 1:] / 16)


def generated_suv(study):
    study.write_generated("b", study.generated["b"])


def reference_suv(study):
    study.write_reference("b", np.stack([study.reference["b"]] * 2))


def truncated(study):
    path = study.gen_dir / "a" / "samples_12x14x16.npz"
    path.write_bytes(path.read_bytes()[:-100])


def damaged(study):
    path = study.gen_dir / "a" / "samples_12x14x16.npz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def npy_under_this_name(study):
    with open(study.gtr_dir / "a.npz", "wb") as file:
        np.save(file, study.reference["a"])


class Payload:
    """Leaves a file behind if anybody unpickles it."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


def pickled_array(study):
    np.savez(study.gtr_dir / "a.npz", np.array([Payload(study.gtr_dir / "executed")], dtype=object))


def bare_pickle(study):
    (study.gtr_dir / "a.npz").write_bytes(pickle.dumps(Payload(study.gtr_dir / "executed")))


def no_arr_0(study):
    np.savez(study.gtr_dir / "a.npz", suv=study.reference["a"])


def reference_without_channels(study):
    study.write_reference("a", study.reference["a"] / 16)


def generated_with_channels(study):
    study.write_generated("a", study.generated["a"][None] / 16)


def nan_voxel(study):
    study.generated["b"][3, 4, 5] = np.nan
    study.write_generated("b", study.generated["b"] / 16)


def complex_voxels(study):
    study.write_generated("b", study.generated["b"] * 1j)


def missing_scan(study):
    (study.mat_dir / "b.mat").unlink()


def scan_without_suv(study):
    savemat(study.mat_dir / "a.mat", {"SUV": np.ones((2, 2, 2))})


def v73_scan_without_suv(study):
    with h5py.File(study.mat_dir / "b.mat", "w") as file:
        file.create_group("suv")


def not_a_scan(study):
    (study.mat_dir / "a.mat").write_bytes(b"suv = 3;\n" * 40)


def truncated_scan(study):
    path = study.mat_dir / "a.mat"
    path.write_bytes(path.read_bytes()[:200])


def scan_in_activity(study):
    savemat(study.mat_dir / "a.mat", {"suv": np.full((2, 2, 2), 54321.0)})


def empty_scan(study):
    savemat(study.mat_dir / "a.mat", {"suv": np.zeros((2, 2, 2))})


def no_references(study):
    for path in study.gtr_dir.iterdir():
        path.unlink()


def ambiguous_reference(study):
    write_nifti(study.gtr_dir / "a.nii", study.reference["a"], np.eye(4))


def missing_folder(study):
    study.gen_dir = study.gen_dir.with_name("elsewhere")


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (two_generated_files, r"gen/a: holds 2 \.npz files \(older\.npz, samples_12x14x16\.npz\)"),
        (no_generated_file, r"gen/b: holds no \.npz file"),
        (no_generated_folder, r"gen/b: no such folder"),
        (other_shape, r"gen/b/samples.*: shape \(12, 14, 15\), but .*b\.npz is \(12, 14, 16\)"),
        (generated_suv, r"gen/b/samples.*: values up to .* are not SUV/16; pass --gen_units suv"),
        (reference_suv, r"gtr/b\.npz: values up to .* are not SUV/16; pass --gtr_units suv"),
        (truncated, r"gen/a/samples.*: is no complete \.npz file"),
        (damaged, r"gen/a/samples.*: is no complete \.npz file"),
        (npy_under_this_name, r"gtr/a\.npz: is no complete \.npz file"),
        (pickled_array, r"gtr/a\.npz: holds pickled objects"),
        (bare_pickle, r"gtr/a\.npz: is no complete \.npz file"),
        (no_arr_0, r"gtr/a\.npz: has no arr_0 \(it holds suv\)"),
        (reference_without_channels, r"gtr/a\.npz: arr_0 has shape \[12, 14, 16\], not \[2, X, Y, Z\]"),
        (generated_with_channels, r"gen/a/samples.*: arr_0 has shape \[1, 12, 14, 16\], not \[X, Y, Z\]"),
        (nan_voxel, r"gen/b/samples.*: has NaN or infinite voxels"),
        (complex_voxels, r"gen/b/samples.*: arr_0 holds complex128 values, not real numbers"),
        (missing_scan, r"mat/b\.mat: no such file"),
        (scan_without_suv, r"mat/a\.mat: has no array named suv"),
        (v73_scan_without_suv, r"mat/b\.mat: has no array named suv"),
        (not_a_scan, r"mat/a\.mat: is no complete \.mat file"),
        (truncated_scan, r"mat/a\.mat: is no complete \.mat file"),
        (scan_in_activity, r"mat/a\.mat: values up to 5\.432e\+04 can't be SUV, they are probably Bq/mL"),
        (empty_scan, r"mat/a\.mat: the largest value of suv is 0"),
        (no_references, r"gtr: holds no subject"),
        (ambiguous_reference, r"gtr: has a\.nii and a\.npz"),
        (missing_folder, r"elsewhere: no such folder"),
    ],
)
def test_mistakes_get_one_clear_line(study, run, mistake, message):
    mistake(study)
    with pytest.raises(InputError, match=message) as caught:
        run(study.published("--csv", str(study.csv)))
    assert "\n" not in str(caught.value)
    assert not study.csv.exists()
    assert not (study.gtr_dir / "executed").exists()


def test_a_mistake_ends_with_exit_code_2_and_no_traceback(study):
    no_generated_file(study)
    done = subprocess.run(
        [sys.executable, "evaluation/get_ssim_psnr.py", *study.arguments()],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": "."},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_csv_that_is_a_folder_is_refused_before_the_work(study, run, capsys):
    with pytest.raises(InputError, match="is a folder"):
        run(study.arguments("--csv", str(study.gtr_dir)))
    assert capsys.readouterr().out == ""


def test_suv_that_is_activity_or_normalised():
    with pytest.raises(InputError, match=r"x.nii: values up to 2e\+04 can't be SUV, they are probably Bq/mL"):
        to_suv(np.full((2, 2, 2), 2e4, np.float32), "suv", Path("x.nii"), "--gen_units")
    with pytest.raises(InputError, match=r"x.nii: values up to 0.5 are too low for SUV; pass --gen_units normalised"):
        to_suv(np.full((2, 2, 2), 0.5, np.float32), "suv", Path("x.nii"), "--gen_units")


def test_nifti_that_lies_elsewhere(study, run):
    affine = np.diag([2.0, 2, 3, 1])
    for name in ("a", "b"):
        (study.gtr_dir / f"{name}.npz").unlink()
        write_nifti(study.gtr_dir / f"{name}.nii.gz", study.reference[name], affine)
        write_nifti(study.gen_dir / name / "denoised.nii.gz", study.generated[name], affine)
    affine[2, 3] = 3
    write_nifti(study.gen_dir / "b" / "denoised.nii.gz", study.generated["b"], affine)
    with pytest.raises(InputError, match=r"denoised.nii.gz: lies elsewhere .*b.nii.gz"):
        run(study.arguments("--gtr_units", "suv", "--gen_units", "suv"))


def test_a_reference_in_bqml_without_a_weight(tmp_path):
    paths = [saved(tmp_path / f"{name}.nii", np.ones((4, 5, 6)), without("BodyWeight")) for name in ("a", "b")]
    with pytest.raises(InputError, match=r"give --weight_kg \(this command has no such flag: .* scripts/prepare\.py\)"):
        read_pair(SubjectFiles("a", *paths, None), "suv", "suv")


def test_a_reference_that_was_divided_by_16_twice(study, run):
    for folder in (study.gtr_dir, study.gen_dir):
        for path in folder.rglob("*.npz"):
            np.savez(path, arr_0=np.load(path)["arr_0"] / 16)
    with pytest.raises(InputError, match=r"are SUV up to 1, as no scan has; was it divided by 16 twice\?"):
        run(study.arguments())


def test_a_table_does_not_replace_a_volume(study, run):
    for volume in (study.gtr_dir / "a.npz", study.gen_dir / "a" / "samples_12x14x16.npz"):
        content = volume.read_bytes()
        with pytest.raises(InputError, match="the table would replace this volume; give --csv another name"):
            run(study.arguments("--csv", str(volume)))
        assert volume.read_bytes() == content
