"""Linear transfer between grids: the mean survives strong noise, and the denoised image takes the scan's place."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guided_diffusion.pet.geometry import back_to_input_grid, resample_like, to_model_grid
from guided_diffusion.pet.grid import Volume, centred_affine
from guided_diffusion.pet.normalisation import normalise


def spiky(voxel_mm, shape=(40, 44, 36), seed=0):
    """A body of SUV 1 on the average whose voxels are nearly all empty, as without filter at low counts."""
    data = np.zeros(shape, np.float32)
    inside = np.s_[4:-4, 4:-4, 4:-4]
    data[inside] = np.random.default_rng(seed).poisson(0.05, data[inside].shape) / 0.05
    return Volume(data, centred_affine(shape, voxel_mm, "PLS"))


def activity(volume: Volume) -> float:
    return float(volume.data.sum(dtype=float)) * volume.voxel_ml


@pytest.mark.parametrize("voxel_mm", [(2.1, 2.1, 2.8), (1.65, 1.65, 1.65)])
def test_the_mean_of_spiky_noise_survives_only_a_linear_way(voxel_mm):
    scan = spiky(voxel_mm)
    linear, cut = (to_model_grid(scan, voxel_mm=2.5, margin_mm=20.0, linear=way) for way in (True, False))
    assert activity(linear) == pytest.approx(activity(scan), rel=0.01)
    assert activity(cut) > 1.1 * activity(scan)
    assert linear.data.min() < 0 <= cut.data.min()
    assert activity(resample_like(scan, linear, linear=True)) == pytest.approx(activity(scan), rel=0.01)


def test_values_below_zero_reach_the_network_where_they_are_wanted():
    values = np.array([-100.0, -4.0, 0.0, 4.0, 100.0])
    np.testing.assert_array_equal(normalise(values, 16.0, negative=True), np.float32([-1, -0.25, 0, 0.25, 1]))
    np.testing.assert_array_equal(normalise(values, 16.0), np.float32([0, 0, 0, 0.25, 1]))


@settings(max_examples=15, deadline=None)
@given(
    st.tuples(*[st.floats(1.2, 5.0)] * 3),
    st.sampled_from(["PLS", "RAS", "LPS", "SLP"]),
)
def test_the_answer_takes_the_scans_place_on_any_grid(voxel_mm, codes):
    """A smooth answer comes back as it is, whatever the scan was; what lies outside the model's grid stays."""
    shape = (30, 34, 28)
    rng = np.random.default_rng(0)
    data = np.full(shape, 1, np.float32) + 0.5 * rng.standard_normal(shape).astype(np.float32)
    scan = Volume(data, centred_affine(shape, voxel_mm, codes))
    model = to_model_grid(scan, voxel_mm=2.5, linear=True)
    answer = Volume(np.full(model.data.shape, 3.0, np.float32), model.affine)
    back = back_to_input_grid(answer, model, scan, suv_max=64.0, instead=True)
    np.testing.assert_allclose(back.data, 3.0, rtol=1e-3)


def test_noise_finer_than_the_grid_goes():
    scan = spiky((1.65, 1.65, 1.65), shape=(60, 64, 50))
    model = to_model_grid(scan, voxel_mm=2.5, linear=True)
    answer = Volume(np.ones_like(model.data), model.affine)
    inside = np.s_[8:-8, 8:-8, 4:-4]
    instead = back_to_input_grid(answer, model, scan, suv_max=64.0, instead=True).data
    change = back_to_input_grid(answer, model, scan, suv_max=64.0).data
    assert np.median(np.abs(instead[inside] - 1)) < 1e-3
    assert change[inside].std() > 0.3


@pytest.mark.parametrize("shear", [0.0, 0.4])
def test_above_the_cap_uptake_stays_and_noise_goes(shear):
    scan = spiky((1.65, 1.65, 1.65), shape=(60, 64, 50))
    bladder, spike = np.s_[38:46, 38:46, 20:28], (20, 20, 25)
    scan.data[bladder], scan.data[spike] = 200.0, 200.0
    scan.affine[1, 2] = shear
    model = to_model_grid(scan, voxel_mm=2.5, linear=True)
    clean = Volume(np.ones_like(scan.data), scan.affine)
    clean.data[bladder] = 64.0
    answer = to_model_grid(clean, voxel_mm=2.5, linear=True)
    back = back_to_input_grid(answer, model, scan, suv_max=64.0, instead=True).data
    np.testing.assert_array_equal(back[40:44, 40:44, 22:26], 200.0)
    np.testing.assert_allclose(back[spike], 1.0, atol=1e-3)


@pytest.mark.parametrize("degrees", [3, 15])
def test_a_hot_spot_of_a_tilted_scan_stays_as_hot_as_the_answer(degrees):
    size = np.array([4.07, 4.07, 3.0])
    affine = np.diag([*-size[:2], size[2], 1.0])
    affine[1, 2] = size[2] * np.tan(np.radians(degrees))
    places = np.einsum(
        "ij,jabc->iabc", affine[:3, :3], np.indices((31, 31, 41)) - np.reshape((15, 15, 20), (3, 1, 1, 1))
    )
    spot = 0.5 + 5 * np.exp(-4 * np.log(2) * (places**2).sum(axis=0) / 8**2)
    scan = Volume(spot.astype(np.float32), affine)
    model = to_model_grid(scan, voxel_mm=2.5, linear=True)
    back = back_to_input_grid(model, model, scan, suv_max=64.0, instead=True).data
    assert back.max() == pytest.approx(scan.data.max(), rel=0.03)


def test_a_sheared_scan_gets_the_answer_too():
    scan = spiky((3.0, 3.0, 3.0), shape=(30, 32, 24))
    affine = scan.affine.copy()
    affine[1, 2] = 0.6
    sheared = Volume(np.minimum(scan.data, 10), affine)
    model = to_model_grid(sheared, voxel_mm=2.5, linear=True)
    answer = Volume(np.full(model.data.shape, 2.0, np.float32), model.affine)
    back = back_to_input_grid(answer, model, sheared, suv_max=64.0, instead=True).data
    assert np.median(np.abs(back[8:-8, 8:-8, 6:-6] - 2)) < 1e-3
