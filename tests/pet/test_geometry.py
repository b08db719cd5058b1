"""To the model's grid: points, values, means, borders."""

import time
import tracemalloc
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from nibabel.processing import resample_to_output

from guided_diffusion.errors import InputError
from guided_diffusion.pet.geometry import (
    back_to_input_grid,
    body_box,
    is_on_model_grid,
    resample_like,
    to_model_grid,
)
from guided_diffusion.pet.grid import Volume, centred_affine
from guided_diffusion.pet.volume import load_volume
from tests.grids import ball, grids, identity, millimetres, tilted, turned
from tests.pet.formats.test_dicom import STS, needs_sts


@settings(max_examples=60, deadline=None)
@given(grids())
def test_the_model_grid_covers_the_volume_and_keeps_constants(grid):
    shape, affine = grid
    volume = Volume(np.full(shape, 3.0, np.float32), affine)
    model = to_model_grid(volume)
    assert model.data.dtype == np.float32
    np.testing.assert_allclose(model.data, 3.0, rtol=1e-5)
    if not is_on_model_grid(volume):
        np.testing.assert_allclose(model.voxel_mm, 1.65, rtol=0.0101)
    # every corner of the volume, in model voxels, lies inside the model's grid
    ends = np.stack(np.meshgrid(*[(-0.5, n - 0.5) for n in shape]), -1).reshape(-1, 3)
    corners = nib.affines.apply_affine(np.linalg.inv(model.affine) @ affine, ends)
    slack = 0.5 + 2e-3 * np.max(shape)
    assert (corners > -slack - 1e-6).all()
    assert (corners < np.array(model.data.shape) - 1 + slack + 1e-6).all()


@settings(max_examples=40, deadline=None)
@given(grids())
def test_values_follow_physical_positions(grid):
    """An image whose value is a linear function of mm has the same function on the model's grid, off the borders."""
    shape, affine = grid
    slope = np.array([0.011, -0.007, 0.005])
    volume = Volume(np.zeros(shape, np.float32), affine)
    offset = 5 - np.tensordot(slope, millimetres(volume), 1).min()
    volume = replace(volume, data=(np.tensordot(slope, millimetres(volume), 1) + offset).astype(np.float32))
    model = to_model_grid(volume)
    expected = np.tensordot(slope, millimetres(model), 1) + offset
    # half an input voxel at each border is extrapolated as a constant; its trace fades within a few voxels
    on_input = nib.affines.apply_affine(
        np.linalg.inv(affine) @ model.affine, np.moveaxis(np.indices(model.data.shape), 0, -1)
    )
    border = np.maximum(6 * 1.65 / np.array(volume.voxel_mm), 0)
    inside = ((on_input > border) & (on_input < np.array(shape) - 1 - border)).all(-1)
    np.testing.assert_allclose(model.data[inside], expected[inside], rtol=2e-4)


ORIENTED = [
    pytest.param(centred_affine((60, 60, 60), (4.07, 4.07, 3), codes), id=codes) for codes in ("LAS", "RAS", "LPS")
] + [
    pytest.param(turned(centred_affine((60, 60, 60), (4.07, 4.07, 3), "LPS"), 20), id="oblique 20 degrees"),
    pytest.param(tilted(centred_affine((60, 60, 60), (4.07, 4.07, 3), "LPS"), 15), id="tilted gantry"),
]


@pytest.mark.parametrize("affine", ORIENTED)
def test_a_point_stays_where_it_is(affine):
    """The centre of mass of a small blob, in mm, on the input's grid, the model's, and back."""
    point = np.array([13.7, -21.3, 8.9])
    volume = Volume(np.zeros((60, 60, 60), np.float32), affine)
    distance = ((millimetres(volume) - point.reshape(3, 1, 1, 1)) ** 2).sum(0)
    volume = replace(volume, data=(12 * np.exp(-distance / (2 * 7.0**2))).astype(np.float32))
    model = to_model_grid(volume)
    scaled = replace(model, data=model.data * 0.5)  # a model that changes something everywhere
    back = back_to_input_grid(scaled, model, volume)
    for stage in (volume, model, back):
        centre = (millimetres(stage) * stage.data).sum((1, 2, 3)) / stage.data.sum()
        np.testing.assert_allclose(centre, point, atol=0.01)
    np.testing.assert_array_equal(back.affine, volume.affine)
    np.testing.assert_allclose(back.data.sum(), volume.data.sum() / 2, rtol=2e-3)


