"""Volumes of random shapes and textures with PET-like contrasts, so that a network does not memorise anatomy."""

from dataclasses import dataclass

import numpy as np

from guided_diffusion.simulation.body_phantom import Phantom, generator, make_patient
from guided_diffusion.simulation.canvas import Canvas, Grid
from guided_diffusion.simulation.shapes import Ellipsoid, Solid, Tube, curve, rotation, wavy

WATER_MU, LUNG_MU, BONE_MU = 0.096, 0.028, 0.15
SHAPES = (60, 160)
SEMI_MM = (3.0, 70.0)
UPTAKE_SUV = (0.3, 3.0)
CONTRASTS = (0.05, 12.0)
HOTTEST_SUV = 40.0
MOST_TEXTURE = 0.5
SHAPE_LABEL = 1

SPHERES = (60, 160)
SMALL_SHARE, SMALL_MM, LARGE_MM = 0.8, (5.0, 16.0), (16.0, 40.0)
SPHERE_CONTRASTS = (1.5, 20.0)
INSERT_MM = (10.0, 35.0)


@dataclass(frozen=True)
class Column:
    """What random shapes lie in: a solid through the grid's axis and its SUV; its middle and semi-axes there, in mm."""

    solid: Ellipsoid
    suv: float
    middle: np.ndarray
    reach: np.ndarray

    def place(self, rng: np.random.Generator) -> np.ndarray:
        """A point within 0.9 of the semi-axes."""
        return self.middle + self.reach * rng.uniform(-0.9, 0.9, 3)


def _column(grid: Grid, rng: np.random.Generator) -> Column:
    low, high = (np.array([axis.min() for axis in grid.axes()]), np.array([axis.max() for axis in grid.axes()]))
    middle, length = (low + high) / 2, (high - low)[2]
    semi = np.array([rng.uniform(90, 140), rng.uniform(120, 205), 10 * length])
    suv = _log_uniform(rng, *UPTAKE_SUV)
    solid = Ellipsoid(middle * (0, 0, 1), semi, rng.uniform(2, 3.5))
    return Column(solid, suv, middle * (0, 0, 1), np.array([semi[0], semi[1], length / 2]))


def make_hot_spheres(seed: int, grid: Grid) -> Phantom:
    """A uniform column with many hot spheres and, in every second one, a cold cylinder along its axis.

    Four of five spheres have a diameter of 5 to 16 mm, the others up to 40 mm; contrasts to the column are log-uniform
    from 1.5 to 20. Half of the columns have a texture.
    """
    rng = generator(seed, "hot spheres")
    canvas = Canvas(grid, generator(seed, "canvas"), bend_mm=0.0)
    column = _column(grid, rng)
    canvas.paint(column.solid, column.suv, WATER_MU, SHAPE_LABEL, rng.choice([0.0, 1.0]) * rng.uniform(0, MOST_TEXTURE))
    if rng.random() < 0.5:
        line = column.middle + np.array([[0.0, 0.0, -10.0], [0.0, 0.0, 10.0]]) * column.reach[2]
        canvas.paint(Tube(line, np.full(2, rng.uniform(*INSERT_MM))), 0.0, LUNG_MU, SHAPE_LABEL)
    for _ in range(int(rng.integers(*SPHERES))):
        diameter = rng.uniform(*(SMALL_MM if rng.random() < SMALL_SHARE else LARGE_MM))
        suv = min(column.suv * _log_uniform(rng, *SPHERE_CONTRASTS), HOTTEST_SUV)
        canvas.paint(Ellipsoid(column.place(rng), (diameter / 2,) * 3), suv, WATER_MU, SHAPE_LABEL)
    return Phantom(grid, make_patient(seed, "fdg"), [], canvas.activity, canvas.attenuation, canvas.labels)


def make_random_shapes(seed: int, grid: Grid) -> Phantom:
    """A column of random depth and width, filled with ellipsoids, wavy ellipsoids and tubes of random uptake.

    Sizes and contrasts to the column are log-uniform; one shape in eight is as thin as lung, one in eight as dense as
    bone.
    """
    rng = generator(seed, "random shapes")
    canvas = Canvas(grid, generator(seed, "canvas"))
    column = _column(grid, rng)
    canvas.paint(column.solid, column.suv, WATER_MU, SHAPE_LABEL, rng.uniform(0, MOST_TEXTURE))
    for _ in range(int(rng.integers(*SHAPES))):
        centre = column.place(rng)
        suv = min(column.suv * _log_uniform(rng, *CONTRASTS), HOTTEST_SUV)
        mu = float(rng.choice([WATER_MU, LUNG_MU, BONE_MU], p=[0.75, 0.125, 0.125]))
        canvas.paint(_random_solid(centre, rng), suv, mu, SHAPE_LABEL, rng.uniform(0, MOST_TEXTURE))
    return Phantom(grid, make_patient(seed, "fdg"), [], canvas.activity, canvas.attenuation, canvas.labels)


def _random_solid(centre: np.ndarray, rng: np.random.Generator) -> Solid:
    size = _log_uniform(rng, *SEMI_MM)
    if rng.random() < 0.2:
        return _random_tube(centre, min(size / 2, 12.0), rng)
    semi = size * np.exp(rng.normal(0, 0.3, 3))
    turn = rotation(0, rng.uniform(0, 180)) @ rotation(1, rng.uniform(0, 180)) @ rotation(2, rng.uniform(0, 180))
    solid: Solid = Ellipsoid(centre, semi, rng.uniform(1.6, 5), turn)
    return wavy(solid, 0.12 * size, 1.5 * size, rng) if rng.random() < 0.4 else solid


def _random_tube(centre: np.ndarray, radius: float, rng: np.random.Generator) -> Tube:
    points = centre + np.cumsum(rng.normal(0, 35, (4, 3)), axis=0)
    return curve(points, radius * rng.uniform(0.5, 1.5, 4), 8)


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))
