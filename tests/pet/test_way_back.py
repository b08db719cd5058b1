"""From the model's grid back to the input's: above the cap, below zero, outside, and what noise is left."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from guided_diffusion.pet.geometry import (
    above_cap,
    back_to_input_grid,
    body_box,
    to_model_grid,
)
from guided_diffusion.pet.grid import Volume, centred_affine
from tests.grids import ball, grids, identity


@settings(max_examples=60, deadline=None)
@given(grids(), st.integers(0, 2**31))
def test_an_identity_model_gives_the_input_back(grid, seed):
    shape, affine = grid
    data = np.random.default_rng(seed).gamma(2, 3, shape).astype(np.float32)
    volume = Volume(data, affine)
    model = to_model_grid(volume)
    back = back_to_input_grid(identity(model), model, volume)
    np.testing.assert_array_equal(back.data, data)
    np.testing.assert_array_equal(back.affine, affine)


@settings(max_examples=40, deadline=None)
@given(grids(), st.floats(0.5, 12))
def test_a_constant_answer_arrives_everywhere(grid, answer):
    shape, affine = grid
    volume = Volume(np.full(shape, 3.0, np.float32), affine)
    model = to_model_grid(volume)
    denoised = replace(model, data=np.full(model.data.shape, answer, np.float32))
    np.testing.assert_allclose(back_to_input_grid(denoised, model, volume).data, answer, rtol=1e-4)


def test_the_way_back_of_a_denoised_image_leaves_none_of_the_inputs_noise():
    """Coarser than the model's grid: whatever the input, a flat answer gives a flat image."""
    rng = np.random.default_rng(0)
    shape = (40, 40, 50)
    noisy = Volume(rng.gamma(4, 1, shape).astype(np.float32), centred_affine(shape, (4.07, 4.07, 3), "LPS"))
    model = to_model_grid(noisy)
    back = back_to_input_grid(replace(model, data=np.full_like(model.data, 4)), model, noisy, suv_max=1e6)
    assert np.std(back.data - 4) < 0.01 * np.std(noisy.data)


@pytest.mark.parametrize("spacing", [1.65, 4.07])
def test_uptake_above_the_cap_is_kept_or_clipped(spacing):
    shape = (30, 30, 30)
    volume = ball(centred_affine(shape, spacing, "LPS"), shape, np.zeros(3), 20, hot=60.0)
    model = to_model_grid(volume)
    halved = replace(model, data=np.clip(model.data, 0, 16) / 2)
    kept = back_to_input_grid(halved, model, volume)
    assert kept.data.max() == pytest.approx(60 - 8, abs=1)
    clipped = back_to_input_grid(halved, model, volume, above_cap="clip")
    assert clipped.data.max() <= 16
    hot = volume.data > 30
    assert clipped.data[hot].mean() == pytest.approx(8, abs=1)  # what the model says, not what the cap leaves
    cool = volume.data < 2
    np.testing.assert_allclose(clipped.data[cool], kept.data[cool], rtol=1e-6)
    report = above_cap(volume, 16)
    assert report["voxels"] == (volume.data > 16).sum()
    assert report["peak"] == pytest.approx(60)
    assert report["ml"] == pytest.approx(report["voxels"] * spacing**3 / 1000)


def test_clipping_counts_a_hot_voxels_change_from_the_cap():
    shape = (6, 6, 6)
    hot = Volume(np.full(shape, 40, np.float32), centred_affine(shape, 1.65, "PLS"))
    denoised = replace(hot, data=np.full(shape, 10, np.float32))
    np.testing.assert_allclose(back_to_input_grid(denoised, hot, hot, above_cap="clip").data, 10, rtol=1e-6)
    np.testing.assert_allclose(back_to_input_grid(denoised, hot, hot).data, 40 - (16 - 10), rtol=1e-6)


def test_negative_voxels_end_at_what_the_model_says():
    rng = np.random.default_rng(0)
    volume = Volume(rng.normal(0.5, 1, (9, 8, 7)).astype(np.float32), centred_affine((9, 8, 7), 1.65, "PLS"))
    says = rng.uniform(0.01, 0.9, volume.data.shape).astype(np.float32)
    assert (volume.data < 0).sum() > 50
    back = back_to_input_grid(replace(volume, data=says), volume, volume)
    np.testing.assert_allclose(back.data, says, atol=1e-6)
    unchanged = back_to_input_grid(identity(volume), volume, volume)
    np.testing.assert_array_equal(unchanged.data, np.maximum(volume.data, 0))


@pytest.mark.parametrize("spacing", [1.0, 1.65, 2.04, 4.07])
def test_negative_noise_does_not_lower_cold_regions(spacing):
    """Noise of 0.3 around a cold 0.05, a model that answers 0.05: so must the mean be on every grid."""
    shape = (int(80 / spacing),) * 3
    noise = ndimage.gaussian_filter(np.random.default_rng(0).normal(0, 1, shape), 4 / 2.355 / spacing)
    cold = (0.05 + 0.3 * (noise - noise.mean()) / noise.std()).astype(np.float32)
    volume = Volume(cold, centred_affine(shape, spacing, "LPS"))
    model = to_model_grid(volume, margin_mm=100.0)
    back = back_to_input_grid(replace(model, data=np.full_like(model.data, 0.05)), model, volume)
    assert back.data.mean() == pytest.approx(0.05, abs=0.001)


def test_outside_the_models_grid_the_input_stays():
    data = np.random.default_rng(0).uniform(0, 0.04, (60, 60, 40)).astype(np.float32)
    data[25:35, 25:35] = 3.0
    volume = Volume(data, centred_affine(data.shape, (4.07, 4.07, 3), "LPS"))
    model = to_model_grid(volume)
    back = back_to_input_grid(replace(model, data=np.clip(model.data, 0, 16) + 1), model, volume)
    changed = back.data - data
    inside = np.zeros(data.shape, bool)
    inside[tuple(slice(first, last) for first, last in body_box(volume, 20))] = True
    np.testing.assert_array_equal(changed[~inside], 0)
    np.testing.assert_allclose(changed[inside], 1, rtol=1e-3)


def test_noise_that_the_model_grid_cannot_hold_stays_where_the_input_is_finer():
    """Documents the price of carrying the change: white noise on 1 mm voxels keeps its finest part."""
    rng = np.random.default_rng(0)
    shape = (50, 50, 50)
    noisy = Volume(rng.gamma(4, 1, shape).astype(np.float32), centred_affine(shape, 1.0, "LPS"))
    model = to_model_grid(noisy)
    flat = replace(model, data=np.full_like(model.data, 4))
    white = np.std(back_to_input_grid(flat, model, noisy, suv_max=1e6).data) / np.std(noisy.data)
    blurred = ndimage.gaussian_filter(noisy.data, 5 / 2.355)  # as PET is: 5 mm of resolution
    smooth = replace(noisy, data=blurred.astype(np.float32))
    model = to_model_grid(smooth)
    left = np.std(back_to_input_grid(flat, model, smooth, suv_max=1e6).data) / np.std(blurred)
    assert 0.5 < white < 1
    assert left < 0.05
