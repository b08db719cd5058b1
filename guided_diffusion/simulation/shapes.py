"""Smooth solids in the patient's frame, as signed distances.

Points are (p, l, d) in mm: p grows to posterior, l to the patient's left, d down from the vertex of the head. A solid's
`distance` is negative inside and, near the surface, close to the true distance, so that a voxel's filled share follows
from it; `bounds` is a box (low, high) around the solid.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from scipy.interpolate import CubicSpline, PchipInterpolator

Point = Sequence[float]

WAVES = 6
"""Waves that displace a surface."""


class Solid(Protocol):
    """Anything with a box around it and a signed distance (mm)."""

    def bounds(self) -> tuple[np.ndarray, np.ndarray]: ...

    def distance(self, p: np.ndarray, l: np.ndarray, d: np.ndarray) -> np.ndarray: ...  # noqa: E741


def rotation(axis: int, degrees: float) -> np.ndarray:
    """Rotation matrix [3, 3] about one axis of the frame (0: p, 1: l, 2: d)."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    matrix = np.eye(3)
    i, j = [k for k in range(3) if k != axis]
    matrix[i, i] = matrix[j, j] = c
    matrix[i, j], matrix[j, i] = -s, s
    return matrix


@dataclass(frozen=True)
class Ellipsoid:
    """Superellipsoid |x/a|^n + |y/b|^n + |z/c|^n <= 1, semi-axes `semi` (mm), turned; an ellipsoid for n = 2."""

    centre: Point
    semi: Point
    exponent: float = 2.0
    turn: np.ndarray = field(default_factory=lambda: np.eye(3))

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        reach = np.abs(self.turn) @ np.asarray(self.semi, float)
        if self.exponent <= 2.0:
            reach = np.sqrt((np.asarray(self.turn) ** 2) @ np.asarray(self.semi, float) ** 2)
        return np.asarray(self.centre) - reach, np.asarray(self.centre) + reach

    def distance(self, p: np.ndarray, l: np.ndarray, d: np.ndarray) -> np.ndarray:  # noqa: E741
        local = [q - c for q, c in zip((p, l, d), self.centre, strict=True)]
        power_sum, slope = 0.0, 0.0
        for row, semi in zip(np.asarray(self.turn, np.float32).T, self.semi, strict=True):
            u = np.abs(row[0] * local[0] + row[1] * local[1] + row[2] * local[2]) / np.float32(semi)
            u = np.maximum(u, 1e-4)
            power_sum = power_sum + u**self.exponent
            slope = slope + (u ** (self.exponent - 1) / np.float32(semi)) ** 2
        norm = power_sum ** (1 / self.exponent)
        gradient = np.sqrt(slope) * norm ** (1 - self.exponent)
        return (norm - 1) / gradient


@dataclass(frozen=True)
class Tube:
    """Chain of cones along `points` [n, 3] (mm) with a radius per point and round ends."""

    points: np.ndarray
    radii: np.ndarray

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        points, radii = np.asarray(self.points, float), np.asarray(self.radii, float)[:, None]
        return (points - radii).min(axis=0), (points + radii).max(axis=0)

    def segments(self) -> list["Tube"]:
        """The cones one by one: painting each in its own box is much cheaper than the whole in one."""
        return [Tube(self.points[i : i + 2], self.radii[i : i + 2]) for i in range(len(self.points) - 1)]

    def distance(self, p: np.ndarray, l: np.ndarray, d: np.ndarray) -> np.ndarray:  # noqa: E741
        nearest = None
        for a, b, ra, rb in zip(self.points, self.points[1:], self.radii, self.radii[1:], strict=False):
            a, along = np.asarray(a, np.float32), np.subtract(b, a, dtype=np.float32)
            q = (p - a[0], l - a[1], d - a[2])
            t = (q[0] * along[0] + q[1] * along[1] + q[2] * along[2]) / np.float32(along @ along)
            t = np.clip(t, 0, 1)
            squared = sum((q[k] - t * along[k]) ** 2 for k in range(3))
            to_surface = np.sqrt(squared) - (np.float32(ra) + t * np.float32(rb - ra))
            nearest = to_surface if nearest is None else np.minimum(nearest, to_surface)
        return nearest