@pytest.mark.parametrize(
    ("diameter", "tolerance"), [(37, 0.01), (28, 0.02), (22, 0.02), (17, 0.03), (13, 0.04), (10, 0.05)]
)
@pytest.mark.parametrize("spacing", [(4.07, 4.07, 3.0), (1.0, 1.0, 2.0), (2.04, 2.04, 2.03)])
def test_sphere_means_survive_the_round_trip(diameter, tolerance, spacing):
    """The model's answer itself, without any of the input: the sphere's mean on the input grid, before and after."""
    rng = np.random.default_rng(diameter)
    shape = tuple(int(64 / s) for s in spacing)
    for _ in range(3):
        centre = rng.uniform(-6, 6, 3)
        volume = ball(centred_affine(shape, spacing, "LPS"), shape, centre, diameter)
        model = to_model_grid(volume)
        flat = replace(volume, data=np.ones(shape, np.float32))
        back = back_to_input_grid(identity(model), replace(model, data=np.ones_like(model.data)), flat)
        inside = volume.data > 0.5 * (8 + 1)
        assert back.data[inside].mean() == pytest.approx(volume.data[inside].mean(), rel=tolerance)
        total = ((model.data - 1).sum() * model.voxel_ml) / ((volume.data - 1).sum() * volume.voxel_ml)
        assert total == pytest.approx(1, rel=tolerance)


def test_a_volume_on_the_models_grid_is_not_touched():
    volume = Volume(np.random.default_rng(0).uniform(0, 20, (20, 30, 40)).astype(np.float32), np.diag([0, 0, 0, 1.0]))
    volume = replace(volume, affine=centred_affine((20, 30, 40), 1.65, "PLS"))
    assert to_model_grid(volume) is volume
    denoised = replace(volume, data=np.clip(volume.data, 0, 16) * np.float32(0.5))
    back = back_to_input_grid(denoised, volume, volume)
    np.testing.assert_allclose(back.data, volume.data - np.clip(volume.data, 0, 16) / 2, rtol=1e-5)


def test_same_voxels_in_another_order_are_only_reordered():
    volume = Volume(np.random.default_rng(0).uniform(1, 9, (6, 7, 8)).astype(np.float32), np.eye(4))
    volume = replace(volume, affine=centred_affine((6, 7, 8), 1.65, "LAS"))
    model = to_model_grid(volume)
    np.testing.assert_array_equal(model.data, volume.data.transpose(1, 0, 2)[::-1])


def test_going_coarser_is_anti_aliased_and_does_not_ring_below_zero():
    """Stripes finer than the coarse voxels become their mean, instead of stripes that are not there."""
    data = np.zeros((200, 12, 12), np.float32)
    data[::2] = 6
    fine = Volume(data, centred_affine(data.shape, (1.0, 1.65, 1.65), "PLS"))
    inner = to_model_grid(fine).data[10:-10]
    assert np.abs(inner - 3).max() < 0.2 * 3  # picking every second voxel or so would give 0 and 6
    data = np.zeros((60, 60, 60), np.float32)
    data[30, 30, 30] = 100
    assert to_model_grid(Volume(data, centred_affine(data.shape, 0.8, "RAS"))).data.min() >= 0


