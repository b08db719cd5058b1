"""Layers shared by the networks. Tensors are [N, C, Z, X, Y] for dims 3 and [N, C, X, Y] for dims 2."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv_nd(dims: int, *args, **kwargs) -> nn.Module:
    """A 1D, 2D or 3D convolution."""
    return {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[dims](*args, **kwargs)


class _Pointwise:
    """The 1x1(x1) convolution as a matrix product.

    Unlike the library's convolution of this size it is bit-identical for any number of threads; and it is not slower.
    """

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.flatten(1).expand(x.shape[0], -1, -1)
        flat = torch.baddbmm(self.bias[:, None], weight, x.flatten(2))
        return flat.reshape(x.shape[0], -1, *x.shape[2:])


class PointwiseConv2d(_Pointwise, nn.Conv2d):
    """`_Pointwise` for [N, C, X, Y]."""


class PointwiseConv3d(_Pointwise, nn.Conv3d):
    """`_Pointwise` for [N, C, Z, X, Y]."""


def pointwise_conv_nd(dims: int, channels: int, out_channels: int) -> nn.Module:
    """A convolution of kernel size 1 that mixes channels."""
    return {2: PointwiseConv2d, 3: PointwiseConv3d}[dims](channels, out_channels, 1)


def in_plane(dims: int, factor: int) -> int | tuple[int, int, int]:
    """`factor` for the last two axes: the axial axis of a 3D network is never resampled."""
    return (1, factor, factor) if dims == 3 else factor


class GroupNorm32(nn.GroupNorm):
    """Group normalisation in 32 groups whose statistics are float32 whatever the precision of the network."""

    def __init__(self, channels: int):
        super().__init__(32, channels)

    def forward(self, x: Tensor) -> Tensor:
        # The CPU's kernel itself computes in float32, and reads and writes half precision without a detour.
        image = x if x.device.type == "cpu" else x.float()
        return F.group_norm(image, self.num_groups, self.weight.float(), self.bias.float(), self.eps).to(x.dtype)


def zeroed(module: nn.Module) -> nn.Module:
    """The module with all parameters zero, so that its block starts as the identity."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def average_pool_in_plane(x: Tensor) -> Tensor:
    """Mean over 2 x 2 neighbours of the last two axes.

    Written as a sum of strided views: average pooling has no half-precision kernel on a CPU.
    """
    return (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) * 0.25


def nearest_up_in_plane(x: Tensor) -> Tensor:
    """Nearest-neighbour doubling of the last two axes."""
    scale = (1,) * (x.ndim - 4) + (2, 2)
    return F.interpolate(x, scale_factor=scale, mode="nearest")


def conv_of_nearest_up(conv: nn.Conv2d | nn.Conv3d, x: Tensor) -> Tensor:
    """`conv(nearest_up_in_plane(x))` for a kernel of size 3, up to rounding, without the doubled map.

    x: [N, C, (Z,) X, Y] -> [N, out, (Z,) 2X, 2Y].
    """
    height, width = x.shape[-2:]
    convolve = F.conv3d if x.ndim == 5 else F.conv2d
    phases = convolve(x, doubling_kernels(conv.weight), conv.bias.repeat(4), padding=1).chunk(4, dim=1)
    inside = [
        phase[..., odd_x : odd_x + height, odd_y : odd_y + width]
        for phase, (odd_x, odd_y) in zip(phases, ((0, 0), (0, 1), (1, 0), (1, 1)), strict=True)
    ]
    rows = [torch.stack(inside[:2], dim=-1), torch.stack(inside[2:], dim=-1)]
    return torch.stack(rows, dim=-3).reshape(*phases[0].shape[:-2], 2 * height, 2 * width)


def doubling_kernels(weight: Tensor) -> Tensor:
    """Kernels [4 x out, in, (3,) 2, 2] that do to a small map what `weight` [out, in, (3,) 3, 3] does to its double.

    Every voxel of the doubled map has two different neighbours per axis only, so that 2 x 2 taps suffice, four sets of
    them for the four positions (even, even), (even, odd), (odd, even), (odd, odd): 4 instead of 9 products a slice.
    """
    return torch.cat([_merged(_merged(weight, -2, odd_x), -1, odd_y) for odd_x in (0, 1) for odd_y in (0, 1)])


def _merged(kernel: Tensor, axis: int, odd: int) -> Tensor:
    """The kernel's three taps along an axis as the two that an even or odd voxel of a doubled map needs."""
    first, second, third = kernel.split(1, dim=axis)
    return torch.cat([first + second, third] if odd else [first, second + third], dim=axis)


def timestep_embedding(timesteps: Tensor, dim: int, max_period: float = 10000.0) -> Tensor:
    """Sinusoidal embedding, cosines before sines.

    timesteps: [N], possibly fractional. Returns float32 [N, dim]; an odd `dim` ends with a zero.
    """
    half = dim // 2
    frequencies = torch.exp(
        -math.log(max_period) / half * torch.arange(half, dtype=torch.float32, device=timesteps.device)
    )
    angles = timesteps[:, None].float() * frequencies
    return F.pad(torch.cat([torch.cos(angles), torch.sin(angles)], dim=1), (0, dim % 2))
