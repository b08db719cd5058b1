"""OSEM on noise-free data: the NEMA IEC phantom comes back."""

from dataclasses import replace

import numpy as np
import pytest

from guided_diffusion.simulation.iec_phantom import SPHERES_MM, iec_phantom, sphere_centres
from guided_diffusion.simulation.osem import osem
from guided_diffusion.simulation.projector import Geometry, Projector

VOXEL_MM, CONTRAST = 2.5, 4.0


@pytest.fixture(scope="module")
def recovered():
    """(truth, reconstruction, canvas) of the IEC phantom, noise-free, attenuated, 4.5 mm resolution."""
    geometry = Geometry((112, 132), VOXEL_MM, 28, VOXEL_MM, 132, VOXEL_MM, 144, 16)
    object_ = iec_phantom((112, 132, 28), VOXEL_MM, CONTRAST)
    projector = Projector(geometry, 4.5, 4.5)
    subsets = range(16)
    survival = [np.exp(-projector.line_integrals(object_.attenuation / 10, s)) for s in subsets]
    factors = [100 * a for a in survival]
    background = [np.full_like(a, 300.0) for a in survival]
    counts = [factors[s] * projector.forward(object_.activity, s) + background[s] for s in subsets]
    return object_, osem(projector, counts, factors, background, iterations=4)


def test_recovery_rises_with_the_sphere(recovered):
    object_, image = recovered
    p, l, d = np.meshgrid(*object_.grid.axes(), indexing="ij")  # noqa: E741
    background = image[(object_.labels == 1) & (p < -70)].mean()
    recovery = []
    for centre, diameter in zip(sphere_centres(), SPHERES_MM, strict=True):
        inside = (p - centre[0]) ** 2 + (l - centre[1]) ** 2 + (d - centre[2]) ** 2 <= (diameter / 2) ** 2
        recovery.append((image[inside].mean() / background - 1) / (CONTRAST - 1))
    assert np.all(np.diff(recovery) > 0), recovery
    assert recovery[-1] > 0.85
    assert recovery[0] > 0.4
    assert recovery[-1] < 1.05


def test_activity_is_conserved_and_the_background_is_right(recovered):
    object_, image = recovered
    assert image.sum(dtype=float) == pytest.approx(object_.activity.sum(dtype=float), rel=0.02)
    p = object_.grid.axes()[0]
    assert image[(object_.labels == 1) & (p[:, None, None] < -75)].mean() == pytest.approx(1.0, rel=0.02)


def test_voxels_that_no_ray_sees_are_zero():
    geometry = Geometry((30, 30), 4.0, 2, 4.0, 30, 4.0, 24, 4)
    projector = Projector(geometry, 0.0, 0.0)
    ones = [projector.forward(np.ones((30, 30, 2), np.float32), s) for s in range(4)]
    unit = [np.ones_like(o) for o in ones]
    image = osem(projector, ones, unit, [np.zeros_like(o) for o in ones], 2)
    assert image[0, 0, 0] == 0
    assert image[15, 15, 0] == pytest.approx(1.0, rel=0.05)


def test_subsets_do_not_change_a_consistent_image():
    geometry = Geometry((30, 30), 4.0, 2, 4.0, 30, 4.0, 24, 1)
    rng = np.random.default_rng(3)
    truth = np.zeros((30, 30, 2), np.float32)
    truth[8:22, 8:22] = 1 + rng.random((14, 14, 2), dtype=np.float32)
    images = []
    for n_subsets, iterations in ((1, 24), (6, 4)):
        projector = Projector(replace(geometry, n_subsets=n_subsets), 0.0, 0.0)
        counts = [projector.forward(truth, s) for s in range(n_subsets)]
        unit, zero = [np.ones_like(c) for c in counts], [np.zeros_like(c) for c in counts]
        images.append(osem(projector, counts, unit, zero, iterations))
    # Hudson and Larkin: subsets speed convergence by about their number.
    np.testing.assert_allclose(images[0][10:20, 10:20], images[1][10:20, 10:20], rtol=0.05)
