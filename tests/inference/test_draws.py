"""Images that a network draws of noise: the same bits over ranks, batches and patches, and what is written of them."""

import json
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from guided_diffusion.checkpoints import save_checkpoint
from guided_diffusion.config import DiffusionConfig, Header, ModelConfig, PreprocessingConfig, SamplerConfig
from guided_diffusion.inference import blend_at_end, denoise_volume, load_model, patch_sampling, results
from guided_diffusion.inference.presets import inference_settings
from guided_diffusion.inference.results import DrawnResult
from guided_diffusion.local_draws import LocalDraws
from guided_diffusion.methods.registry import METHODS
from guided_diffusion.pet.geometry import follow_to_model_grid, to_model_grid
from guided_diffusion.pet.grid import Volume
from guided_diffusion.pet.small_objects import SmallObject
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


def drawn_about_the_truth(scan, truth, dose, realisations=8, deviation=0.0):
    """Images on the grid of `scan` that are drawn where a network knows the noise-free image, and their result.

    deviation: of all images from it, in SUV.
    """
    model_input = to_model_grid(scan, voxel_mm=2.0, linear=True)
    flags = {"realisations": realisations, "dose_fraction": dose}
    sampling = inference_settings(flags, HEADER, on_gpu=False).sampling
    grid = replace(GRID, suv_max=16.0, linear_transfer=True)
    method = METHODS["local3d_draws"]
    images = []
    loaded = SimpleNamespace(sampling=sampling, preprocessing=grid, method=method)
    result = DrawnResult(scan, model_input, loaded, "keep", lambda image: images.append(image.data))
    known = follow_to_model_grid(replace(scan, data=truth), model_input).data / 16
    result.add(np.stack([known] + [known + np.float32(deviation / 16)] * realisations))
    return np.stack(images), result.described(None, [])


@pytest.mark.parametrize("spacing", [4.0, 2.0, 1.5])
def test_images_of_a_dose_have_noise_as_the_scans_on_its_own_grid(spacing):
    """As strong as a reference's that has the scan's counts and others, and as fine, whatever the model's grid."""
    rng, dose = np.random.default_rng(0), 1 / 4
    affine = np.diag([-spacing, -spacing, spacing, 1.0])
    truth = np.full((40, 36, 32), 4.0, np.float32)
    noise = gaussian_filter(rng.standard_normal(truth.shape), 3.0 / spacing)
    noise *= np.linspace(0.1, 0.4, 40)[:, None, None] / noise.std()
    scan = Volume((truth + noise).astype(np.float32), affine)
    images, result = drawn_about_the_truth(scan, truth, "1/4")
    mean = dose * scan.data + (1 - dose) * truth
    np.testing.assert_allclose(result.volume.data, mean, atol=1e-3)
    fresh = images - mean
    wanted = np.sqrt(dose * (1 - dose)) * noise
    for part in (slice(4, 16), slice(24, 36)):
        assert fresh[:, part].std() == pytest.approx(wanted[part].std(), rel=0.1)
    both = np.mean(fresh[:, 1:] * fresh[:, :-1]) / np.mean(fresh**2)
    assert both == pytest.approx(np.mean(wanted[1:] * wanted[:-1]) / np.mean(wanted**2), abs=0.04)
    assert abs(np.mean(fresh * noise)) < 0.02 * np.mean(noise**2)
    np.testing.assert_allclose(result.volume_sd.data, images.std(axis=0, ddof=1), atol=1e-4)


def test_drawn_images_have_small_hot_objects_as_high_as_the_scan_with_its_error():
    """Where the network is sure of a flatter one, the images differ by the error of the fit alone."""
    distance = 2.0 * np.linalg.norm(np.indices((48, 44, 40)) - np.reshape([24, 22, 20], (3, 1, 1, 1)), axis=0)
    ball = gaussian_filter((distance <= 8).astype(np.float32), 1.25)
    noise = 0.3 * np.random.default_rng(0).standard_normal(ball.shape)
    scan = Volume((1 + 5 * ball + noise).astype(np.float32), np.diag([-2.0, -2.0, 2.0, 1.0]))
    images, result = drawn_about_the_truth(scan, 1 + 3 * ball, "0")
    middle = distance < 5
    true, answered = (1 + height * ball[middle].mean() for height in (5, 3))
    assert result.volume.data[middle].mean() == pytest.approx(true, rel=0.05)
    heights = images[:, middle].mean(axis=1)
    assert heights.mean() == pytest.approx(true, rel=0.05)
    assert 0.01 * (true - answered) < heights.std() < 0.2 * (true - answered)
    beside = (distance > 30) & (distance < 34)
    assert images[:, beside].std(axis=0).max() == 0


