"""Test objects with known activity: a uniform cylinder and the NEMA IEC body phantom."""

from collections.abc import Sequence

import numpy as np

from guided_diffusion.simulation.canvas import Canvas, Grid
from guided_diffusion.simulation.shapes import Ellipsoid, Tube

WATER_MU = 0.096
IEC_SPHERES_MM = (10, 13, 17, 22, 28, 37)
IEC_RING_MM = 57.2


def canvas_of(shape: tuple[int, int, int], voxel_mm: float) -> Canvas:
    """An empty canvas that does not bend what is painted, its middle slice at d = 0."""
    return Canvas(Grid(shape, voxel_mm, -shape[2] * voxel_mm / 2), np.random.default_rng(0), bend_mm=0.0)


def cylinder(shape: tuple[int, int, int], voxel_mm: float, radius_mm: float, suv: float = 1.0) -> Canvas:
    """A water cylinder along the axis, longer than the grid."""
    canvas = canvas_of(shape, voxel_mm)
    canvas.paint(Tube(np.array([[0, 0, -2000], [0, 0, 2000]]), np.array([radius_mm] * 2)), suv, WATER_MU, 1)
    return canvas


def iec_centres() -> Sequence[tuple[float, float, float]]:
    """Centres (p, l, d) of the six spheres on their ring."""
    angles = np.arange(6) * np.pi / 3
    return [(IEC_RING_MM * np.sin(a), IEC_RING_MM * np.cos(a), 0.0) for a in angles]


def iec_phantom(shape: tuple[int, int, int], voxel_mm: float, contrast: float) -> Canvas:
    """NEMA NU 2 image quality phantom: body of 300 x 230 mm, cold lung insert, six hot spheres in the middle plane."""
    canvas = canvas_of(shape, voxel_mm)
    canvas.paint(Ellipsoid((0, 0, 0), (115, 150, 5000), 2.5), 1.0, WATER_MU, 1)
    canvas.paint(Tube(np.array([[0, 0, -2000], [0, 0, 2000]]), np.array([25.5] * 2)), 0.0, 0.026, 2)
    for number, (centre, diameter) in enumerate(zip(iec_centres(), IEC_SPHERES_MM, strict=True)):
        canvas.paint(Ellipsoid(centre, (diameter / 2,) * 3), contrast, WATER_MU, 10 + number)
    return canvas
