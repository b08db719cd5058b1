"""`scripts/test.py` as its users run it: files in, files out, and what it says."""

import gzip
import json
import shutil

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch

from guided_diffusion.commands.denoise_flags import create_parser
from guided_diffusion.inference import blend_at_end
from guided_diffusion.inference.result_files import load_results
from guided_diffusion.inference.subjects import find_subjects
from guided_diffusion.network_memory import network_bytes
from guided_diffusion.pet.grid import Volume, centred_affine
from guided_diffusion.pet.suv import SUVOverrides
from guided_diffusion.pet.volume import load_volume, save_volume
from guided_diffusion.script_util import (
    sr_model_and_diffusion_defaults,
)
from tests.denoising import (
    SMALL_MODEL,
    denoise,
    samples_in,
)
from tests.dicom_series import write_series


def test_a_nifti_comes_back_on_its_own_grid(small, tmp_path):
    denoise(small / "scan.nii.gz", small / "small.pt", tmp_path)
    scan, result = nib.load(small / "scan.nii.gz"), nib.load(tmp_path / "denoised.nii.gz")
    assert result.shape == scan.shape
    np.testing.assert_allclose(result.affine, scan.affine, atol=1e-4)
    assert result.get_fdata().min() >= 0
    assert json.loads((tmp_path / "run.json").read_text())["input"]["shape"] == [20, 24, 40]


def test_an_array_with_other_axes_comes_back_on_its_own_grid(small, tmp_path):
    """As many voxels as the model's grid has, but turned and mirrored: an array without affine would be misplaced."""
    data = np.random.default_rng(2).gamma(2.0, 1.0, (20, 20, 20)).astype(np.float32)
    scan = Volume(data, centred_affine(data.shape, 4.0, "RAS"))
    for name in ("scan.npz", "scan.nii.gz"):
        save_volume(scan, tmp_path / name)
        denoise(tmp_path / name, small / "small.pt", tmp_path / "out" / name)
    assert samples_in(tmp_path / "out" / "scan.npz").shape == data.shape
    of_array, of_nifti = (
        load_volume(tmp_path / "out" / name / "denoised.nii.gz") for name in ("scan.npz", "scan.nii.gz")
    )
    np.testing.assert_array_equal(of_array.data, of_nifti.data)
    np.testing.assert_allclose(of_array.affine, scan.affine, atol=1e-4)
    (subject,) = find_subjects(str(tmp_path / "scan.npz"), str(tmp_path / "out" / "scan.npz"))
    loaded, _ = load_results(subject, scan, subject.read_manifest())
    np.testing.assert_array_equal(loaded.data, of_array.data)


def test_an_array_that_says_to_lie_on_the_models_grid_needs_no_other_file(small, tmp_path):
    data = np.random.default_rng(2).gamma(2.0, 1.0, (20, 20, 20)).astype(np.float32)
    save_volume(Volume(data, centred_affine(data.shape, 4.0, "PLS")), tmp_path / "scan.npz")
    denoise(tmp_path / "scan.npz", small / "small.pt", tmp_path / "out")
    assert samples_in(tmp_path / "out").shape == data.shape
    assert not (tmp_path / "out" / "denoised.nii.gz").exists()


def test_the_manifest_says_what_was_done(small, tmp_path):
    denoise(small / "scan.npz", small / "small.pt", tmp_path, "--seed", 3, "--timestep_respacing", "2")
    manifest = json.loads((tmp_path / "run.json").read_text())
    assert manifest["settings"]["preset"] == "fast"
    assert manifest["settings"]["sampling"]["seed"] == 3
    assert manifest["settings"]["diffusion"]["timestep_respacing"] == "2"
    assert manifest["settings"]["sampling"]["sampler"] == "ddpm"
    assert manifest["nfe_per_patch_and_realisation"] == 2
    assert manifest["plan"]["starts"] == [0, 12, 24, 36, 48, 57]
    assert manifest["flags"]["timestep_respacing"] == "2"
    assert len(manifest["checkpoint"]["sha256"]) == 64
    assert all(patch["seconds"] > 0 for patch in manifest["patches"])
    assert "wrote" in (tmp_path / "log.txt").read_text()