def test_drawn_images_deviate_from_the_raised_mean_as_the_network_has_them():
    distance = 2.0 * np.linalg.norm(np.indices((48, 44, 40)) - np.reshape([24, 22, 20], (3, 1, 1, 1)), axis=0)
    ball = gaussian_filter((distance <= 8).astype(np.float32), 1.25)
    noise = 0.3 * np.random.default_rng(0).standard_normal(ball.shape)
    scan = Volume((1 + 5 * ball + noise).astype(np.float32), np.diag([-2.0, -2.0, 2.0, 1.0]))
    as_mean, higher = (drawn_about_the_truth(scan, 1 + 3 * ball, "0", 2, deviation)[0] for deviation in (0.0, 0.5))
    inner = (slice(None), *(slice(6, -6),) * 3)
    np.testing.assert_allclose((higher - as_mean)[inner], 0.5, atol=1e-3)


def test_an_object_more_changes_no_noise_elsewhere(monkeypatch):
    """Heights have names of their own."""
    rng = np.random.default_rng(0)
    truth = np.full((40, 36, 32), 4.0, np.float32)
    noise = rng.standard_normal(truth.shape)
    scan = Volume((truth + noise).astype(np.float32), np.diag([-2.0, -2.0, 2.0, 1.0]))
    one, other = (SmallObject(place, 3.0, 0.2, 0.1) for place in ((10, 10, 10), (28, 26, 22)))
    drawn = []
    for objects in ([one], [other, one]):
        monkeypatch.setattr(results, "small_objects", lambda *_, found=objects: found)
        drawn.append(drawn_about_the_truth(scan, truth, "1/4", realisations=2)[0])
    away = np.linalg.norm(np.indices(truth.shape) - np.reshape([28, 26, 22], (3, 1, 1, 1)), axis=0) > 14
    changed = np.abs(drawn[0] - drawn[1])
    assert changed.max() > 0.05
    assert changed[:, away].mean() < 0.01 < 0.1 < drawn[0].std()


def test_the_noise_of_images_lies_on_the_models_grid_too():
    rng = np.random.default_rng(0)
    truth = np.full((30, 28, 24), 4.0, np.float32)
    scan = Volume(truth + 0.3 * rng.standard_normal(truth.shape, dtype=np.float32), np.diag([-2.0, -2.0, 2.0, 1.0]))
    for sheared in (0.0, 0.4):
        scan.affine[1, 2] = sheared
        _, result = drawn_about_the_truth(scan, truth, "1/4")
        assert result.samples_sd.shape == result.model_input.data.shape
        inner = (slice(8, -8),) * 3
        ratio = np.median(16 * result.samples_sd[inner]) / np.median(result.volume_sd.data[inner])
        # Splines across sheared axes smooth white noise.
        assert ratio == pytest.approx(1, rel=0.02) if not sheared else 0.5 < ratio < 1


@pytest.mark.parametrize("size", [(40, 40, 3, 4.0, 4.25), (30, 30, 1, 3.0, 3.27), (30, 2, 30, 3.27, 3.0)])
def test_thin_scans_have_drawn_images_too(size):
    """The model's grid reaches beyond them by more than a tenth of their extent."""
    *shape, across, along = size
    truth = np.full(shape, 4.0, np.float32)
    noise = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    images, result = drawn_about_the_truth(Volume(truth + noise, np.diag([-across, -across, along, 1.0])), truth, "1/4")
    assert images.std(axis=0).mean() == pytest.approx(0.75**0.5 / 2, rel=0.25)
    assert result.samples_sd.shape == result.model_input.data.shape


def test_where_the_input_is_kept_drawn_images_keep_it():
    """Above the model's largest SUV, and outside its grid."""
    rng = np.random.default_rng(0)
    truth = np.zeros((60, 40, 40), np.float32)
    truth[:30] = 4.0
    truth[14:17, 18:22, 18:22] = 90.0
    noise = 0.4 * rng.standard_normal(truth.shape, dtype=np.float32) * (truth == 4)
    scan = Volume(truth + noise, np.diag([-3.0, -3.0, 3.0, 1.0]))
    images, result = drawn_about_the_truth(scan, truth, "1/4", 3)
    assert result.model_input.data.shape[0] * 2.0 < 45 * 3.0
    kept = np.all(images == scan.data, axis=0)
    assert kept[15, 20, 20]
    assert kept[45:].all()
    assert not kept[5:12, 5:15].any()
    assert result.volume_sd.data[kept].max() == 0


def test_images_of_no_dose_have_no_noise():
    truth = np.full((20, 20, 20), 4.0, np.float32)
    scan = Volume(truth + np.random.default_rng(0).standard_normal(truth.shape, dtype=np.float32), np.diag([2.0] * 4))
    images, result = drawn_about_the_truth(scan, truth, "0", 2)
    np.testing.assert_allclose(images, np.stack([truth, truth]), atol=1e-5)
    assert result.volume_sd.data.max() < 1e-5
