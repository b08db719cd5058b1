"""Norms compiled with torch.compile; the convolutions are library calls, which it cannot speed up."""

import functools
import os
import shutil

import torch
from torch import Tensor

from guided_diffusion.errors import InputError
from guided_diffusion.fast.layers import NormSilu, blocks_of_slices, merged_moments, voxel_rows


def _block_sums(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Sums of values and of squares per block and channel, float32 [blocks, C], of [blocks, voxels, C]."""
    values = blocks.float()
    return values.sum(1), values.square().sum(1)


def _affine_silu_rows(rows: Tensor, factor: Tensor, offset: Tensor) -> Tensor:
    """SiLU(rows * factor + offset) for [voxels, C], computed in float32."""
    values = rows.float() * factor + offset
    return (values * torch.sigmoid(values)).to(rows.dtype)


def compiler() -> str:
    """The C++ compiler that torch.compile would call."""
    return os.environ.get("CXX", "g++")


def has_compiler() -> bool:
    """Whether that compiler is installed."""
    return shutil.which(compiler()) is not None


def compiled_norm_silu() -> NormSilu:
    """`fast.layers.norm_silu`, compiled at its first call, once for all shapes of one precision.

    Raises InputError where there is no C++ compiler.
    """
    if not has_compiler():
        raise InputError(f"--compile True needs a C++ compiler, but {compiler()} is not installed: leave the flag out")
    sums = torch.compile(_block_sums, dynamic=True)
    affine_silu_rows = torch.compile(_affine_silu_rows, dynamic=True)
    return functools.partial(_norm_silu, sums, affine_silu_rows)


def _norm_silu(sums, affine_silu_rows, x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """`fast.layers.norm_silu` with its two passes over the voxels as given."""
    moments = [_moments(blocks, sums, groups) for blocks in blocks_of_slices(x)]
    voxels, means, variances = (torch.cat(values) for values in zip(*moments, strict=True))
    mean, variance = merged_moments(voxels, means, variances, x.shape[1])
    factor = weight * torch.rsqrt(variance + eps)
    rows = affine_silu_rows(voxel_rows(x), factor, bias - mean * factor)
    _, _, length, height, width = x.shape
    return rows.reshape(1, length, height, width, -1).permute(0, 4, 1, 2, 3)


def _moments(blocks: Tensor, sums, groups: int) -> tuple[Tensor, Tensor, Tensor]:
    """Voxels [blocks], means and variances [blocks, groups] in float64 of [blocks, voxels, C]."""
    count, voxels, channels = blocks.shape
    totals, squares = (
        total.double().reshape(count, groups, -1).sum(2) / (voxels * channels // groups) for total in sums(blocks)
    )
    sizes = torch.full((count,), voxels, dtype=torch.float64, device=blocks.device)
    return sizes, totals, (squares - totals.square()).clamp(min=0)