def test_the_crop_keeps_the_body_and_leaves_the_air():
    data = np.random.default_rng(0).uniform(0, 0.04, (100, 80, 60)).astype(np.float32)
    data[30:70, 20:50] = 1.0  # the body, over the whole length
    data[75:83, 30:38, 10:50] = 0.8  # an arm
    data[5, 5, 5] = 2.0  # a speck of noise
    volume = Volume(data, centred_affine(data.shape, (4, 4, 3), "LPS"))
    # margins of 20 mm: 5 voxels in plane, 7 axially; edges are known to a block of 2 voxels
    (i0, i1), (j0, j1), axial = body_box(volume, 20)
    assert 24 <= i0 <= 25
    assert 88 <= i1 <= 90
    assert 14 <= j0 <= 15
    assert 55 <= j1 <= 57
    assert axial == (0, 60)
    back = back_to_input_grid(identity(to_model_grid(volume)), to_model_grid(volume), volume)
    np.testing.assert_array_equal(back.data, data)
    assert body_box(replace(volume, data=np.zeros_like(data)), 20) == [(0, 100), (0, 80), (0, 60)]


def test_a_tilted_volume_with_fine_voxels_is_anti_aliased():
    white = np.random.default_rng(0).gamma(4, 1, (80, 80, 80)).astype(np.float32)
    fine = Volume(white, tilted(centred_affine(white.shape, 0.7, "LPS"), 15))
    inner = (slice(8, -8),) * 3
    # trilinear interpolation alone leaves about half of the noise between the voxels, and all of it on them
    assert to_model_grid(fine).data[inner].std() < 0.3 * white.std()


def test_a_normal_dose_partner_on_another_grid_lands_on_the_low_doses():
    """The same smooth image on two scanners' grids."""
    low_grid = Volume(np.zeros((50, 50, 60), np.float32), centred_affine((50, 50, 60), (4.07, 4.07, 3), "LPS"))
    normal_grid = Volume(np.zeros((110, 100, 90), np.float32), centred_affine((110, 100, 90), (2, 2.2, 2), "RAS"))

    def image(grid):
        distance = (millimetres(grid) ** 2).sum(0)
        return replace(grid, data=(1 + 5 * np.exp(-distance / (2 * 20.0**2))).astype(np.float32))

    model = to_model_grid(image(low_grid))
    partner = resample_like(image(normal_grid), model)
    np.testing.assert_array_equal(partner.affine, model.affine)
    inner = (slice(10, -10),) * 3
    np.testing.assert_allclose(partner.data[inner], model.data[inner], rtol=0.01)
    elsewhere = replace(normal_grid, affine=normal_grid.affine + np.pad([[200.0]], ((0, 3), (3, 0))))
    with pytest.raises(InputError, match="same part of the patient"):
        resample_like(image(elsewhere), model)
    with pytest.raises(InputError, match="low dose and normal dose do not have parallel axes"):
        resample_like(image(replace(normal_grid, affine=turned(normal_grid.affine, 10))), model)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_partner_that_shows_a_part_of_the_patient_only_is_refused(axis):
    """Its edge would go on through the rest, as a training target."""
    model = to_model_grid(Volume(np.ones((20, 20, 20), np.float32), centred_affine((20, 20, 20), 4.0, "LPS")))
    shape = [20, 20, 20]
    shape[axis] = 12
    partner = Volume(np.ones(shape, np.float32), centred_affine(tuple(shape), 4.0, "LPS"))
    with pytest.raises(InputError, match="same part of the patient"):
        resample_like(partner, model)


@pytest.mark.slow
@needs_sts
def test_preparing_is_no_slower_than_nibabel_and_takes_four_copies_at_most():
    volume = load_volume(STS)
    image = nib.Nifti1Image(volume.data, volume.affine)
    seconds = []
    for resample in (lambda: to_model_grid(volume), lambda: resample_to_output(image, (1.65,) * 3, order=1)):
        began = time.process_time()
        resample()
        seconds.append(time.process_time() - began)
    assert seconds[0] < seconds[1]
    tracemalloc.start()
    model = to_model_grid(volume)
    copies = tracemalloc.get_traced_memory()[1] / model.data.nbytes  # beside the input
    tracemalloc.stop()
    print(f"{seconds[0]:.1f} s against nibabel's {seconds[1]:.1f} s of CPU; {copies:.2f} copies at the peak")
    assert copies + volume.data.nbytes / model.data.nbytes < 4
