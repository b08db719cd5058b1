"""`scripts/test.py` as its users run it: published numbers, any number of ranks, files out, mistakes."""

import json

import nibabel as nib
import numpy as np
import pytest
import torch

from guided_diffusion.checkpoints import save_checkpoint
from guided_diffusion.config import DiffusionConfig, Header, ModelConfig, PreprocessingConfig, SamplerConfig
from guided_diffusion.script_util import create_model, sr_create_model_and_diffusion
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
    sampler=SamplerConfig(use_ddim=False, timestep_respacing="3"),
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
    """A small network with a header, and a virtual scan of 8 patches as `.npz` and as NIfTI on an odd grid."""
    folder = tmp_path_factory.mktemp("small")
    model = fill(create_model(SMALL_HEADER.model, SMALL_HEADER.diffusion))
    save_checkpoint(folder / "small.pt", model.state_dict(), SMALL_HEADER)
    rng = np.random.default_rng(0)
    np.savez(folder / "scan.npz", arr_0=rng.gamma(2.0, 1.0, (2, 18, 21, 97)).astype(np.float32))
    affine = np.diag([-5.0, 4.0, 3.0, 1.0])
    affine[:3, 3] = [40.0, -30.0, 12.0]
    nib.save(nib.Nifti1Image(rng.gamma(2.0, 1.0, (20, 24, 40)).astype(np.float32), affine), folder / "scan.nii.gz")
    return folder


def flags_of(arguments: dict) -> list[str]:
    return [text for name, value in arguments.items() for text in (f"--{name}", str(value))]


def denoise(base_samples, model, out, *more, **how):
    arguments = ("--base_samples", base_samples, "--model_path", model, "--save_dir", out, *more)
    return run_script("scripts/test.py", *arguments, **how)


