"""The arrays that `scripts/test.py` leaves on the model's grid are SUV/16, whatever range the network has."""

import json
from dataclasses import replace

import numpy as np
import pytest

from evaluation.compared_files import SubjectFiles, read_pair
from guided_diffusion.checkpoints import load_checkpoint, save_checkpoint
from guided_diffusion.inference import denoise_volume, load_model
from guided_diffusion.inference.result_files import load_results
from guided_diffusion.inference.subjects import find_subjects
from guided_diffusion.pet.grid import Volume, centred_affine
from guided_diffusion.pet.volume import load_volume, save_volume
from guided_diffusion.report.facts import facts_of
from tests.denoising import SMALL_HEADER, denoise, samples_in


@pytest.fixture(scope="module", params=[(8.0, False), (64.0, False), (64.0, True)])
def denoised(request, small, tmp_path_factory):
    """A scan with SUV above 16, denoised by a network whose range ends elsewhere: results, scan, mean and SD in SUV."""
    tmp_path = tmp_path_factory.mktemp("scale")
    suv_max, linear = request.param
    grid = replace(SMALL_HEADER.preprocessing, suv_max=suv_max, linear_transfer=linear)
    weights = tmp_path / "weights.pt"
    header = replace(SMALL_HEADER, preprocessing=grid)
    save_checkpoint(weights, load_checkpoint(str(small / "small.pt")).state_dict, header)
    scan = tmp_path / "hot.npz"
    suv = np.load(small / "scan.npz")["arr_0"][..., :16]  # a single patch
    np.savez(scan, arr_0=suv * np.float32(20 / suv[0].max()))
    folder = denoise(scan, weights, tmp_path / "out" / "hot", "--realisations", "2")
    volume = load_volume(scan, bare_voxel_mm=grid.voxel_mm)
    result = denoise_volume(volume, load_model(str(weights), {"realisations": 2}))
    return folder, scan, result.samples * suv_max, result.samples_sd * suv_max


def test_arrays_are_in_units_of_suv_16(denoised):
    folder, _, suv, deviation = denoised
    np.testing.assert_allclose(samples_in(folder) * 16, np.minimum(suv, 16), atol=1e-5)
    (file,) = folder.glob("uncertainty_*.npz")
    np.testing.assert_allclose(np.load(file)["arr_0"] * 16, deviation, atol=1e-5)
    assert json.loads((folder / "run.json").read_text())["model_grid"]["samples_suv"] == 16


def test_what_the_arrays_lack_is_said_on_the_page_and_in_the_log(denoised):
    """An array has no other file that would hold it."""
    folder, _, _, _ = denoised
    manifest = json.loads((folder / "run.json").read_text())
    end = min(manifest["settings"]["preprocessing"]["suv_max"], 16)
    assert manifest["model_grid"]["cut_off_at_suv"] == end
    said = f"values above SUV {end:g} are cut off in samples_*.npz, whatever --above_cap says; give the scan as NIfTI"
    assert said in (folder / "log.txt").read_text()
    page = dict(facts_of(manifest))["above the model's largest SUV"]
    assert page.endswith(f"; the only file of the result, samples_*.npz, ends at SUV {end:g}")


@pytest.mark.parametrize(
    ("kind", "hottest", "above_cap"), [("npz", 9, "keep"), ("npz", 20, "clip"), ("nii.gz", 20, "keep")]
)
def test_files_that_hold_all_of_a_result_are_no_matter(small, tmp_path, kind, hottest, above_cap):
    suv = np.load(small / "scan.npz")["arr_0"][0, ..., :16]
    scan = Volume(suv * np.float32(hottest / suv.max()), centred_affine(suv.shape, 4.0, "PLS"))
    save_volume(scan, tmp_path / f"scan.{kind}")
    denoise(tmp_path / f"scan.{kind}", small / "small.pt", tmp_path / "out", "--above_cap", above_cap)
    manifest = json.loads((tmp_path / "out" / "run.json").read_text())
    assert manifest["model_grid"]["cut_off_at_suv"] is None
    assert "are cut off in" not in (tmp_path / "out" / "log.txt").read_text()
    assert "the only file" not in dict(facts_of(manifest))["above the model's largest SUV"]


def test_the_evaluation_reads_them_as_it_says(denoised):
    folder, scan, suv, _ = denoised
    (file,) = folder.glob("samples_*.npz")
    _, generated = read_pair(SubjectFiles("hot", scan, file, None), "suv", "normalised")
    np.testing.assert_allclose(generated, np.clip(suv, 0, 16), atol=1e-5)


def test_a_page_made_later_shows_them(denoised):
    folder, path, suv, deviation = denoised
    (subject,) = find_subjects(str(path), str(folder))
    scan = load_volume(path, bare_voxel_mm=SMALL_HEADER.preprocessing.voxel_mm)
    manifest = subject.read_manifest()
    image, spread = load_results(subject, scan, manifest)
    grid = manifest["settings"]["preprocessing"]
    if grid["linear_transfer"]:
        np.testing.assert_allclose(image.data, np.where(suv < 16, np.maximum(suv, 0), scan.data), atol=1e-4)
    else:
        below = scan.data < min(16, grid["suv_max"])
        np.testing.assert_allclose(image.data[below], np.clip(suv, 0, 16)[below], atol=1e-4)
    np.testing.assert_allclose(spread.data, deviation, atol=1e-4)
