"""Test objects with known activity: a uniform cylinder."""

import numpy as np

from guided_diffusion.simulation.canvas import Canvas
from guided_diffusion.simulation.iec_phantom import WATER_MU, canvas_of
from guided_diffusion.simulation.shapes import Tube


def cylinder(shape: tuple[int, int, int], voxel_mm: float, radius_mm: float, suv: float = 1.0) -> Canvas:
    """A water cylinder along the axis, longer than the grid."""
    canvas = canvas_of(shape, voxel_mm)
    canvas.paint(Tube(np.array([[0, 0, -2000], [0, 0, 2000]]), np.array([radius_mm] * 2)), suv, WATER_MU, 1)
    return canvas