def test_info_says_what_memory_a_run_would_take_and_computes_nothing(small, tmp_path, monkeypatch):
    monkeypatch.setattr(blend_at_end, "sample_batch", None)
    denoise(small / "scan.npz", small / "small.pt", tmp_path, "--info", "--batch_size", 2)
    assert [file.name for file in tmp_path.iterdir()] == ["log.txt"]
    said = (tmp_path / "log.txt").read_text()
    expected = network_bytes(SMALL_MODEL, (16, 18, 22), torch.float32) / 2**30
    assert f"6 patches of 16 x 18 x 22, 2 at a time: a network call takes about {expected:.2f} GiB" in said


@pytest.fixture
def dicom_series(tmp_path):
    """12 slices of 4 x 5 x 3 mm whose header holds a name and a birth date, in a study beside a folder of CT."""
    stored = np.random.default_rng(1).integers(500, 8000, (10, 11, 12)).astype(np.int16)
    write_series(tmp_path / "study" / "PT", stored, slopes=np.linspace(0.5, 2.0, 12))
    return tmp_path / "study" / "PT"


def test_a_dicom_series_comes_back_as_nifti_and_dicom(dicom_series, small, tmp_path):
    """SUV and geometry are those of the series, and nothing written names the patient."""
    out = tmp_path / "out"
    denoise(dicom_series, small / "small.pt", out, "--write_dicom", True, "--suv_basis", "lbm", "--weight_kg", 80)
    scan, derived = load_volume(dicom_series, overrides=SUVOverrides(weight_kg=80)), load_volume(out / "denoised_dicom")
    nifti = nib.load(out / "denoised.nii.gz")
    np.testing.assert_allclose(derived.affine, scan.affine, atol=1e-3)
    np.testing.assert_allclose(nifti.affine, scan.affine, atol=1e-3)
    ratio = scan.source["suv_basis_ratios"]["lbm"]
    np.testing.assert_allclose(nifti.get_fdata(), derived.data * ratio, atol=0.003 * nifti.get_fdata().max())
    assert not np.allclose(derived.data, scan.data, atol=0.1)
    assert json.loads((out / "run.json").read_text())["input"]["source"]["suv_overrides"] == {"weight_kg": 80.0}
    for file in (out / "run.json", out / "log.txt", out / "denoised.nii.gz"):
        content = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        assert b"Sentinel" not in content
        assert b"19481231" not in content


def test_a_folder_of_one_study_is_one_subject(dicom_series, tmp_path):
    again = dicom_series.parent / "again"
    shutil.copytree(dicom_series, again)
    assert [subject.path for subject in find_subjects(str(dicom_series.parent), str(tmp_path / "o"))] == [
        str(dicom_series.parent)
    ]
    for file in again.iterdir():
        dataset = pydicom.dcmread(file)
        dataset.StudyInstanceUID = pydicom.uid.generate_uid()
        dataset.save_as(file)
    assert len(find_subjects(str(dicom_series.parent), str(tmp_path / "o"))) == 2


def test_flags_that_contradict_a_header_are_reported(small, tmp_path):
    denoise(small / "scan.npz", small / "small.pt", tmp_path, "--num_channels", 128, "--large_size", 96)
    assert "ignored: --num_channels 128\n" in (tmp_path / "log.txt").read_text()


def test_help_explains_every_flag():
    actions = [action for action in create_parser("test")._actions if action.dest != "help"]
    published = {"base_samples", "model_path", "save_dir", "num_samples", "batch_size", "use_ddim", "clip_denoised"}
    assert published | set(sr_model_and_diffusion_defaults()) <= {action.dest for action in actions}
    for action in actions:
        assert action.help, action.dest
        assert "SUPPRESS" not in action.help
