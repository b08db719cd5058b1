"""A regression network that depends on no unit of uptake: its input is a scan in units of its own local noise.

The scan is cut into 2 x 2 x 2 sub-images (Zhang et al., FFDNet, IEEE Trans Image Process 27:4608, 2018), so that the
network works on an eighth of the positions and can be wider. At each of them the local mean and the local size of the
noise are measured in the scan itself; what enters is the scan less its mean over that size, and what leaves is scaled
back by it. There is no norm: nothing depends on how much air a patch holds, nor on the unit of uptake.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from guided_diffusion.config import ModelConfig

SUB_IMAGES = 8
INPUTS = SUB_IMAGES + 3
BASES = 3
# In SUV: what noise and mean are at least, so that air is divided by something.
LEAST_MEAN, LEAST_NOISE = 0.05, 0.01
LEAST_RELATIVE_NOISE = 0.01
WINDOW = 5  # positions: 25 mm for voxels of 2.5 mm


@dataclass(frozen=True)
class LocalScale:
    """Of a scan's sub-images [N, 8, Z, X, Y], all [N, 1, Z, X, Y] in SUV: the mean over a position, the mean around it,
    the size of the noise around it, and the share of its variance that lies within positions.
    """

    block: Tensor
    mean: Tensor
    noise: Tensor
    fine_share: Tensor


def sub_images(volume: Tensor) -> Tensor:
    """[N, 1, Z, X, Y] of even size -> [N, 8, Z/2, X/2, Y/2]."""
    n, _, z, x, y = volume.shape
    parts = volume.reshape(n, z // 2, 2, x // 2, 2, y // 2, 2)
    return parts.permute(0, 2, 4, 6, 1, 3, 5).reshape(n, SUB_IMAGES, z // 2, x // 2, y // 2)


def from_sub_images(parts: Tensor) -> Tensor:
    """The inverse of `sub_images`."""
    n, _, z, x, y = parts.shape
    apart = parts.reshape(n, 2, 2, 2, z, x, y).permute(0, 4, 1, 5, 2, 6, 3)
    return apart.reshape(n, 1, 2 * z, 2 * x, 2 * y)


def mean_around(values: Tensor, window: int) -> Tensor:
    """Mean over a cube of positions; beyond the edge there is nothing to count."""
    for axis, length in enumerate(values.shape[2:]):
        size = [1, 1, 1]
        size[axis] = min(window, length - 1 + length % 2)
        padding = [side // 2 for side in size]
        values = F.avg_pool3d(values, size, stride=1, padding=padding, count_include_pad=False)
    return values


def local_scale(parts: Tensor) -> LocalScale:
    """Mean and noise of a scan from its sub-images in SUV.

    Noise is what differs within a position, and between a position and its neighbours; edges count as noise too.
    """
    block = parts.mean(dim=1, keepdim=True)
    within = mean_around((parts - block).square().mean(dim=1, keepdim=True), WINDOW)
    between = mean_around((block - mean_around(block, 3)).square(), WINDOW)
    mean = mean_around(block, WINDOW)
    variance = within + between
    floor = LEAST_NOISE**2 + (LEAST_RELATIVE_NOISE * mean).square()
    return LocalScale(block, mean, (variance + floor).sqrt(), within / (variance + floor))


@dataclass(frozen=True)
class LocalAnswer:
    """Of a scan's sub-images: denoised [N, 8, Z, X, Y] in SUV, their scale, and what the network saw and made of it."""

    answer: Tensor
    scale: LocalScale
    inputs: Tensor
    features: Tensor


def padded_sub_images(scan: Tensor, config: ModelConfig) -> Tensor:
    """Sub-images of a scan [N, 1, Z, X, Y] that is continued with its last voxels until every level can halve it."""
    return sub_images(continued(scan, 2 ** len(config.multipliers)))


def continued(values: Tensor, multiple: int) -> Tensor:
    """[N, C, Z, X, Y] continued with the last values until all three sizes are multiples."""
    z, x, y = (-length % multiple for length in values.shape[2:])
    return F.pad(values, (0, y, 0, x, 0, z), mode="replicate") if z or x or y else values


