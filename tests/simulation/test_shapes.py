"""Signed distances by value."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guided_diffusion.simulation.shapes import Common, Ellipsoid, Grown, Trunk, Tube, curve, rotation, wavy

SEMI = st.floats(4, 60)


def points(array) -> tuple[np.ndarray, ...]:
    return tuple(np.asarray(array, np.float32).T)


@given(SEMI, SEMI, SEMI, st.sampled_from([2.0, 2.5, 4.0]), st.floats(-90, 90), st.integers(0, 10**6))
@settings(deadline=None, max_examples=60)
def test_superellipsoid_is_zero_on_its_surface_and_fits_its_box(a, b, c, exponent, degrees, seed):
    turn = rotation(0, degrees) @ rotation(2, 30)
    solid = Ellipsoid((10, -20, 300), (a, b, c), exponent, turn)
    directions = np.random.default_rng(seed).standard_normal((200, 3))
    on_surface = directions / (np.abs(directions / [a, b, c]) ** exponent).sum(axis=1, keepdims=True) ** (1 / exponent)
    placed = on_surface @ turn.T + [10, -20, 300]
    np.testing.assert_allclose(solid.distance(*points(placed)), 0, atol=2e-3 * max(a, b, c))
    low, high = solid.bounds()
    assert np.all(placed >= low - 1e-3)
    assert np.all(placed <= high + 1e-3)
    centre = np.array([10, -20, 300])
    assert np.all(solid.distance(*points(centre + 1.1 * (placed - centre))) > 0)
    assert np.all(solid.distance(*points(centre + 0.9 * (placed - centre))) < 0)


@given(st.floats(5, 60), st.floats(-20, 20))
@settings(deadline=None)
def test_sphere_and_grown_sphere_measure_true_distance(radius, margin):
    solid = Grown(Ellipsoid((0, 0, 0), (radius,) * 3), margin)
    at = np.array([[radius + 7, 0, 0], [0, 0.5 * radius, 0]])
    np.testing.assert_allclose(solid.distance(*points(at)), [7 - margin, -0.5 * radius - margin], atol=1e-3)


def test_tube_tapers_between_its_points():
    tube = Tube(np.array([[0, 0, 0], [0, 0, 100]]), np.array([10, 20]))
    at = [[12, 0, 0], [0, 20, 50], [0, 0, 125], [0, 0, -12]]
    np.testing.assert_allclose(tube.distance(*points(at)), [2, 5, 5, 2], atol=1e-4)
    np.testing.assert_allclose(tube.bounds()[1], [20, 20, 120])


def test_curve_passes_through_its_points():
    knots = [(0, 0, 0), (10, 20, 30), (-5, 40, 60)]
    tube = curve(knots, [3, 5, 4], 60)
    distance = tube.distance(*points(knots))
    np.testing.assert_allclose(distance, [-3, -5, -4], atol=0.3)


def test_trunk_follows_its_knots():
    trunk = Trunk([0, 100, 200], [50, 60, 55], [100, 120, 110], [0, 5, 0], exponent=2.0)
    assert trunk.radius_at(100) == pytest.approx((60, 120, 5))
    at = [[65, 0, 100], [5, 120, 100], [75, 0, 100], [0, 0, 210]]
    np.testing.assert_allclose(trunk.distance(*points(at)), [0, 0, 10, 10], atol=0.05)


def test_common_is_inside_both():
    both = Common(Ellipsoid((0, 0, 0), (10, 10, 10)), Ellipsoid((10, 0, 0), (10, 10, 10)))
    distance = both.distance(*points([[5, 0, 0], [-5, 0, 0]]))
    assert distance[0] == pytest.approx(-5, abs=1e-3)
    assert distance[1] > 0
    np.testing.assert_allclose(both.bounds()[0], [0, -10, -10])


def test_waves_push_the_surface_by_their_amplitude():
    rng = np.random.default_rng(0)
    plain = Ellipsoid((0, 0, 0), (80, 80, 80))
    at = points(rng.uniform(-80, 80, (5000, 3)))
    push = wavy(plain, 3.0, 20.0, rng).distance(*at) - plain.distance(*at)
    assert push.std() == pytest.approx(3.0, rel=0.1)
    assert abs(push.mean()) < 0.4
