"""`scripts/test.py` as its users run it: published numbers, any number of ranks, files out, mistakes."""

import gzip
import json
import shutil
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from tqdm import tqdm

from guided_diffusion import independent
from guided_diffusion.checkpoints import save_checkpoint
from guided_diffusion.config import DiffusionConfig, Header, ModelConfig, PreprocessingConfig, SamplerConfig
from guided_diffusion.errors import InputError
from guided_diffusion.gaussian_diffusion import GaussianDiffusion
from guided_diffusion.memory_estimate import network_bytes
from guided_diffusion.noise import axial_noise
from guided_diffusion.pet.patches import plan_axial_patches
from guided_diffusion.pet.suv import SUVOverrides
from guided_diffusion.pet.volume import load_volume
from guided_diffusion.script_util import (
    create_model,
    sr_create_model_and_diffusion,
    sr_model_and_diffusion_defaults,
)
from guided_diffusion.subjects import find_subjects
from guided_diffusion.test_command import create_parser, denoise_subjects
from tests.dicom_series import write_series
from tests.golden_weights import GOLDEN, fill
from tests.mpi import assert_refused, needs_mpiexec, run_script, succeed

GOLDEN_FLAGS = {
    "attention_resolutions": "1000",
    "large_size": 96,
    "small_size": 96,
    "num_channels": 32,
    "num_head_channels": 64,
    "learn_sigma": True,
    "resblock_updown": True,
    "use_scale_shift_norm": True,
    "use_fp16": False,
}
SMALL_MODEL = ModelConfig(
    large_size=96, num_channels=32, num_res_blocks=1, attention_resolutions="1000", channel_mult="1,1", add_low_res=True
)
SMALL_HEADER = Header(
    method="ddpm3d",
    model=SMALL_MODEL,
    diffusion=DiffusionConfig(predict_xstart=True),
    preprocessing=PreprocessingConfig(voxel_mm=(4.0, 4.0, 4.0), patch_size=16, overlap=4),
    sampler=SamplerConfig(timestep_respacing="3"),
    training={},
)


@pytest.fixture(scope="module")
def golden_files(tmp_path_factory):
    """The published layout with synthetic weights, and the golden low-dose volume."""
    folder = tmp_path_factory.mktemp("golden")
    model, _ = sr_create_model_and_diffusion(**GOLDEN_FLAGS)
    torch.save(fill(model).state_dict(), folder / "model.pt")
    suv = np.load(GOLDEN / "end_to_end.npz")["input_suv"].astype(np.float32)
    np.savez(folder / "subject.npz", arr_0=suv)
    return folder / "subject.npz", folder / "model.pt"


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A small network with a header, and a scan of 6 patches as `.npz` and as NIfTI on an odd grid."""
    folder = tmp_path_factory.mktemp("small")
    model = fill(create_model(SMALL_HEADER.model, SMALL_HEADER.diffusion))
    save_checkpoint(folder / "small.pt", model.state_dict(), SMALL_HEADER)
    rng = np.random.default_rng(0)
    np.savez(folder / "scan.npz", arr_0=rng.gamma(2.0, 1.0, (2, 18, 21, 73)).astype(np.float32))
    affine = np.diag([-5.0, 4.0, 3.0, 1.0])
    affine[:3, 3] = [40.0, -30.0, 12.0]
    nib.save(nib.Nifti1Image(rng.gamma(2.0, 1.0, (20, 24, 40)).astype(np.float32), affine), folder / "scan.nii.gz")
    return folder


def flags_of(arguments: dict) -> list[str]:
    return [text for name, value in arguments.items() for text in (f"--{name}", str(value))]


def arguments_of(base_samples, model, out, *more) -> list[str]:
    return [str(text) for text in ("--base_samples", base_samples, "--model_path", model, "--save_dir", out, *more)]


def denoise(base_samples, model, out, *more) -> Path:
    """In this process, without the start-up of another; returns the results' folder."""
    denoise_subjects(create_parser("test"), arguments_of(base_samples, model, out, *more))
    return out


def denoise_on(ranks, base_samples, model, out, *more, **how):
    return succeed("scripts/test.py", *arguments_of(base_samples, model, out, *more), ranks=ranks, **how)


def samples_in(folder) -> np.ndarray:
    (file,) = folder.glob("samples_*.npz")
    return np.load(file)["arr_0"]


def check_against_golden(golden_files, out, ranks):
    flags = ("--timestep_respacing", 4, "--num_samples", 6, *flags_of(GOLDEN_FLAGS))
    denoise_on(ranks, *golden_files, out, *flags, timeout=900)
    ours = np.load(out / "samples_32x48x520.npz")["arr_0"]
    np.testing.assert_allclose(ours, np.load(GOLDEN / "end_to_end.npz")["output"], rtol=0, atol=1e-3)
    return ours


