"""Images drawn about a mean, on the scan's grid and the model's: their noise, and their small hot objects."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from guided_diffusion.config import DiffusionConfig, Header, ModelConfig, PreprocessingConfig, SamplerConfig
from guided_diffusion.inference import results
from guided_diffusion.inference.presets import inference_settings
from guided_diffusion.inference.results import DrawnResult
from guided_diffusion.methods.registry import METHODS
from guided_diffusion.pet.geometry import follow_to_model_grid, to_model_grid
from guided_diffusion.pet.grid import Volume
from guided_diffusion.pet.small_objects import SmallObject

GRID = PreprocessingConfig(voxel_mm=(2.0, 2.0, 2.0), linear_transfer=True)
HEADER = Header("local3d_draws", ModelConfig(), DiffusionConfig(), GRID, SamplerConfig(), {})


def drawn_about_the_truth(scan, truth, dose, realisations=8, deviation=0.0):
    """Images on the grid of `scan` that are drawn where a network knows the noise-free image, and their result.

    deviation: of all images from it, in SUV.
    """
    model_input = to_model_grid(scan, voxel_mm=2.0, linear=True)
    flags = {"realisations": realisations, "dose_fraction": dose}
    sampling = inference_settings(flags, HEADER, on_gpu=False).sampling
    method = METHODS["local3d_draws"]
    images = []
    loaded = SimpleNamespace(sampling=sampling, preprocessing=GRID, method=method)
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
