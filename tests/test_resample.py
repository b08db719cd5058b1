"""Which timesteps training draws, and that the weights undo the preference."""

import numpy as np
import pytest
import torch

from guided_diffusion.errors import InputError
from guided_diffusion.resample import create_named_schedule_sampler


def test_uniform():
    timesteps, weights = create_named_schedule_sampler("uniform", 5).sample(5000, np.random.default_rng(0))
    np.testing.assert_allclose(np.bincount(timesteps, minlength=5) / 5000, 0.2, atol=0.03)
    assert weights.tolist() == [1.0] * 5000


def test_loss_aware_sampler_follows_the_losses_once_it_has_seen_enough():
    sampler = create_named_schedule_sampler("loss-second-moment", 4)
    everything = torch.arange(4)
    for _ in range(10):
        np.testing.assert_allclose(sampler.probabilities(), 0.25)
        sampler.update(everything, torch.tensor([1.0, 2.0, 3.0, 4.0]))
    np.testing.assert_allclose(sampler.probabilities(), np.array([1, 2, 3, 4]) / 10, atol=2e-4)
    timesteps, weights = sampler.sample(4000, np.random.default_rng(0))
    np.testing.assert_allclose(np.bincount(timesteps) / 4000, [0.1, 0.2, 0.3, 0.4], atol=0.03)
    assert float(weights.mean()) == pytest.approx(1.0, abs=0.05)


def test_only_the_latest_losses_count():
    sampler = create_named_schedule_sampler("loss-second-moment", 2)
    for loss in [100.0] * 10 + [1.0] * 10:
        sampler.update(torch.tensor([0, 1]), torch.tensor([loss, 1.0]))
    np.testing.assert_allclose(sampler.probabilities(), 0.5)


def test_an_unknown_sampler_is_refused():
    with pytest.raises(InputError, match="uniform or loss-second-moment"):
        create_named_schedule_sampler("best", 10)