def check_equal_on(every_number_of_ranks, small, tmp_path):
    volumes = []
    for ranks in every_number_of_ranks:
        denoise_on(ranks, small / "scan.npz", small / "small.pt", tmp_path / str(ranks))
        volumes.append(samples_in(tmp_path / str(ranks)))
        patches = json.loads((tmp_path / str(ranks) / "run.json").read_text())["patches"]
        assert [number for patch in patches for number in patch["patches"]] == list(range(6))
        assert {patch["rank"] for patch in patches} == set(range(min(6, max(1, ranks))))
    assert volumes[0].std() > 0.01
    for other in volumes[1:]:
        np.testing.assert_array_equal(other, volumes[0])


@needs_mpiexec
def test_published_volume_on_four_ranks(golden_files, tmp_path):
    check_against_golden(golden_files, tmp_path, ranks=4)


@needs_mpiexec
@pytest.mark.slow
def test_published_volume_on_any_number_of_ranks(golden_files, tmp_path):
    volumes = [check_against_golden(golden_files, tmp_path / str(n), ranks=n) for n in (1, 2, 6, 7, 8)]
    for other in volumes[1:]:
        np.testing.assert_array_equal(other, volumes[0])


@needs_mpiexec
def test_alone_on_some_ranks_and_on_more_than_there_are_patches_the_bits_are_the_same(small, tmp_path):
    check_equal_on((0, 2, 8), small, tmp_path)


@needs_mpiexec
@pytest.mark.slow
def test_every_number_of_ranks_gives_the_same_bits(small, tmp_path):
    check_equal_on(range(1, 9), small, tmp_path)


def block_mpi4py(folder) -> dict:
    """A folder in which mpi4py cannot be imported, as where there is no MPI library."""
    (folder / "mpi4py").mkdir()
    (folder / "mpi4py" / "__init__.py").write_text("raise ImportError('no MPI here')\n")
    return {"path": folder}


def test_runs_without_an_mpi_library(small, tmp_path):
    denoise_on(0, small / "scan.npz", small / "small.pt", tmp_path / "out", **block_mpi4py(tmp_path))
    with_mpi = samples_in(denoise(small / "scan.npz", small / "small.pt", tmp_path / "with_mpi"))
    np.testing.assert_array_equal(samples_in(tmp_path / "out"), with_mpi)


@needs_mpiexec
def test_several_ranks_without_an_mpi_library_are_refused(small, tmp_path):
    arguments = arguments_of(small / "scan.npz", small / "small.pt", tmp_path / "out")
    done = run_script("scripts/test.py", *arguments, ranks=2, **block_mpi4py(tmp_path))
    assert done.returncode == 2
    assert "install mpi4py" in done.stderr


def test_ranks_that_cannot_see_each_other_are_refused(small, tmp_path):
    """A launcher of another MPI library than mpi4py's: every process would think itself alone."""
    arguments = arguments_of(small / "scan.npz", small / "small.pt", tmp_path)
    done = run_script("scripts/test.py", *arguments, OMPI_COMM_WORLD_SIZE="4")
    assert done.returncode == 2
    assert "error: started as 4 ranks that cannot see each other" in done.stderr


def test_a_nifti_comes_back_on_its_own_grid(small, tmp_path):
    denoise(small / "scan.nii.gz", small / "small.pt", tmp_path)
    scan, result = nib.load(small / "scan.nii.gz"), nib.load(tmp_path / "denoised.nii.gz")
    assert result.shape == scan.shape
    np.testing.assert_allclose(result.affine, scan.affine, atol=1e-4)
    assert result.get_fdata().min() >= 0
    assert json.loads((tmp_path / "run.json").read_text())["input"]["shape"] == [20, 24, 40]


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


