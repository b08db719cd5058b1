"""Images that a network draws of noise: the same bits over ranks, batches and patches, and what is written of them."""

import json
import re

import numpy as np
import pytest
import torch

from guided_diffusion.checkpoints import save_checkpoint
from guided_diffusion.config import DiffusionConfig, Header, ModelConfig, PreprocessingConfig, SamplerConfig
from guided_diffusion.inference import blend_at_end, denoise_volume, load_model, patch_sampling
from guided_diffusion.local_draws import LocalDraws
from guided_diffusion.pet.grid import Volume
from tests.denoising import denoise, denoise_on
from tests.evaluation_trial import write_trial
from tests.mpi import assert_refused, needs_mpiexec, run_script

MODEL = ModelConfig(num_channels=32, num_res_blocks=1, channel_mult="1,2", low_res_scale=16.0)
GRID = PreprocessingConfig(voxel_mm=(4.0, 4.0, 4.0), patch_size=16, overlap=8)
HEADER = Header("local3d_draws", MODEL, DiffusionConfig(), GRID, SamplerConfig(), {})
# Bits are the same for equal threads per rank alone.
DRAWN = ("--dose_fraction", "1/20", "--sample", "True", "--realisations", "3", "--threads", "1")


def save(folder, method: str = "local3d_draws"):
    torch.manual_seed(0)
    model = LocalDraws(MODEL)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    path = folder / f"{method}.pt"
    network = model if method == "local3d_draws" else model.regression
    header = Header(method, MODEL, DiffusionConfig(), GRID, SamplerConfig(), {})
    save_checkpoint(path, network.state_dict(), header)
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return save(tmp_path_factory.mktemp("weights"))


def written(folder):
    """The two arrays on the model's grid, an image and its error bar."""
    names = ("samples_18x21x73.npz", "uncertainty_18x21x73.npz")
    return [np.load(folder / name, allow_pickle=False)["arr_0"] for name in names]


@needs_mpiexec
def test_any_number_of_ranks_draws_the_same_bits(small, weights, tmp_path):
    results = []
    for ranks in (0, 3):
        denoise_on(ranks, small / "scan.npz", weights, tmp_path / str(ranks), *DRAWN)
        results.append(written(tmp_path / str(ranks)))
        manifest = json.loads((tmp_path / str(ranks) / "run.json").read_text())
        assert len({patch["rank"] for patch in manifest["patches"]}) == max(1, ranks)
    assert np.median(results[0][1]) > 0
    np.testing.assert_array_equal(results[1], results[0])


def test_a_run_that_goes_on_and_batches_and_groups_end_with_the_same_bits(small, weights, tmp_path, monkeypatch):
    whole = written(denoise(small / "scan.npz", weights, tmp_path / "whole", *DRAWN))
    monkeypatch.setattr(patch_sampling, "DRAWS_TOGETHER", 2)
    calls = []

    def interrupted(task, loaded, after_step):
        calls.append((task.realisation, task.starts))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return sample(task, loaded, after_step)

    sample = blend_at_end.sample_batch
    monkeypatch.setattr(blend_at_end, "sample_batch", interrupted)
    flags = (*DRAWN, "--batch_size", "3")
    with pytest.raises(KeyboardInterrupt):
        denoise(small / "scan.npz", weights, tmp_path / "parts", *flags)
    denoise(small / "scan.npz", weights, tmp_path / "parts", *flags, "--resume", "True")
    # Two groups of a call for each batch; three were kept.
    assert len(calls) == 4 + 2 * len({starts for _, starts in calls}) - 3
    np.testing.assert_array_equal(written(tmp_path / "parts"), whole)


@pytest.fixture(scope="module")
def denoised(tmp_path_factory):
    """A function of flags that denoises one scan, on the model's own grid unless told otherwise."""
    folder = tmp_path_factory.mktemp("denoised")
    paths = {method: str(save(folder, method)) for method in ("local3d", "local3d_draws")}

    def run(method="local3d_draws", spacing=4.0, length=32, **flags):
        suv = np.random.default_rng(0).gamma(2.0, 1.0, (24, 24, length)).astype(np.float32)
        affine = np.array([[0, -spacing, 0, 0], [-spacing, 0, 0, 0], [0, 0, spacing, 0], [0, 0, 0, 1]])
        loaded = load_model(paths[method], {"precision": "float32"} | flags)
        return denoise_volume(Volume(suv, affine), loaded, measure=lambda image: image.data)

    return run


def test_the_mean_is_the_regressions_and_is_drawn_about_only_where_that_is_asked_for(denoised):
    mean = denoised()
    np.testing.assert_array_equal(mean.samples, denoised("local3d").samples)
    assert mean.samples_sd is None
    assert mean.volume_sd is None
    assert mean.measured == []
    several = denoised(realisations=3)
    np.testing.assert_array_equal(several.samples, mean.samples)
    np.testing.assert_array_equal(several.volume.data, mean.volume.data)
    drawn = denoised(sample=True)
    assert drawn.samples_sd is None
    np.testing.assert_array_equal(drawn.volume.data, several.measured[0])
    assert np.abs(drawn.samples - mean.samples).mean() > 0.01
    np.testing.assert_array_equal(denoised(sample=True, realisations=3).volume.data, several.measured[0])


