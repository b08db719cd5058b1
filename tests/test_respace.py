"""Which timesteps are kept. The published forms are pinned in test_golden.py."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guided_diffusion.errors import InputError
from guided_diffusion.gaussian_diffusion import beta_schedule
from guided_diffusion.respace import half_log_snr, kept_timesteps

PRODUCTS = np.cumprod(1.0 - beta_schedule("linear", 1000))


@given(st.data())
def test_logsnr_keeps_as_many_as_asked_from_the_start_to_the_end(data):
    start = data.draw(st.integers(0, 999))
    count = data.draw(st.integers(1, start + 1))
    kept = kept_timesteps(PRODUCTS, f"logsnr{count}", start)
    assert len(kept) == count
    assert kept[-1] == start
    assert kept == sorted(set(kept))
    assert count == 1 or kept[0] == 0


def test_logsnr_steps_are_even_where_timesteps_are_fine():
    products = np.cumprod(1.0 - beta_schedule("linear", 100_000))
    lengths = -np.diff(half_log_snr(products)[kept_timesteps(products, "logsnr11")])
    np.testing.assert_allclose(lengths, lengths.mean(), rtol=0.03)


def test_half_log_snr_is_the_logarithm_of_signal_over_noise():
    signal = PRODUCTS**0.5
    np.testing.assert_allclose(half_log_snr(PRODUCTS), np.log(signal / (1 - PRODUCTS) ** 0.5), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("respacing", "start", "kept"),
    [
        ("5", None, [0, 250, 500, 749, 999]),
        ("5", 600, [0, 250, 500]),
        ("5", 500, [0, 250, 500]),
        ("ddim5", 400, [0, 200, 400]),
        ("", 3, [0, 1, 2, 3]),
        ("logsnr1", None, [999]),
        ("logsnr1", 300, [300]),
        ("logsnr4", 3, [0, 1, 2, 3]),
    ],
)
def test_a_start_leaves_out_what_lies_above_it(respacing, start, kept):
    assert kept_timesteps(PRODUCTS, respacing, start) == kept


@pytest.mark.parametrize(
    ("respacing", "start", "words"),
    [
        ("logsnr0", None, "'logsnr0': 'logsnrN' takes N from 1 to the 1000 timesteps"),
        ("logsnr", None, "'logsnr'"),
        ("logsnr-3", None, "'logsnr-3'"),
        ("logsnr1001", None, "1000 timesteps"),
        ("logsnr12", 10, "11 timesteps"),
        ("snr5", None, "'snr5' is neither"),
        ("5", 1000, "--start_step 1000: not a timestep of 0 to 999"),
        ("5", -1, "--start_step -1"),
    ],
)
def test_what_does_not_fit_the_process_is_refused(respacing, start, words):
    with pytest.raises(InputError, match=words):
        kept_timesteps(PRODUCTS, respacing, start)
