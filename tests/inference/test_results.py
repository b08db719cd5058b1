"""The way of results back to the scan's grid: what their numbers keep on it."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from guided_diffusion.config.known_models import LOCAL_PREPROCESSING
from guided_diffusion.inference.results import Result
from guided_diffusion.methods.registry import METHODS
from guided_diffusion.pet.geometry import to_model_grid
from guided_diffusion.pet.grid import Volume


def result_on(scan, model_input, dose=0.0, above_cap="keep", method="local3d"):
    sampling = SimpleNamespace(realisations=1, dose=dose)
    loaded = SimpleNamespace(sampling=sampling, preprocessing=LOCAL_PREPROCESSING, method=METHODS[method])
    return Result(scan, model_input, loaded, above_cap, None)


def test_what_lies_below_zero_on_the_models_grid_does_not_raise_means():
    """As between the peaks of an unfiltered image with few counts, of which a network leaves a part or everything."""
    rng = np.random.default_rng(0)
    scan = Volume(rng.gamma(0.2, 3.0, (60, 56, 48)).astype(np.float32), np.diag([-1.5, -1.5, 1.5, 1.0]))
    model_input = to_model_grid(scan, voxel_mm=2.5, linear=True)
    assert (model_input.data < 0).mean() > 0.3
    result = result_on(scan, model_input)
    result.add(model_input.data / LOCAL_PREPROCESSING.suv_max)
    back = result.described(None, []).volume.data
    inner = (slice(8, -8),) * 3
    # On the scan's grid a little is cut off. Cut off on the model's too, it would be 40 %.
    assert back[inner].mean() == pytest.approx(scan.data[inner].mean(), rel=0.06)
    assert back.min() == 0


@pytest.mark.parametrize("above_cap", ["keep", "clip"])
def test_the_scans_share_of_an_image_of_a_dose_is_not_resampled(above_cap):
    """A reference with the scan's counts has the scan's noise as it is, however fine; the cap holds for both."""
    rng = np.random.default_rng(0)
    suv = rng.gamma(4.0, 1.0, (40, 36, 32)).astype(np.float32)
    suv[20, 18, 16] = 90.0
    scan = Volume(suv, np.diag([-1.5, -1.5, 2.6, 1.0]))
    model_input = to_model_grid(scan, voxel_mm=2.5, linear=True)
    answer = np.full(model_input.data.shape, 4.0 / LOCAL_PREPROCESSING.suv_max, np.float32)
    result = result_on(scan, model_input, 0.25, above_cap)
    result.add(answer)
    denoised = result.described(None, [])
    expected = 0.25 * (np.minimum(suv, 64) if above_cap == "clip" else suv) + 0.75 * 4
    np.testing.assert_allclose(denoised.volume.data, expected, rtol=1e-5)
    on_model_grid = 0.25 * np.clip(model_input.data, -64, 64) + 0.75 * 4
    np.testing.assert_allclose(64 * denoised.samples, on_model_grid, rtol=1e-5)


@pytest.mark.parametrize(("method", "height"), [("local3d", 5.0), ("unet3d", 3.0)])
def test_a_small_hot_object_of_a_noise_free_image_is_as_high_as_in_the_scan(method, height):
    """On both grids. Networks that answer with another image are left to what they say."""
    scan, middle = hot_ball(5.0)
    model_input = to_model_grid(scan, voxel_mm=2.5, linear=True)
    flatter = 1 + 3 / 5 * (to_model_grid(hot_ball(5.0, noise=0.0)[0], voxel_mm=2.5, linear=True).data - 1)
    result = result_on(scan, model_input, method=method)
    result.add(flatter / LOCAL_PREPROCESSING.suv_max)
    denoised = result.described(None, [])
    ball = hot_ball(height, noise=0.0)[0]
    assert denoised.volume.data[middle].mean() == pytest.approx(ball.data[middle].mean(), rel=0.06)
    on_model_grid = to_model_grid(ball, voxel_mm=2.5, linear=True).data
    inside = on_model_grid > 1 + 0.8 * (on_model_grid.max() - 1)
    assert 64 * denoised.samples[inside].mean() == pytest.approx(on_model_grid[inside].mean(), rel=0.06)


def hot_ball(height, noise=0.1):
    """A scan of a ball of 12 mm in SUV 1, and the voxels in its middle."""
    voxel = 2.0
    shape = (60, 56, 52)
    distance = np.linalg.norm(np.indices(shape) - np.reshape([30, 28, 26], (3, 1, 1, 1)), axis=0) * voxel
    ball = gaussian_filter((distance <= 6).astype(np.float32), 2.5 / voxel)
    suv = 1 + height * ball / ball.max()
    suv += noise * np.random.default_rng(0).standard_normal(shape)
    return Volume(suv.astype(np.float32), np.diag([-voxel, -voxel, voxel, 1.0])), distance <= 4


def test_samples_do_not_exceed_the_networks_range():
    """However hot an object may be that the network has flatter."""
    scan, _ = hot_ball(80.0)
    model_input = to_model_grid(scan, voxel_mm=2.5, linear=True)
    flatter = 1 + 0.7 * (np.minimum(model_input.data, 64) - 1)
    result = result_on(scan, model_input)
    result.add(flatter / LOCAL_PREPROCESSING.suv_max)
    assert flatter.max() / 64 < 0.75
    assert 0.9 < result.described(None, []).samples.max() <= 1


def test_uptake_above_the_networks_range_raises_nothing():
    """The network has seen the scan up to SUV 64, and says so."""
    scan, _ = hot_ball(90.0)
    model_input = to_model_grid(scan, voxel_mm=2.5, linear=True)
    assert model_input.data.max() > 80
    answer = np.clip(model_input.data, -64, 64) / LOCAL_PREPROCESSING.suv_max
    result = result_on(scan, model_input)
    result.add(answer)
    np.testing.assert_array_equal(result.described(None, []).samples, answer)
