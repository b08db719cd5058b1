"""Exponential moving averages of the weights, one per rate."""

from collections.abc import Iterable

from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from guided_diffusion.checkpoints import StateDict


def effective_ema_rate(rate: float, step: int) -> float:
    """Returns the rate of a moving average, lower in its first steps, so that untrained weights do not stay in it."""
    return min(rate, (1 + step) / (10 + step))


class MovingAverages:
    """Averages of a network's weights, float32 on its device. Rates are named as the user wrote them."""

    def __init__(self, model: nn.Module, rates: Iterable[str]):
        self._weights = model.state_dict()
        self.by_rate = {rate: {name: value.detach().clone() for name, value in self._weights.items()} for rate in rates}

    def load(self, rate: str, state: StateDict) -> None:
        """Continue from a saved average."""
        for name, value in self.by_rate[rate].items():
            value.copy_(state[name])

    def update(self, step: int) -> None:
        """Update the averages with the network's weights after `step` steps."""
        for rate, average in self.by_rate.items():
            update = get_ema_multi_avg_fn(effective_ema_rate(float(rate), step))
            update(list(average.values()), list(self._weights.values()), None)
