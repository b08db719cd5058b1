"""A predicted distribution over ranks, over batches, and after an interruption: the same bits."""

import json

import numpy as np
import pytest
import torch

from guided_diffusion.checkpoints import save_checkpoint
from guided_diffusion.config import DiffusionConfig, Header, ModelConfig, PreprocessingConfig, SamplerConfig
from guided_diffusion.errors import InputError
from guided_diffusion.inference import blend_at_end
from guided_diffusion.local_spread import LocalSpread
from tests.denoising import denoise, denoise_on
from tests.evaluation_trial import write_trial
from tests.mpi import assert_refused, needs_mpiexec, run_script

MODEL = ModelConfig(num_channels=32, num_res_blocks=1, channel_mult="1,2", low_res_scale=16.0)
GRID = PreprocessingConfig(voxel_mm=(4.0, 4.0, 4.0), patch_size=16, overlap=4)
HEADER = Header("local3d_samples", MODEL, DiffusionConfig(), GRID, SamplerConfig(), {})
DRAWN = ("--dose_fraction", "1/20", "--sample", "True")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    model = LocalSpread(MODEL)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    path = tmp_path_factory.mktemp("weights") / "spread.pt"
    save_checkpoint(path, model.state_dict(), HEADER)
    return path


def written(folder):
    """The two arrays on the model's grid, sample and error bar."""
    names = ("samples_18x21x73.npz", "uncertainty_18x21x73.npz")
    return [np.load(folder / name, allow_pickle=False)["arr_0"] for name in names]


@needs_mpiexec
def test_any_number_of_ranks_draws_the_same_bits(small, weights, tmp_path):
    results = []
    for ranks in (0, 2, 3):
        denoise_on(ranks, small / "scan.npz", weights, tmp_path / str(ranks), *DRAWN)
        results.append(written(tmp_path / str(ranks)))
        manifest = json.loads((tmp_path / str(ranks) / "run.json").read_text())
        assert len({patch["rank"] for patch in manifest["patches"]}) == max(1, ranks)
    assert results[0][1].min() > 0
    for other in results[1:]:
        np.testing.assert_array_equal(other, results[0])


def test_one_call_serves_all_realisations_and_every_result_has_an_error_bar(small, weights, tmp_path):
    for name, flags in {"one": (), "many": ("--realisations", 5)}.items():
        denoise(small / "scan.nii.gz", weights, tmp_path / name, *flags)
        manifest = json.loads((tmp_path / name / "run.json").read_text())
        assert [patch["realisation"] for patch in manifest["patches"]] == [0] * len(manifest["patches"])
        assert "uncertainty.nii.gz" in manifest["files"]
    for file in ("denoised.nii.gz", "uncertainty.nii.gz"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "many" / file).read_bytes()


def test_a_run_that_goes_on_ends_with_the_same_bits(small, weights, tmp_path, monkeypatch):
    whole = written(denoise(small / "scan.npz", weights, tmp_path / "whole", *DRAWN))
    calls = []

    def interrupted(task, loaded, after_step):
        calls.append(task.starts)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return sample(task, loaded, after_step)

    sample = blend_at_end.sample_batch
    monkeypatch.setattr(blend_at_end, "sample_batch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        denoise(small / "scan.npz", weights, tmp_path / "parts", *DRAWN)
    denoise(small / "scan.npz", weights, tmp_path / "parts", *DRAWN, "--resume", "True")
    assert len(calls) == 4 + 3
    np.testing.assert_array_equal(written(tmp_path / "parts"), whole)


def test_the_seed_changes_what_is_drawn_and_nothing_else(small, weights, tmp_path):
    one = written(denoise(small / "scan.npz", weights, tmp_path / "one", *DRAWN))
    other = written(denoise(small / "scan.npz", weights, tmp_path / "other", *DRAWN, "--seed", 11))
    assert np.abs(one[0] - other[0]).mean() > 0.3 * one[1].mean()
    np.testing.assert_array_equal(one[1], other[1])


def test_other_methods_say_that_they_draw_nothing(small, tmp_path, capsys):
    denoise(small / "scan.npz", small / "small.pt", tmp_path, *DRAWN)
    assert "ddpm3d predicts no distribution; ignored: --dose_fraction --sample" in capsys.readouterr().err


def test_a_dose_that_is_no_fraction_is_refused(small, weights, tmp_path):
    refused = run_script(
        "scripts/test.py", "--base_samples", small / "scan.npz", "--model_path", weights, "--save_dir", tmp_path,
        "--dose_fraction", "20",
    )  # fmt: skip
    assert_refused(refused, "--dose_fraction '20': a fraction such as 1/20, from 0 to below 1")


def test_scans_of_a_trial_have_the_dose_of_its_manifest(weights, tmp_path):
    """One at the normal dose has none of a larger image's counts."""
    trial = tmp_path / "trial"
    write_trial(trial, "test", subjects=1, doses=(1.0, 0.05))
    denoise(trial, weights, tmp_path / "all", "--dose_fraction", "manifest", "--realisations", 2)
    for name, dose in {"low_dose_1": "0", "low_dose_1-20": "1/20"}.items():
        scan = trial / "sub-0000" / f"{name}.nii.gz"
        denoise(scan, weights, tmp_path / name, "--dose_fraction", dose, "--realisations", 2)
        for file in ("denoised.nii.gz", "uncertainty.nii.gz"):
            assert (tmp_path / "all/sub-0000" / name / file).read_bytes() == (tmp_path / name / file).read_bytes()
    settings = json.loads((tmp_path / "all/sub-0000/low_dose_1-20/run.json").read_text())["settings"]
    assert settings["sampling"]["dose_fraction"] == "0.05"


def test_the_dose_of_a_manifest_needs_a_trial(small, weights, tmp_path):
    with pytest.raises(InputError, match="--dose_fraction manifest: the scan is of no virtual trial"):
        denoise(small / "scan.npz", weights, tmp_path, "--dose_fraction", "manifest")


def test_a_distribution_has_no_steps_after_which_to_blend(small, weights, tmp_path, capsys):
    end, each = (
        written(denoise(small / "scan.npz", weights, tmp_path / fuse, *DRAWN, "--fuse", fuse))
        for fuse in ("end", "each_step")
    )
    assert "local3d_samples answers in one call; ignored: --fuse" in capsys.readouterr().err
    np.testing.assert_array_equal(each, end)