def curve(points: Sequence[Point], radii: Sequence[float] | float, steps: int) -> Tube:
    """Tube along a cubic spline through `points`, in `steps` cones; radii run linearly between points."""
    points = np.asarray(points, float)
    chord = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    t = np.linspace(0, chord[-1], steps + 1)
    radii = np.broadcast_to(np.asarray(radii, float), len(points))
    return Tube(CubicSpline(chord, points)(t), np.interp(t, chord, radii))


@dataclass(frozen=True)
class Trunk:
    """Stack of superellipses along d: half depth, half width and centre p (mm) at the knots, smooth in between."""

    knots: Point
    half_depth: Point
    half_width: Point
    centre: Point
    exponent: float = 2.4

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        depth, width, centre = max(self.half_depth), max(self.half_width), np.asarray(self.centre)
        return np.array([centre.min() - depth, -width, min(self.knots)]), np.array(
            [centre.max() + depth, width, max(self.knots)]
        )

    def distance(self, p: np.ndarray, l: np.ndarray, d: np.ndarray) -> np.ndarray:  # noqa: E741
        fine = np.linspace(min(self.knots), max(self.knots), 512)
        depth, width, centre = (
            np.interp(d, fine, PchipInterpolator(self.knots, values)(fine)).astype(np.float32)
            for values in (self.half_depth, self.half_width, self.centre)
        )
        u = np.maximum(np.abs(p - centre) / depth, 1e-4)
        v = np.maximum(np.abs(l) / width, 1e-4)
        n = np.float32(self.exponent)
        norm = (u**n + v**n) ** (1 / n)
        gradient = np.sqrt((u ** (n - 1) / depth) ** 2 + (v ** (n - 1) / width) ** 2) * norm ** (1 - n)
        side = (norm - 1) / gradient
        return np.maximum(side, np.maximum(np.float32(min(self.knots)) - d, d - np.float32(max(self.knots))))

    def radius_at(self, d: float) -> tuple[float, float, float]:
        """(half depth, half width, centre) at depth d."""
        d = np.clip(d, min(self.knots), max(self.knots))
        return tuple(
            float(PchipInterpolator(self.knots, v)(d)) for v in (self.half_depth, self.half_width, self.centre)
        )


@dataclass(frozen=True)
class Grown:
    """A solid moved outwards by `margin` mm (inwards when negative)."""

    solid: Solid
    margin: float

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        low, high = self.solid.bounds()
        return low - self.margin, high + self.margin

    def distance(self, p: np.ndarray, l: np.ndarray, d: np.ndarray) -> np.ndarray:  # noqa: E741
        return self.solid.distance(p, l, d) - np.float32(self.margin)


@dataclass(frozen=True)
class Common:
    """Intersection of two solids."""

    first: Solid
    second: Solid

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        (low_a, high_a), (low_b, high_b) = self.first.bounds(), self.second.bounds()
        return np.maximum(low_a, low_b), np.minimum(high_a, high_b)

    def distance(self, p: np.ndarray, l: np.ndarray, d: np.ndarray) -> np.ndarray:  # noqa: E741
        return np.maximum(self.first.distance(p, l, d), self.second.distance(p, l, d))


@dataclass(frozen=True)
class Wavy:
    """A solid with a surface displaced by a few plane waves: gyri, bowel folds, irregular lesions.

    `waves` [n, 3]: wave vectors (radians per mm); `phases` [n]; `amplitude` mm is the standard deviation of the
    displacement.
    """

    solid: Solid
    amplitude: float
    waves: np.ndarray
    phases: np.ndarray

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        low, high = self.solid.bounds()
        return low - 2.5 * self.amplitude, high + 2.5 * self.amplitude

    def distance(self, p: np.ndarray, l: np.ndarray, d: np.ndarray) -> np.ndarray:  # noqa: E741
        push = sum(
            np.sin(np.float32(k[0]) * p + np.float32(k[1]) * l + np.float32(k[2]) * d + np.float32(phase))
            for k, phase in zip(self.waves, self.phases, strict=True)
        )
        return self.solid.distance(p, l, d) + np.float32(self.amplitude * np.sqrt(2 / len(self.waves))) * push


def wavy(solid: Solid, amplitude: float, wavelength: float, rng: np.random.Generator) -> Wavy:
    """`solid` with random waves of about `wavelength` mm in all directions."""
    directions = rng.standard_normal((WAVES, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    lengths = wavelength * rng.uniform(0.7, 1.4, (WAVES, 1))
    return Wavy(solid, amplitude, directions * 2 * np.pi / lengths, rng.uniform(0, 2 * np.pi, WAVES))
