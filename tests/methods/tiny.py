"""A small network of any method, and examples to train it on."""

import torch

from guided_diffusion.interfaces import Examples
from guided_diffusion.methods.registry import METHODS
from guided_diffusion.training.settings import TrainSettings, training_settings
from tests.golden_weights import fill
from tests.training_runs import TINY


def tiny_settings(method: str, **flags) -> TrainSettings:
    """Of a run with crops of 16 x 16 x 8 voxels."""
    return training_settings(TINY | {"method": method, "data_dir": "x", "crop_size": "16,16,8"} | flags)


def tiny_network(settings: TrainSettings) -> torch.nn.Module:
    """The network of a method, of which no layer is zero."""
    return fill(METHODS[settings.optimisation.method].create_model(settings.model, settings.diffusion))


def tiny_examples(seed: int = 0) -> Examples:
    """Two crops [2, 1, 8, 16, 16], the low dose with noise of a tenth of the range."""
    rng = torch.Generator().manual_seed(seed)
    normal_dose = torch.rand(2, 1, 1, 1, 1, generator=rng).expand(2, 1, 8, 16, 16)
    low_noise, noise = torch.randn(2, 2, 1, 8, 16, 16, generator=rng)
    reference = torch.tensor([[0.1, 1.0], [0.5, 0.5]])
    return Examples(normal_dose + 0.1 * low_noise, normal_dose.clone(), noise, torch.tensor([0, 0]), reference)
