"""Images drawn from a distribution: variance, correlation, and names of the noise."""

import math

import numpy as np
import pytest

from guided_diffusion.inference.drawing import Distribution
from guided_diffusion.local_spread import LENGTHS, block_variance, kernel

SHAPE = (40, 36, 44)
KERNELS = tuple(kernel(length).numpy() for length in LENGTHS)


def distribution(*amplitudes: float, shape=SHAPE) -> Distribution:
    mean = np.full(shape, 5, dtype=np.float32)
    volumes = np.stack([np.full(shape, amplitude, dtype=np.float32) for amplitude in amplitudes])
    return Distribution(mean, volumes, KERNELS[: len(amplitudes)])


@pytest.mark.parametrize("number", range(len(LENGTHS)))
def test_noise_has_the_variance_and_the_correlation_of_its_kernel(number):
    drawn = np.stack([distribution(*[1.0] * 5).noise(number, 3, k) for k in range(4)]).astype(np.float64)
    # A volume holds as many independent values as cubes in which noise is correlated.
    independent = drawn.size / max(1.0, 2 * math.sqrt(math.pi) * LENGTHS[number]) ** 3
    assert abs(drawn.mean()) < 4 / math.sqrt(independent)
    assert np.square(drawn).mean() == pytest.approx(1, abs=4 * math.sqrt(2 / independent))
    for axis in (1, 2, 3):
        pairs = np.moveaxis(drawn, axis, 0)
        # Of noise that a Gaussian of that length has correlated: a Gaussian again, root 2 as wide.
        expected = math.exp(-1 / (4 * LENGTHS[number] ** 2)) if LENGTHS[number] else 0
        assert (pairs[1:] * pairs[:-1]).mean() / np.square(drawn).mean() == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("side", [1, 2, 4, 8])
def test_the_variance_of_means_over_blocks_is_that_of_drawn_noise(length, side):
    number = LENGTHS.index(length)
    drawn = [distribution(*[1.0] * 5, shape=(48, 48, 48)).noise(number, 5, k) for k in range(6)]
    means = [v.reshape(48 // side, side, 48 // side, side, 48 // side, side).mean(axis=(1, 3, 5)) for v in drawn]
    assert np.square(means).mean() == pytest.approx(block_variance(length, side), rel=0.12)


def test_draws_spread_about_the_mean_as_the_deviation_says():
    predicted = distribution(0.3, 0.2, 0.4, shape=(12, 12, 12))
    drawn = np.stack([predicted.draw(1, k) for k in range(60)]).astype(np.float64)
    np.testing.assert_allclose(predicted.deviation, math.sqrt(0.3**2 + 0.2**2 + 0.4**2), rtol=1e-6)
    assert drawn.mean() == pytest.approx(5, abs=0.02)
    assert np.sqrt(drawn.var(axis=0, ddof=1).mean()) == pytest.approx(predicted.deviation.mean(), rel=0.03)


def test_a_draw_is_named_by_its_seed_and_its_number():
    predicted = distribution(0.3, 0.2)
    np.testing.assert_array_equal(predicted.draw(7, 2), predicted.draw(7, 2))
    for other in (predicted.draw(7, 3), predicted.draw(8, 2)):
        assert abs(np.corrcoef(other.ravel(), predicted.draw(7, 2).ravel())[0, 1]) < 0.02
