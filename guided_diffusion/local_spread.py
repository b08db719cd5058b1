"""How far a local regression may be from the image that it estimates, and what noise a reference of more counts has.

A scan with the share p of a reference's counts is the noise-free image plus noise e. Of that reference

    reference = p scan + (1 - p) noise-free image + fresh noise

and the fresh noise, of variance p (1 - p) in units of e's, has nothing to do with the scan: thinned Poisson counts and
those that were left out are independent (Kingman, Poisson Processes, 1993, section 5.1), and images are nearly linear
in the counts. So two things suffice for references of every dose: the spread of the noise-free image about the
regression's answer, and the size and texture of the scan's own noise. p = 0 stands for the noise-free image itself.

Both are sums of Gaussian noise of a few correlation lengths, with amplitudes for every voxel that the network predicts
in units of the noise measured around it. The distribution of every voxel, and of means over blocks, has a closed form.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from guided_diffusion.config import ModelConfig
from guided_diffusion.local_unet import INPUTS, SUB_IMAGES, LocalUNet, cropped, from_sub_images, padded_sub_images

LENGTHS = (0.0, 0.75, 1.5, 3.0, 6.0)
"""Standard deviations, in voxels, of the Gaussian kernels whose noise is added up; 0: white."""
HEAD_WIDTH = 32
# Amplitudes over the measured noise: the first guesses, and what they are at least.
FIRST_SPREAD, FIRST_NOISE, LEAST = 0.1, 0.3, 1e-3
CHANNELS = 1 + 2 * len(LENGTHS)


@dataclass(frozen=True)
class Reference:
    """Which image is estimated, per batch element [N]: the share of its counts that the scan has, and the share of its
    noise that was not taken from it (1: it is an image as acquired; 0: it is free of noise).
    """

    dose: Tensor
    noise: Tensor

    @property
    def of_scan(self) -> Tensor:
        """Weight of the scan in the reference's mean, [N, 1, 1, 1, 1]."""
        return (self.noise * self.dose).view(-1, 1, 1, 1, 1)

    @property
    def fresh(self) -> Tensor:
        """Variance of its fresh noise in units of the scan's, [N, 1, 1, 1, 1]."""
        return (self.noise.square() * self.dose * (1 - self.dose)).view(-1, 1, 1, 1, 1)


class LocalSpread(nn.Module):
    """A frozen `LocalUNet` and a head on its features.

    Called as all networks are. Returns [N, CHANNELS, Z, X, Y] in the units of low_res: the regression's answer, which
    is taken for the mean of the noise-free image, then the amplitudes of that image's spread by `LENGTHS`, then those
    of the scan's own noise.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.regression = LocalUNet(config).requires_grad_(False)
        self.enter = nn.Conv3d(config.num_channels + INPUTS, HEAD_WIDTH, 3, padding=1)
        self.middle = nn.Conv3d(HEAD_WIDTH, HEAD_WIDTH, 1)
        self.leave = nn.Conv3d(HEAD_WIDTH, (CHANNELS - 1) * SUB_IMAGES, 1)
        nn.init.zeros_(self.leave.weight)
        guesses = torch.tensor([guess for guess in (FIRST_SPREAD, FIRST_NOISE) for _ in LENGTHS])
        with torch.no_grad():
            self.leave.bias.copy_(guesses.expm1().log().repeat_interleave(SUB_IMAGES))

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights."""
        return self.enter.weight.dtype

    def forward(self, x: Tensor, timesteps: Tensor, low_res: Tensor) -> Tensor:  # noqa: ARG002
        scan = low_res.float() * self.config.low_res_scale
        with torch.no_grad():
            local = self.regression.denoise(padded_sub_images(scan, self.config))
        known = torch.cat([local.features, local.inputs.to(local.features.dtype)], dim=1)
        h = F.silu(self.enter(known.to(self.dtype)))
        relative = F.softplus(self.leave(F.silu(self.middle(h))).float()) + LEAST
        amplitudes = relative.unflatten(1, (CHANNELS - 1, SUB_IMAGES)) * local.scale.noise[:, None]
        joined = torch.cat([from_sub_images(one) for one in (local.answer, *amplitudes.unbind(dim=1))], dim=1)
        return cropped(joined / self.config.low_res_scale, low_res)


def predictive(output: Tensor, low_dose: Tensor, reference: Reference) -> tuple[Tensor, Tensor]:
    """Mean [N, 1, Z, X, Y] of the reference, and amplitudes [N, lengths, Z, X, Y] of the noise about it.

    output: of a `LocalSpread`. low_dose: the scan in the same units.
    """
    answer, spread, noise = output.split([1, len(LENGTHS), len(LENGTHS)], dim=1)
    of_scan = reference.of_scan
    mean = of_scan * low_dose + (1 - of_scan) * answer
    return mean, (((1 - of_scan) * spread).square() + reference.fresh * noise.square()).sqrt()


def kernel(length: float) -> Tensor:
    """Gaussian of that standard deviation in voxels along one axis, float64, whose squares add up to 1."""
    reach = math.ceil(4 * length)
    weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, dtype=torch.float64) / max(length, 1e-6)).square())
    return weights / weights.square().sum().sqrt()


def block_variance(length: float, side: int) -> float:
    """Variance of the mean over a cube of `side` voxels of noise of variance 1 with the correlation of a kernel."""
    box = torch.full((1, 1, side), 1 / side, dtype=torch.float64)
    weights = kernel(length).view(1, 1, -1)
    return F.conv1d(weights, box, padding=side - 1).square().sum().item() ** 3