def test_the_error_bar_is_the_deviation_of_the_images_on_every_grid(denoised):
    for spacing in (4.0, 3.0):
        result = denoised(spacing=spacing, realisations=4)
        assert len(result.measured) == 4
        spread = np.std(np.stack(result.measured), axis=0, ddof=1, dtype=np.float64)
        np.testing.assert_allclose(result.volume_sd.data, spread, atol=1e-4 * spread.max())
        assert np.median(spread) > 0.01
        assert result.samples_sd.shape == result.samples.shape


def test_the_dose_mixes_the_scan_in(denoised):
    clean, half = denoised(dose_fraction="0"), denoised(dose_fraction="1/2")
    scan = clean.model_input.data.clip(0, 16) / 16
    np.testing.assert_allclose(half.samples, 0.5 * scan + 0.5 * clean.samples, atol=1e-6)


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
    denoise(trial, weights, tmp_path / "all", "--realisations", 2)
    for name, dose in {"low_dose_1": "0", "low_dose_1-20": "1/20"}.items():
        scan = trial / "sub-0000" / f"{name}.nii.gz"
        denoise(scan, weights, tmp_path / name, "--dose_fraction", dose, "--realisations", 2)
        for file in ("denoised.nii.gz", "uncertainty.nii.gz"):
            assert (tmp_path / "all/sub-0000" / name / file).read_bytes() == (tmp_path / name / file).read_bytes()
    settings = json.loads((tmp_path / "all/sub-0000/low_dose_1-20/run.json").read_text())["settings"]
    assert settings["sampling"]["dose_fraction"] == "0.05"


def test_a_scan_of_no_trial_counts_as_a_quarter_of_the_dose(small, weights, tmp_path):
    denoise(small / "scan.npz", weights, tmp_path / "unsaid", "--realisations", 2)
    denoise(small / "scan.npz", weights, tmp_path / "said", "--dose_fraction", "1/4", "--realisations", 2)
    (unsaid, said) = (next((tmp_path / name).glob("**/samples*.npz")).read_bytes() for name in ("unsaid", "said"))
    assert unsaid == said


def test_other_methods_say_that_they_draw_nothing(small, tmp_path, capsys):
    denoise(small / "scan.npz", small / "small.pt", tmp_path, *DRAWN[:4])
    said = capsys.readouterr().err
    assert "ddpm3d estimates no noise-free image; ignored: --dose_fraction" in said
    assert "ddpm3d draws no images about a mean; ignored: --sample" in said


@pytest.mark.parametrize(
    ("method", "flags", "settings"),
    [
        ("local3d", (), "clip_denoised True, mirrored False, batch_size 1, dose_fraction 0.25"),
        (
            "local3d_draws",
            ("--sample", True),
            "clip_denoised True, seed 10, batch_size 1, realisations 1, dose_fraction 0.25, sample True",
        ),
    ],
)
def test_a_report_names_no_sampling_that_did_not_happen(small, tmp_path, method, flags, settings):
    weights = save(tmp_path, method)
    denoise(small / "scan.npz", weights, tmp_path / "out", "--report", True, "--dose_fraction", 0.25, *flags)
    text = re.sub(r"\s+", " ", (tmp_path / "out" / "report.html").read_text(encoding="utf-8"))
    assert f"<dt>settings</dt><dd>{settings}; precision" in text
    assert "was sampled" not in text
    hint = "Error bars come from weights that sample or draw images" if method == "local3d" else "several images are dr"
    assert hint in text
    assert ("1 per patch</dd>" in text) == (method == "local3d")


def test_there_are_no_steps_after_which_to_blend(small, weights, tmp_path, capsys):
    end, each = (
        written(denoise(small / "scan.npz", weights, tmp_path / fuse, *DRAWN, "--fuse", fuse))
        for fuse in ("end", "each_step")
    )
    assert "local3d_draws answers in one call; ignored: --fuse" in capsys.readouterr().err
    np.testing.assert_array_equal(each, end)


def test_the_seed_and_the_number_name_an_image(denoised):
    three = denoised(realisations=3).measured
    np.testing.assert_array_equal(denoised(realisations=2).measured, three[:2])
    other = denoised(realisations=2, seed=11).measured
    for image in (other[0], three[1]):
        assert np.abs(image - three[0]).mean() > 0.01


def test_patches_agree_where_they_overlap(denoised):
    """Blended images have the deviation of an image that is not cut, wherever the last patch begins."""

    def deviation(**flags):
        images = denoised(realisations=6, length=45, **flags).measured
        return np.std(np.stack(images), axis=0, ddof=1).mean(axis=(0, 1))

    whole, cut = deviation(patch_size=48), deviation(patch_size=24, overlap=11)
    np.testing.assert_allclose(cut, whole, rtol=0.1)
    assert cut.mean() == pytest.approx(whole.mean(), rel=0.02)
