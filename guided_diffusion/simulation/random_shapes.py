"""Volumes of random shapes and textures with PET's contrasts, so that a network does not memorise anatomy."""

import numpy as np

from guided_diffusion.simulation.body_phantom import Phantom, generator, make_patient
from guided_diffusion.simulation.canvas import Canvas, Grid
from guided_diffusion.simulation.shapes import Ellipsoid, Solid, Tube, curve, rotation, wavy

WATER_MU, LUNG_MU, BONE_MU = 0.096, 0.028, 0.15
SHAPES = (60, 160)
SEMI_MM = (3.0, 70.0)
BODY_SUV = (0.3, 3.0)
CONTRASTS = (0.05, 12.0)
HOTTEST_SUV = 40.0
MOST_TEXTURE = 0.5
SHAPE_LABEL = 1


def make_random_shapes(seed: int, grid: Grid) -> Phantom:
    """A column of random depth and width, filled with ellipsoids, wavy ones and tubes of random uptake.

    Sizes and contrasts to the column are log-uniform; one shape in eight is thin as lung, one in eight dense as bone.
    """
    rng = generator(seed, "random shapes")
    canvas = Canvas(grid, generator(seed, "canvas"))
    low, high = (np.array([axis.min() for axis in grid.axes()]), np.array([axis.max() for axis in grid.axes()]))
    middle = (low + high) / 2
    semi = np.array([rng.uniform(90, 140), rng.uniform(120, 205), 10 * (high - low)[2]])
    body_suv = _log_uniform(rng, *BODY_SUV)
    body = Ellipsoid(middle * (0, 0, 1), semi, rng.uniform(2, 3.5))
    canvas.paint(body, body_suv, WATER_MU, SHAPE_LABEL, rng.uniform(0, MOST_TEXTURE))
    reach = np.array([semi[0], semi[1], (high - low)[2] / 2])
    for _ in range(int(rng.integers(*SHAPES))):
        centre = middle * (0, 0, 1) + reach * rng.uniform(-0.9, 0.9, 3)
        suv = min(body_suv * _log_uniform(rng, *CONTRASTS), HOTTEST_SUV)
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
