"""The projector by value: adjoint, conservation, chords, blur."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guided_diffusion.simulation.projector import Geometry, Projector, gaussian_matrix
from tests.pet_phantoms import cylinder


def geometry(**changes) -> Geometry:
    plain = Geometry((40, 60), 4.0, n_slices=5, slice_mm=4.0, n_bins=60, bin_mm=4.0, n_angles=48, n_subsets=6)
    return replace(plain, **changes)


@pytest.mark.parametrize("changes", [{}, {"voxel_mm": 5.5, "shape": (30, 44)}, {"n_subsets": 1}])
def test_back_projection_is_the_transpose_of_forward(changes):
    projector = Projector(geometry(**changes), 6.0, 5.0)
    rng = np.random.default_rng(1)
    image = rng.random((*projector.geometry.shape, 5), dtype=np.float32)
    left = right = 0.0
    for subset in range(projector.geometry.n_subsets):
        projected = projector.forward(image, subset)
        sinogram = rng.random(projected.shape, dtype=np.float32)
        left += np.vdot(projected.astype(float), sinogram.astype(float))
        right += np.vdot(image.astype(float), projector.back(sinogram, subset).astype(float))
    assert left == pytest.approx(right, rel=1e-5)


@given(
    st.integers(5, 35),
    st.integers(15, 45),
    st.sampled_from([(4.0, (40, 60)), (6.5, (24, 36)), (2.5, (64, 96))]),
)
@settings(deadline=None, max_examples=20)
def test_every_view_keeps_the_activity_of_a_voxel(p, l, grid):  # noqa: E741
    voxel_mm, shape = grid
    projector = Projector(geometry(voxel_mm=voxel_mm, shape=shape), 0.0, 0.0)
    image = np.zeros((*shape, 5), np.float32)
    image[p * shape[0] // 40, l * shape[1] // 60, 2] = 3.0
    for subset in range(6):
        per_view = projector.forward(image, subset).sum(axis=(1, 2))
        np.testing.assert_allclose(per_view, 3.0, rtol=1e-5)


def test_line_integrals_of_a_cylinder_are_its_chords():
    object_ = cylinder((60, 60, 3), 3.0, 60.0)
    projector = Projector(geometry(shape=(60, 60), voxel_mm=3.0, n_bins=60, bin_mm=3.0, n_slices=3), 0.0, 0.0)
    position = (np.arange(60) - 29.5) * 3.0
    chord = 2 * np.sqrt(np.clip(60.0**2 - position**2, 0, None))
    for subset in range(6):
        measured = projector.line_integrals(object_.attenuation / 10, subset)[:, :, 1]
        # Within a bin of the edge the mean over the strip is not the chord at its middle.
        inner = np.abs(position) < 50
        np.testing.assert_allclose(
            measured[:, inner], np.broadcast_to(0.0096 * chord[inner], measured[:, inner].shape), rtol=0.02
        )


def test_blur_has_the_width_that_was_asked_for():
    kernel = gaussian_matrix(101, 2.0)[50]
    offset = np.arange(101) - 50
    assert kernel.sum() == pytest.approx(1.0, abs=1e-5)
    assert np.sqrt((kernel * offset**2).sum()) == pytest.approx(2.0, rel=1e-3)
    np.testing.assert_array_equal(gaussian_matrix(4, 0.0), np.eye(4))


def test_subsets_must_divide_the_views():
    with pytest.raises(ValueError, match="48 views cannot be shared by 7"):
        geometry(n_subsets=7)