def cropped(volumes: Tensor, like: Tensor) -> Tensor:
    """The part of volumes [N, C, Z, X, Y] that lies over a smaller one."""
    z, x, y = like.shape[2:]
    return volumes[:, :, :z, :x, :y].contiguous()


class LocalBlock(nn.Module):
    """Two convolutions that add to what they are given; at first they add nothing."""

    def __init__(self, channels: int):
        super().__init__()
        self.first = nn.Conv3d(channels, channels, 3, padding=1)
        self.second = nn.Conv3d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.silu(self.first(F.silu(x))))


class LocalUNet(nn.Module):
    """The network. Called as all are: x and timesteps (ignored), low_res [N, 1, Z, X, Y] -> float32 of that shape.

    Of the configuration it takes the width `num_channels`, the levels `channel_mult`, the residual blocks of a level
    `num_res_blocks`, on the way down and up each, and `low_res_scale`, by which low_res becomes SUV. Every level but
    the first halves all three axes; sizes that cannot be halved so often are continued with their last voxels.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        widths = [config.num_channels * multiplier for multiplier in config.multipliers]
        self.enter = nn.Conv3d(INPUTS, widths[0], 3, padding=1)
        self.down = nn.ModuleList(self._level(width) for width in widths)
        self.widen = nn.ModuleList(nn.Conv3d(a, b, 1) for a, b in pairwise(widths))
        self.narrow = nn.ModuleList(nn.Conv3d(b, a, 1) for a, b in pairwise(widths))
        self.up = nn.ModuleList(self._level(width) for width in widths[:-1])
        self.leave = nn.Conv3d(widths[0], (1 + BASES) * SUB_IMAGES, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def _level(self, width: int) -> nn.Sequential:
        return nn.Sequential(*(LocalBlock(width) for _ in range(self.config.num_res_blocks)))

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights."""
        return self.enter.weight.dtype

    def forward(self, x: Tensor, timesteps: Tensor, low_res: Tensor) -> Tensor:  # noqa: ARG002
        parts = padded_sub_images(low_res.float() * self.config.low_res_scale, self.config)
        answer = from_sub_images(self.denoise(parts).answer) / self.config.low_res_scale
        return cropped(answer, low_res)

    def denoise(self, parts: Tensor) -> "LocalAnswer":
        """Sub-images in SUV -> denoised ones: a mixture of the voxel, its position and its surroundings, corrected."""
        scale = local_scale(parts)
        around = scale.mean.abs() + LEAST_MEAN
        inputs = torch.cat(
            [
                torch.asinh((parts - scale.mean) / scale.noise),
                torch.asinh((scale.block - scale.mean) / scale.noise),
                torch.log(scale.noise / around),
                scale.fine_share,
            ],
            dim=1,
        )
        features = F.silu(self._levels(inputs))
        output = self.leave(features).float()
        correction, mixture = output[:, :SUB_IMAGES], output[:, SUB_IMAGES:].unflatten(1, (BASES, SUB_IMAGES))
        own, block, mean = mixture.softmax(dim=1).unbind(dim=1)
        answer = own * parts + block * scale.block + mean * scale.mean + scale.noise * correction
        return LocalAnswer(answer, scale, inputs, features)

    def _levels(self, inputs: Tensor) -> Tensor:
        """The UNet over positions, in the precision of the weights."""
        h = self.enter(inputs.to(self.dtype).contiguous(memory_format=torch.channels_last_3d))
        skips = []
        for level, blocks in enumerate(self.down):
            if level:
                h = self.widen[level - 1](halved(h))
            h = blocks(h)
            skips.append(h)
        for level in reversed(range(len(self.up))):
            h = F.interpolate(self.narrow[level](h), scale_factor=2, mode="nearest") + skips[level]
            h = self.up[level](h)
        return h


def halved(x: Tensor) -> Tensor:
    """Mean over 2 x 2 x 2 neighbours, as sums of strided views: pooling has no half-precision kernel on every CPU."""
    x = x[:, :, ::2] + x[:, :, 1::2]
    x = x[..., ::2, :] + x[..., 1::2, :]
    return (x[..., ::2] + x[..., 1::2]) * 0.125