def test_sampler_seed_and_noise_change_the_sample_and_batches_do_not(small, tmp_path):
    variants = {
        "plain": (),
        "ddim": ("--use_ddim", True),
        "named": ("--sampler", "ddim"),
        "dpmpp_2m": ("--sampler", "dpmpp_2m"),
        "dpmpp_2m_sde": ("--sampler", "dpmpp_2m_sde"),
        "seed": ("--seed", 4),
        "noise": ("--noise", "per_patch"),
        "batches": ("--batch_size", 4),
    }
    volumes = {
        name: samples_in(denoise(small / "scan.npz", small / "small.pt", tmp_path / name, *more))
        for name, more in variants.items()
    }
    np.testing.assert_allclose(volumes["batches"], volumes["plain"], atol=1e-5)
    np.testing.assert_array_equal(volumes["named"], volumes["ddim"])
    different = ("plain", "ddim", "dpmpp_2m", "dpmpp_2m_sde", "seed", "noise")
    for one, other in combinations(different, 2):
        assert np.abs(volumes[one] - volumes[other]).mean() > 1e-3, (one, other)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_walk_from_the_low_dose_image_takes_the_steps_that_are_left(small, tmp_path, monkeypatch, batch_size):
    """By value: DDIM by hand from the named noise, over the two of five timesteps that lie below 400. The progress bar
    and the manifest count them."""
    bars = []

    def shown(**options):
        bars.append(tqdm(**options | {"disable": False}))
        return bars[0]

    monkeypatch.setattr(independent, "tqdm", shown)
    start = ("--start_from", "low_dose", "--start_step", 400, "--timestep_respacing", 5, "--sampler", "ddim")
    ours = samples_in(denoise(small / "scan.npz", small / "small.pt", tmp_path, *start, "--batch_size", batch_size))
    low_dose = np.pad(np.clip(np.load(small / "scan.npz")["arr_0"][0], 0, 16) / 16, ((0, 0), (0, 1), (0, 0)))
    plan = plan_axial_patches(73, 16, 4)
    model = fill(create_model(SMALL_HEADER.model, SMALL_HEADER.diffusion)).eval()
    signal = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    patches = []
    for number, first in enumerate(plan.starts):
        low_res = torch.from_numpy(plan.extract(low_dose, number)).permute(2, 0, 1)[None, None].contiguous()
        noise = axial_noise(10, 0, 1000, range(first, first + 16), low_res.shape[-2:])
        x = signal[250] ** 0.5 * low_res + (1 - signal[250]) ** 0.5 * noise
        with torch.no_grad():
            image = model(x, torch.tensor([250]), low_res=low_res).clamp(-1, 1)
            noise = (x - signal[250] ** 0.5 * image) / (1 - signal[250]) ** 0.5
            x = signal[0] ** 0.5 * image + (1 - signal[0]) ** 0.5 * noise
            image = model(x, torch.tensor([0]), low_res=low_res).clamp(-1, 1)
        patches.append(image[0, 0].permute(1, 2, 0).numpy())
    # Twice the rounding of the network for inference against the plain one, 1e-5 a call.
    np.testing.assert_allclose(ours, plan.stitch(np.stack(patches))[:, :21], atol=2e-5)
    manifest = json.loads((tmp_path / "run.json").read_text())
    assert manifest["nfe_per_patch_and_realisation"] == 2
    assert manifest["settings"]["sampling"]["start_from"] == "low_dose"
    assert manifest["settings"]["sampling"]["start_step"] == 400
    assert bars[0].n == bars[0].total == 2 * len(manifest["patches"])


def test_the_paper_preset_draws_as_published(small, tmp_path):
    """Every patch by itself, from the generator's seed 10, through the published sampling loop."""
    arguments = ("--preset", "paper", "--timestep_respacing", "3", "--precision", "float32")
    ours = samples_in(denoise(small / "scan.npz", small / "small.pt", tmp_path, *arguments))
    low_dose = np.pad(np.clip(np.load(small / "scan.npz")["arr_0"][0], 0, 16) / 16, ((0, 0), (0, 1), (0, 0)))
    plan = plan_axial_patches(73, 16, 4)
    model = fill(create_model(SMALL_HEADER.model, SMALL_HEADER.diffusion))
    diffusion = GaussianDiffusion(replace(SMALL_HEADER.diffusion, timestep_respacing="3"))
    patches = []
    for number in range(len(plan.starts)):
        low_res = torch.from_numpy(plan.extract(low_dose, number)).permute(2, 0, 1)[None, None].contiguous()
        torch.manual_seed(10)
        sample = diffusion.p_sample_loop(model, low_res.shape, model_kwargs={"low_res": low_res})
        patches.append(sample[0, 0].permute(1, 2, 0).numpy())
    # Twice the rounding of the network for inference against the plain one, 1e-5 a call.
    np.testing.assert_allclose(ours, plan.stitch(np.stack(patches))[:, :21], atol=2e-5)


