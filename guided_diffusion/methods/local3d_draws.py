"""The regression `local3d` with a network that draws images of noise: see `local_draws`."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from guided_diffusion.config import DiffusionConfig, ModelConfig
from guided_diffusion.gaussian_diffusion import mean_flat
from guided_diffusion.interfaces import Examples, Objective
from guided_diffusion.local_draws import FIELDS, MULTIPLE, LocalDraws, predictive_draws
from guided_diffusion.local_unet import local_scale, sub_images
from guided_diffusion.methods.local3d import Local3D
from guided_diffusion.methods.unet3d import Regression
from guided_diffusion.references import Reference

BLOCKS = {1: 1.0, 2: 1.0, 4: 2.0, 8: 2.0}
"""Sides in voxels of the blocks whose means are scored, and their weights: voxels tell nothing of how noise correlates,
and an error of a mean is small beside that of a voxel."""
DIFFERENCES = 1.0
"""Weight of the differences of neighbours along each axis: means tell little of how fine noise is."""
FAIRNESS = 0.99
"""Share of the fair score; the rest is that of two draws as they are. Lang et al. take 0.95, with which the best spread
of two draws from a normal distribution is 5 % too small; with this it is 1 %."""

DRAW_VALUES = 95.0
"""Values per voxel that a draw takes at most: 165 to 200 bytes in bfloat16 were measured beside a narrow regression."""


class Answer(Regression):
    """The regression's answer alone, as a process of one step."""

    def p_mean_variance(
        self,
        model: Callable[..., Tensor],
        x: Tensor,
        t: Tensor,
        clip_denoised: bool = True,
        model_kwargs: dict[str, Any] | None = None,
    ) -> dict[str, Tensor]:
        """As the regression's, of a network that is given no noise."""

        def answer(given: Tensor, *others: Tensor, **named: Tensor) -> Tensor:
            return model(given[:, :0], *others, **named)

        return super().p_mean_variance(answer, x, t, clip_denoised, model_kwargs)


def almost_fair_crps(one: Tensor, other: Tensor, reference: Tensor) -> Tensor:
    """Continuous ranked probability score of two draws for each value of the reference, all of one shape.

    Mean distance from the reference, less half the distance of the draws, which would be the fair score: by that a draw
    far off costs nothing while the other one lies between. So its share is `FAIRNESS`, and the rest that of the score
    of two draws as they are, with a quarter of their distance (Lang et al., AIFS-CRPS, arXiv:2412.15832, 2024, where
    the share is called alpha).
    """
    apart = (one - other).abs()
    return 0.5 * ((one - reference).abs() + (other - reference).abs()) - (0.25 + 0.25 * FAIRNESS) * apart


def draws_losses(network: nn.Module, examples: Examples) -> dict[str, Tensor]:
    """Score of two draws, each term [N]: of voxels, means over blocks and differences, weighed as "loss", of voxels
    alone over the regression's mean absolute error as "crps", and "spread", which is 1 where draws are as far from
    each other as from the reference.

    In units of the mean local noise, so that every dose counts alike.
    """
    low_dose, target = examples.low_dose, examples.normal_dose
    unit = getattr(network, "module", network).config.low_res_scale
    noise = torch.randn(len(target), 2 * FIELDS, *target.shape[2:], device=target.device)
    output = network(noise, examples.timesteps, low_res=low_dose)
    mean, draws = predictive_draws(output, low_dose, Reference.of_pairs(examples.reference))
    one, other = draws.split(1, dim=1)
    size = mean_flat(local_scale(sub_images(unit * low_dose.float())).noise) / unit
    loss = torch.zeros_like(size)
    for side, weight in BLOCKS.items():
        loss = loss + weight * mean_flat(almost_fair_crps(*(_means(each, side) for each in (one, other, target))))
    for axis in (2, 3, 4):
        differences = (each.diff(dim=axis) for each in (one, other, target))
        loss = loss + DIFFERENCES * mean_flat(almost_fair_crps(*differences))
    loss = loss / size
    voxels = mean_flat(almost_fair_crps(one, other, target))
    apart = mean_flat((one - other).square())
    away = 0.5 * mean_flat((one - target).square() + (other - target).square())
    return {
        "loss": loss,
        "crps": voxels / mean_flat((mean - target).abs()),
        "spread": (apart / away).sqrt(),
    }


def _means(volume: Tensor, side: int) -> Tensor:
    """Means over cubes that overlap by half, so that no way of cutting a volume into blocks goes before another."""
    return F.avg_pool3d(volume, side, stride=max(1, side // 2)) if side > 1 else volume


class Local3DDraws(Local3D):
    """A frozen `local3d`, whose weights it begins with, and a network of noise that is trained."""

    name = "local3d_draws"
    begins_with = Local3D.name
    terms = ("crps", "spread")
    noise_fields = FIELDS
    alignment = MULTIPLE

    def create_model(self, model: ModelConfig, diffusion: DiffusionConfig) -> LocalDraws:  # noqa: ARG002
        """The network."""
        return LocalDraws(model)

    def begun_part(self, network: LocalDraws) -> nn.Module:
        """The regression."""
        return network.regression

    def create_process(self, diffusion: DiffusionConfig, start_step: int | None = None) -> Answer:
        """A process of one step."""
        return Answer(diffusion, start_step)

    def draws(self, network: LocalDraws, low_dose: Tensor, noises: Iterable[Tensor]) -> Iterator[Tensor]:
        """The regression's answer and noise-free images drawn about it, from one call of the regression."""
        outputs = network.outputs(low_dose, noises)
        answer = next(outputs)
        yield answer
        for deviations in outputs:
            yield answer + deviations[:, :1]

    def call_bytes(self, model: ModelConfig, patch: tuple[int, int, int], dtype: torch.dtype) -> int:
        """The memory of the regression or of a draw, which follow one another, whichever takes more."""
        depth, x, y = patch
        return max(super().call_bytes(model, patch, dtype), round(DRAW_VALUES * dtype.itemsize * depth * x * y))

    def objectives(self, network: nn.Module, diffusion: DiffusionConfig) -> tuple[Objective, ...]:  # noqa: ARG002
        """One: the score of draws."""
        return (Objective(self.name, network, draws_losses),)


METHOD = Local3DDraws()
