"""Samplers of the timesteps drawn in training.

Each returns int64 timesteps [N] and float32 weights [N] that keep the mean loss unbiased.
"""

import numpy as np
import torch
from torch import Tensor

from guided_diffusion.errors import InputError


class UniformSampler:
    """Every timestep equally often."""

    def __init__(self, num_timesteps: int):
        self.num_timesteps = num_timesteps

    def sample(self, batch_size: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Timesteps and weights for a batch."""
        return torch.from_numpy(rng.integers(self.num_timesteps, size=batch_size)), torch.ones(batch_size)

    def update(self, timesteps: Tensor, losses: Tensor) -> None:
        """Ignore a batch's losses, both [N]: the sampler does not depend on them."""

    def state_dict(self) -> dict[str, Tensor]:
        """State that continuing needs: none."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """The inverse of `state_dict`."""


class LossSecondMomentSampler:
    """Timesteps in proportion to the root mean square of their latest losses (IDDPM section 3.3).

    Uniform until every timestep has been drawn `history` times; a small uniform share always remains.
    """

    uniform_share = 0.001

    def __init__(self, num_timesteps: int, history: int = 10):
        self.num_timesteps = num_timesteps
        self._losses = np.zeros((num_timesteps, history))
        self._seen = np.zeros(num_timesteps, dtype=np.int64)

    def probabilities(self) -> np.ndarray:
        """Probability of each timestep, float64 [num_timesteps]."""
        uniform = np.full(self.num_timesteps, 1.0 / self.num_timesteps)
        if (self._seen < self._losses.shape[1]).any():
            return uniform
        rms = np.sqrt((self._losses**2).mean(axis=1))
        return (1 - self.uniform_share) * rms / rms.sum() + self.uniform_share * uniform

    def sample(self, batch_size: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Timesteps and weights for a batch."""
        probabilities = self.probabilities()
        timesteps = rng.choice(self.num_timesteps, size=batch_size, p=probabilities)
        weights = 1.0 / (self.num_timesteps * probabilities[timesteps])
        return torch.from_numpy(timesteps), torch.from_numpy(weights).float()

    def update(self, timesteps: Tensor, losses: Tensor) -> None:
        """Take note of a batch's losses, both [N]."""
        for t, loss in zip(timesteps.tolist(), losses.tolist(), strict=True):
            self._losses[t, self._seen[t] % self._losses.shape[1]] = loss
            self._seen[t] += 1

    def state_dict(self) -> dict[str, Tensor]:
        """State that continuing needs: the latest losses of each timestep, and how many it had."""
        return {"losses": torch.from_numpy(self._losses.copy()), "seen": torch.from_numpy(self._seen.copy())}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """The inverse of `state_dict`."""
        self._losses = state["losses"].numpy().copy()
        self._seen = state["seen"].numpy().copy()


TIMESTEP_SAMPLERS = {"uniform": UniformSampler, "loss-second-moment": LossSecondMomentSampler}


def create_named_schedule_sampler(name: str, num_timesteps: int) -> UniformSampler | LossSecondMomentSampler:
    """The sampler that `--schedule_sampler` names. Raises InputError for an unknown name."""
    if name not in TIMESTEP_SAMPLERS:
        raise InputError(f"--schedule_sampler {name!r} is unknown: choose {' or '.join(TIMESTEP_SAMPLERS)}")
    return TIMESTEP_SAMPLERS[name](num_timesteps)