def test_a_folder_of_subjects_and_a_rerun(small, tmp_path):
    subjects = tmp_path / "subjects"
    subjects.mkdir()
    scan = np.load(small / "scan.npz")["arr_0"]
    for name, factor in (("one", 1.0), ("two", 0.5)):
        np.savez(subjects / f"{name}.npz", arr_0=scan * np.float32(factor))
    stale = tmp_path / "out" / "one" / "samples_1x1x1.npz"
    stale.parent.mkdir(parents=True)
    stale.touch()
    denoise(subjects, small / "small.pt", tmp_path / "out")
    for name in ("one", "two"):
        assert sorted(file.name for file in (tmp_path / "out" / name).iterdir()) == ["run.json", "samples_18x21x73.npz"]
        alone = samples_in(denoise(subjects / f"{name}.npz", small / "small.pt", tmp_path / f"alone_{name}"))
        np.testing.assert_array_equal(samples_in(tmp_path / "out" / name), alone)


def test_an_interrupted_run_is_continued_to_the_same_bits(small, tmp_path, monkeypatch):
    arguments = (small / "scan.npz", small / "small.pt", tmp_path / "out", "--resume", True)
    whole = samples_in(denoise(small / "scan.npz", small / "small.pt", tmp_path / "whole"))
    sample, calls = independent.sample_batch, []

    def failing(task, *rest):
        calls.append(task.starts)
        if len(calls) == 3:
            raise RuntimeError("the power is out")
        return sample(task, *rest)

    monkeypatch.setattr(independent, "sample_batch", failing)
    with pytest.raises(RuntimeError, match="power"):
        denoise(*arguments)
    assert not list((tmp_path / "out").glob("samples*"))
    np.testing.assert_array_equal(samples_in(denoise(*arguments)), whole)
    assert calls == [(0,), (12,), (24,), (24,), (36,), (48,), (57,)]
    denoise(*arguments)
    assert len(calls) == 7
    assert "finished already" in (tmp_path / "out" / "log.txt").read_text()
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["log.txt", "run.json", "samples_18x21x73.npz"]
    denoise(*arguments, "--seed", 11)
    assert len(calls) == 13


@needs_mpiexec
def test_realisations_are_the_same_on_any_number_of_ranks_and_go_on_after_a_break(small, tmp_path, monkeypatch):
    arguments = (small / "scan.nii.gz", small / "small.pt")
    more = ("--realisations", 3, "--timestep_respacing", "1", "--resume", True)
    denoise_on(4, *arguments, tmp_path / "ranks", *more)
    sample, calls = independent.sample_batch, []

    def failing(task, *rest):
        calls.append(task)
        if len(calls) == 5:
            raise RuntimeError("the power is out")
        return sample(task, *rest)

    monkeypatch.setattr(independent, "sample_batch", failing)
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


def test_info_says_what_memory_a_run_would_take_and_computes_nothing(small, tmp_path, monkeypatch):
    monkeypatch.setattr(independent, "sample_batch", None)
    denoise(small / "scan.npz", small / "small.pt", tmp_path, "--info", "--batch_size", 2)
    assert [file.name for file in tmp_path.iterdir()] == ["log.txt"]
    said = (tmp_path / "log.txt").read_text()
    expected = network_bytes(SMALL_MODEL, (16, 18, 22), torch.float32) / 2**30
    assert f"6 patches of 16 x 18 x 22, 2 at a time: a network call takes about {expected:.2f} GiB" in said


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
    assert scan.exists()
    denoise(small / "scan.npz", small / "small.pt", tmp_path)
    assert (tmp_path / "samples_of_mine.npz").exists()


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


def test_half_precision_on_a_cpu_is_bfloat16_with_a_notice(small, tmp_path):
    exact = samples_in(denoise(small / "scan.npz", small / "small.pt", tmp_path / "full"))
    reduced = samples_in(denoise(small / "scan.npz", small / "small.pt", tmp_path / "half", "--use_fp16", True))
    assert "bfloat16" in (tmp_path / "half" / "log.txt").read_text()
    assert "bfloat16" not in (tmp_path / "full" / "log.txt").read_text()
    assert 0 < np.abs(reduced - exact).mean() < 0.02


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


BROKEN_INPUTS = {
    "missing": (None, "no such file"),
    "no_arr_0": (lambda path: np.savez(path, other=np.ones((2, 8, 8, 8))), "arr_0"),
    "axes": (lambda path: np.savez(path, arr_0=np.ones((8, 8))), "shape"),
    "nan": (lambda path: np.savez(path, arr_0=np.full((2, 16, 16, 16), np.nan, np.float32)), "NaN"),
    "becquerel": (lambda path: np.savez(path, arr_0=np.full((2, 16, 16, 16), 5000, np.float32)), "Bq/mL"),
    "pickled": (lambda path: np.savez(path, arr_0=np.array([{}], dtype=object)), "pickle"),
}