def check_against_golden(golden_files, out, ranks):
    done = denoise(
        *golden_files,
        out,
        "--timestep_respacing",
        4,
        "--num_samples",
        6,
        *flags_of(GOLDEN_FLAGS),
        ranks=ranks,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    ours = np.load(out / "samples_32x48x520.npz")["arr_0"]
    np.testing.assert_allclose(ours, np.load(GOLDEN / "end_to_end.npz")["output"], rtol=0, atol=1e-3)
    return ours


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
def test_every_number_of_ranks_gives_the_same_bits(small, tmp_path):
    volumes = []
    for ranks in (0, 1, 2, 3, 4, 5, 6, 7, 8):
        done = denoise(small / "scan.npz", small / "small.pt", tmp_path / str(ranks), ranks=ranks)
        assert done.returncode == 0, done.stderr
        volumes.append(np.load(tmp_path / str(ranks) / "samples_18x21x97.npz")["arr_0"])
        patches = json.loads((tmp_path / str(ranks) / "run.json").read_text())["patches"]
        assert [number for patch in patches for number in patch["patches"]] == list(range(8))
        assert {patch["rank"] for patch in patches} == set(range(max(1, ranks)))
    assert volumes[0].std() > 0.01
    for other in volumes[1:]:
        np.testing.assert_array_equal(other, volumes[0])


@needs_mpiexec
def test_ranks_without_a_patch_finish(small, tmp_path):
    done = denoise(small / "scan.npz", small / "small.pt", tmp_path, "--patch_size", 60, ranks=4, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run.json").read_text())["plan"]["starts"] == [0, 37]


def test_runs_without_an_mpi_library(small, tmp_path):
    (tmp_path / "mpi4py").mkdir()
    (tmp_path / "mpi4py" / "__init__.py").write_text("raise ImportError('no MPI here')\n")
    done = denoise(small / "scan.npz", small / "small.pt", tmp_path / "out", path=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "samples_18x21x97.npz").exists()


@needs_mpiexec
def test_several_ranks_without_an_mpi_library_are_refused(small, tmp_path):
    (tmp_path / "mpi4py").mkdir()
    (tmp_path / "mpi4py" / "__init__.py").write_text("raise ImportError('no MPI here')\n")
    done = denoise(small / "scan.npz", small / "small.pt", tmp_path / "out", ranks=2, path=tmp_path)
    assert done.returncode == 2
    assert "install mpi4py" in done.stderr


def test_a_nifti_comes_back_on_its_own_grid(small, tmp_path):
    done = denoise(small / "scan.nii.gz", small / "small.pt", tmp_path)
    assert done.returncode == 0, done.stderr
    scan, result = nib.load(small / "scan.nii.gz"), nib.load(tmp_path / "denoised.nii.gz")
    assert result.shape == scan.shape
    np.testing.assert_allclose(result.affine, scan.affine, atol=1e-4)
    assert result.get_fdata().min() >= 0
    assert 0.2 < result.get_fdata().mean() / scan.get_fdata().mean() < 5
    assert json.loads((tmp_path / "run.json").read_text())["input"]["shape"] == [20, 24, 40]


def test_the_manifest_says_what_was_done(small, tmp_path):
    denoise(small / "scan.npz", small / "small.pt", tmp_path, "--seed", 3, "--timestep_respacing", "2")
    manifest = json.loads((tmp_path / "run.json").read_text())
    assert manifest["settings"]["preset"] == "fast"
    assert manifest["settings"]["sampling"]["seed"] == 3
    assert manifest["settings"]["diffusion"]["timestep_respacing"] == "2"
    assert manifest["plan"]["starts"] == [0, 12, 24, 36, 48, 60, 72, 81]
    assert manifest["flags"]["timestep_respacing"] == "2"
    assert len(manifest["checkpoint"]["sha256"]) == 64
    assert all(patch["seconds"] > 0 for patch in manifest["patches"])
    assert "wrote" in (tmp_path / "log.txt").read_text()


def test_ddim_and_seed_change_the_sample_and_batches_do_not(small, tmp_path):
    variants = {
        "plain": (),
        "ddim": ("--use_ddim", True),
        "seed": ("--seed", 4),
        "batches": ("--batch_size", 3),
        "paper": ("--preset", "paper", "--timestep_respacing", "3"),
    }
    volumes = {}
    for name, more in variants.items():
        done = denoise(small / "scan.npz", small / "small.pt", tmp_path / name, *more)
        assert done.returncode == 0, done.stderr
        volumes[name] = np.load(tmp_path / name / "samples_18x21x97.npz")["arr_0"]
    np.testing.assert_allclose(volumes["batches"], volumes["plain"], atol=1e-5)
    for name in ("ddim", "seed", "paper"):
        assert np.abs(volumes[name] - volumes["plain"]).mean() > 1e-3


def test_a_folder_of_subjects_and_a_rerun(small, tmp_path):
    subjects = tmp_path / "subjects"
    subjects.mkdir()
    for name in ("one", "two"):
        (subjects / f"{name}.npz").write_bytes((small / "scan.npz").read_bytes())
    stale = tmp_path / "out" / "one" / "samples_1x1x1.npz"
    stale.parent.mkdir(parents=True)
    stale.touch()
    done = denoise(subjects, small / "small.pt", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    for name in ("one", "two"):
        assert sorted(file.name for file in (tmp_path / "out" / name).iterdir()) == ["run.json", "samples_18x21x97.npz"]


def test_half_precision_on_a_cpu_is_bfloat16_with_a_notice(small, tmp_path):
    full = denoise(small / "scan.npz", small / "small.pt", tmp_path / "full")
    half = denoise(small / "scan.npz", small / "small.pt", tmp_path / "half", "--use_fp16", True)
    assert "bfloat16" in half.stderr
    assert "bfloat16" not in full.stderr
    reduced, exact = (np.load(tmp_path / name / "samples_18x21x97.npz")["arr_0"] for name in ("half", "full"))
    error = np.abs(reduced - exact)
    assert 0 < error.mean() < 0.02


def test_flags_that_contradict_a_header_are_reported(small, tmp_path):
    done = denoise(small / "scan.npz", small / "small.pt", tmp_path, "--num_channels", 128, "--large_size", 96)
    assert done.returncode == 0, done.stderr
    assert "ignored: --num_channels 128\n" in done.stderr


def test_help_explains_every_flag():
    text = succeed("scripts/test.py", "--help").stdout
    for flag in ("base_samples", "num_samples", "use_ddim", "clip_denoised", "attention_resolutions", "preset"):
        assert f"--{flag}" in text


BROKEN_INPUTS = {
    "missing": (None, "no such file"),
    "no_arr_0": (lambda path: np.savez(path, other=np.ones((2, 8, 8, 8))), "arr_0"),
    "axes": (lambda path: np.savez(path, arr_0=np.ones((8, 8))), "axes"),
    "nan": (lambda path: np.savez(path, arr_0=np.full((2, 16, 16, 16), np.nan, np.float32)), "NaN"),
    "becquerel": (lambda path: np.savez(path, arr_0=np.full((2, 16, 16, 16), 5000, np.float32)), "Bq/mL"),
    "pickled": (lambda path: np.savez(path, arr_0=np.array([{}], dtype=object)), "pickle"),
}


@pytest.mark.parametrize("name", BROKEN_INPUTS)
def test_broken_input_is_refused(name, small, tmp_path):
    make, words = BROKEN_INPUTS[name]
    if make:
        make(tmp_path / "scan.npz")
    done = denoise(tmp_path / "scan.npz", small / "small.pt", tmp_path / "out")
    assert_refused(done, "scan.npz", words)
    assert not list((tmp_path / "out").glob("samples*"))


def test_truncated_npz_is_refused(small, tmp_path):
    (tmp_path / "scan.npz").write_bytes((small / "scan.npz").read_bytes()[:-5000])
    assert_refused(denoise(tmp_path / "scan.npz", small / "small.pt", tmp_path / "out"), "scan.npz")


def test_empty_folder_is_refused(small, tmp_path):
    (tmp_path / "series").mkdir()
    assert_refused(denoise(tmp_path / "series", small / "small.pt", tmp_path / "out"), "series", "empty")


def test_unwritable_save_dir_is_refused(small, tmp_path):
    (tmp_path / "file").touch()
    assert_refused(denoise(small / "scan.npz", small / "small.pt", tmp_path / "file" / "out"), "cannot write")


def test_weights_that_do_not_fit_are_refused_with_advice(golden_files, tmp_path):
    done = denoise(*golden_files, tmp_path, *flags_of(GOLDEN_FLAGS | {"num_channels": 64}))
    assert_refused(done, "model.pt", "misshapen", "--num_channels 32")


def test_wrong_number_of_samples_is_refused(golden_files, tmp_path):
    done = denoise(*golden_files, tmp_path, "--num_samples", 5, *flags_of(GOLDEN_FLAGS))
    assert_refused(done, "--num_samples 5", "6 patches")


@needs_mpiexec
def test_a_mistake_on_several_ranks_is_one_line_too(small, tmp_path):
    done = denoise(tmp_path / "nothing.npz", small / "small.pt", tmp_path / "out", ranks=3)
    assert_refused(done, "nothing.npz", "no such file")


def test_unknown_flag_and_missing_paths_are_refused(small, tmp_path):
    assert_refused(denoise(small / "scan.npz", small / "small.pt", tmp_path, "--colour", "red"), "--colour")
    assert_refused(run_script("scripts/test.py", "--model_path", small / "small.pt"), "--base_samples")
    assert_refused(denoise(small / "scan.npz", tmp_path / "none.pt", tmp_path), "none.pt", "no such")
    assert_refused(denoise(small / "scan.npz", small / "small.pt", tmp_path, "--timestep_respacing", "x"), "respacing")


def test_the_example_for_192_304_612_checks_the_number_of_patches(small, tmp_path):
    done = run_script(
        "scripts/test_192_304_612.py",
        "--base_samples",
        small / "scan.npz",
        "--model_path",
        small / "small.pt",
        "--save_dir",
        tmp_path,
    )
    assert_refused(done, "--num_samples 7", "97 slices")
