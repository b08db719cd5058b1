import base64
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guided_diffusion.report.packing import KNEE, STEPS, Packing, PageTooLarge, choose_packing, quantised
from guided_diffusion.report.projections import coarser


def unpacked(text, shape, step):
    """What the page's script makes of a text."""
    data = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8)
    low, high = data.reshape(2, -1).astype(np.int32)
    zigzag = low | (high << 8)
    change = (zigzag >> 1) ^ -(zigzag & 1)
    return KNEE * np.sinh(np.cumsum(change.reshape(shape), axis=2) * step)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(STEPS), st.floats(0.1, 500))
def test_values_come_back_within_the_stated_error(seed, step, scale):
    volume = (scale * np.random.default_rng(seed).standard_cauchy((4, 5, 6))).clip(-900, 900).astype(np.float32)
    packing = Packing(1, step)
    back = unpacked(packing.pack(volume), volume.shape, step)
    bounds = np.array([packing.largest_error(value) for value in volume.ravel()]).reshape(volume.shape)
    assert (np.abs(back - volume) <= bounds * (1 + 1e-5)).all()
    assert np.abs(back - volume).max() > 0.05 * bounds.min()  # the bound says something


def test_the_bound_at_zero_and_far_above():
    assert Packing(1, 0.01).largest_error(0) == pytest.approx(0.005, rel=0.02)
    assert Packing(1, 0.01).largest_error(100) == pytest.approx(0.5, rel=0.02)
    assert Packing(1, 0.01).percent == pytest.approx(0.5)


def test_zero_stays_zero():
    assert not quantised(np.zeros(3), 0.01).any()


def test_the_finest_packing_that_fits_is_chosen():
    volume = np.random.default_rng(0).gamma(2, 1, (32, 32, 32)).astype(np.float32)
    sizes = {(block, step): len(Packing(block, step).pack(volume)) for block in (1, 2) for step in STEPS}
    assert choose_packing([volume], limit=10**6) == Packing(1, STEPS[0])
    assert choose_packing([volume], limit=int(1.2 * sizes[1, 0.01])) == Packing(1, 0.01)
    assert choose_packing([volume], limit=int(0.9 * sizes[1, STEPS[-1]])) == Packing(2, STEPS[0])
    chosen = choose_packing([volume, volume], limit=sizes[1, STEPS[-1]])
    assert chosen.block == 2
    assert 2 * sizes[2, chosen.step] <= sizes[1, STEPS[-1]]
    with pytest.raises(PageTooLarge):
        choose_packing([volume], limit=20)


def test_blocks_hold_means():
    volume = np.random.default_rng(0).gamma(2, 1, (9, 8, 7)).astype(np.float32)
    back = unpacked(Packing(2, 0.002).pack(volume), (4, 4, 3), 0.002)
    assert back == pytest.approx(coarser(volume, 2), rel=0.005)