@pytest.mark.parametrize("name", BROKEN_INPUTS)
def test_broken_input_is_refused(name, small, tmp_path):
    make, words = BROKEN_INPUTS[name]
    if make:
        make(tmp_path / "scan.npz")
    with pytest.raises(InputError, match=rf"scan\.npz.*{words}"):
        denoise(tmp_path / "scan.npz", small / "small.pt", tmp_path / "out")
    assert not list((tmp_path / "out").glob("samples*"))


def test_truncated_npz_is_refused(small, tmp_path):
    (tmp_path / "scan.npz").write_bytes((small / "scan.npz").read_bytes()[:-5000])
    with pytest.raises(InputError, match=r"scan\.npz"):
        denoise(tmp_path / "scan.npz", small / "small.pt", tmp_path / "out")


def test_empty_folder_is_refused(small, tmp_path):
    (tmp_path / "series").mkdir()
    with pytest.raises(InputError, match="series: the folder is empty"):
        denoise(tmp_path / "series", small / "small.pt", tmp_path / "out")


def test_unwritable_save_dir_is_refused(small, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write"):
        denoise(small / "scan.npz", small / "small.pt", tmp_path / "file" / "out")


def test_weights_that_do_not_fit_are_refused_with_advice(golden_files, tmp_path):
    with pytest.raises(InputError, match=r"model\.pt.*misshapen.*--num_channels 32"):
        denoise(*golden_files, tmp_path, *flags_of(GOLDEN_FLAGS | {"num_channels": 64}))


def test_wrong_number_of_samples_is_refused(golden_files, tmp_path):
    with pytest.raises(InputError, match=r"--num_samples 5.*6 patches"):
        denoise(*golden_files, tmp_path, "--num_samples", 5, *flags_of(GOLDEN_FLAGS))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--colour", "red"), "--colour"),
        (("--timestep_respacing", "x"), "respacing"),
        (("--timestep_respacing", "2000"), "2000 of a section's 1000"),
        (("--use_ddim", "perhaps"), "use_ddim"),
        (("--use_ddim", "True", "--sampler", "dpmpp_2m"), "--use_ddim True contradicts --sampler dpmpp_2m"),
        (("--sampler", "euler"), "--sampler"),
        (("--start_step", "100"), "needs --start_from low_dose"),
        (("--start_from", "low_dose"), "needs --start_step"),
        (("--start_from", "low_dose", "--start_step", "1000"), "--start_step 1000: not a timestep of 0 to 999"),
        (("--batch_size", "0"), "batch_size"),
        (("--seed", "-1"), "seed"),
        (("--realisations", "0"), "realisations"),
        (("--fuse", "each_step", "--noise", "per_patch"), "--noise field"),
        (("--threads", "-1"), "threads"),
        (("--model_path", "nowhere://model.pt"), "cannot be fetched"),
        (("--write_dicom", "True"), "needs a DICOM input"),
        (("--attention_resolutions", "x"), "comma list of positive"),
        (("--attention_resolutions", "0"), "comma list of positive"),
        (("--channel_mult", "a"), "comma list of positive"),
        (("--num_channels", "30"), "multiple of 32"),
        (("--diffusion_steps", "0"), "at least 1"),
        (("--dropout", "2"), "dropout"),
        (("--dims", "4"), "2 or 3"),
        (("--patch_size", "8", "--overlap", "7"), "overlap"),
        (("--model_path", "nothing.pt"), "nothing.pt: no such"),
        (("--model_path", ""), "--model_path is missing"),
        (("--base_samples", ""), "--base_samples is missing"),
    ],
)
def test_senseless_flags_are_refused(arguments, words, small, tmp_path):
    with pytest.raises(InputError, match=words):
        denoise(small / "scan.npz", small / "small.pt", tmp_path, *arguments)


@needs_mpiexec
def test_a_mistake_is_one_line_from_one_rank(small, tmp_path):
    nothing = arguments_of(tmp_path / "nothing.npz", small / "small.pt", tmp_path / "out")
    for ranks in (0, 3):
        assert_refused(run_script("scripts/test.py", *nothing, ranks=ranks), "nothing.npz", "no such file")
    senseless = arguments_of(small / "scan.npz", small / "small.pt", tmp_path / "out", "--timestep_respacing", "x")
    assert_refused(run_script("scripts/test.py", *senseless, ranks=3), "respacing")


def test_the_example_for_192_304_612_checks_the_number_of_patches(small, tmp_path):
    arguments = arguments_of(small / "scan.npz", small / "small.pt", tmp_path)
    assert_refused(run_script("scripts/test_192_304_612.py", *arguments), "--num_samples 7", "73 slices")
