"""A network that draws: of a scan and of white noise it makes one image that the reference may be.

Two things suffice for references of every dose (`references`): what the noise-free image may be besides the
regression's answer, and what noise of the scan's kind looks like. The second is for training, in which references with
noise score the first: in inference that noise is made of the scan on its own grid (`inference.results`).

A UNet makes each of the two of a noise field of its own, so that they need not be Gaussian. Noise of the scan's kind is
made in units of what the regression took from the scan, measured around every position for eight patterns of different
fineness: so it is as fine as the scan's own where that is finer than any in training. What depends on the scan alone is
computed once for all draws.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from guided_diffusion.config import ModelConfig
from guided_diffusion.local_unet import (
    INPUTS,
    SUB_IMAGES,
    WINDOW,
    LocalUNet,
    continued,
    cropped,
    from_sub_images,
    halved,
    mean_around,
    padded_sub_images,
    sub_images,
)
from guided_diffusion.references import Reference

FIELDS = 2
"""White noise fields of a draw: one for the noise-free image, one for the noise of a scan."""
WIDTHS = (32, 64, 64)
"""Channels of the levels, the last with positions of 8 voxels a side, for noise that is correlated over centimetres."""
MULTIPLE = 2 ** len(WIDTHS)
"""Volumes whose sides are divisible by it in voxels need no continuation."""
# About half of what deviations are at first, over the measured noise.
FIRST_SIZE = 0.2
# Of the measured noise, what the residual has at least in each pattern.
LEAST_RESIDUAL = 0.02
# Weight of what a block adds: with 1 a step of the optimiser moves all voxels of a draw together by too much.
BRANCH = 0.1


def patterns(parts: Tensor) -> Tensor:
    """Sub-images [N, 8, Z, X, Y] as eight patterns within positions: their mean, differences along each axis, and
    differences of those (Haar's wavelets). Orthonormal, and its own inverse.
    """
    for channel in (1, 2, 4):
        pairs = parts.unflatten(1, (SUB_IMAGES // (2 * channel), 2, channel))
        first, second = pairs[:, :, 0], pairs[:, :, 1]
        parts = torch.stack([first + second, first - second], dim=2).flatten(1, 3) * 0.5**0.5
    return parts


@dataclass(frozen=True)
class Prepared:
    """What a scan says of its draws. answer: the regression's, [N, 8, Z, X, Y], scale: the size of the noise,
    [N, 1, Z, X, Y], and removed: the local size of each pattern of what the regression took away, [N, 8, Z, X, Y], in
    SUV. hints, gates: of each level, [N, width, Z', X', Y'], what is added within its blocks, and what its noise is
    multiplied by.
    """

    answer: Tensor
    scale: Tensor
    removed: Tensor
    hints: tuple[Tensor, ...]
    gates: tuple[Tensor, ...]


class HintedBlock(nn.Module):
    """Two convolutions that add to what they are given, hints among them; at first they add nothing."""

    def __init__(self, channels: int):
        super().__init__()
        self.first = nn.Conv3d(channels, channels, 3, padding=1)
        self.second = nn.Conv3d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)

    def forward(self, x: Tensor, hint: Tensor) -> Tensor:
        return x + BRANCH * self.second(F.silu(self.first(x) + hint))


class LocalDraws(nn.Module):
    """A frozen `LocalUNet`, and a network that makes deviations from its answer of noise.

    Called as all networks are, with x: white noise [N, FIELDS x draws, Z, X, Y], none for the answer alone. Returns
    [N, 1 + FIELDS x draws, Z, X, Y] in the units of low_res: the regression's answer, and of every draw the deviation
    of the noise-free image from it and noise as the scan's. A new one is linear in the noise: both are Gaussian, of
    mean 0, and of a size that depends on the scan.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.regression = LocalUNet(config).requires_grad_(False)
        self.know = nn.Conv3d(config.num_channels + INPUTS + SUB_IMAGES, WIDTHS[0], 3, padding=1)
        self.hint = nn.ModuleList(nn.Conv3d(WIDTHS[0], width, 1) for width in WIDTHS)
        self.gate = nn.ModuleList(nn.Conv3d(WIDTHS[0], width, 1) for width in WIDTHS)
        self.enter = nn.Conv3d(FIELDS * SUB_IMAGES, WIDTHS[0], 3, padding=1, bias=False)
        self.down = nn.ModuleList(HintedBlock(width) for width in WIDTHS)
        self.widen = nn.ModuleList(nn.Conv3d(a, b, 1, bias=False) for a, b in pairwise(WIDTHS))
        self.narrow = nn.ModuleList(nn.Conv3d(b, a, 1, bias=False) for a, b in pairwise(WIDTHS))
        self.up = nn.ModuleList(HintedBlock(width) for width in WIDTHS[:-1])
        self.leave = nn.Conv3d(WIDTHS[0], FIELDS * SUB_IMAGES, 1)
        # White noise keeps its size from layer to layer, so that all levels have a part in the first guess.
        for layer in (self.enter, *self.widen, *self.narrow, self.leave):
            fan_in = layer.in_channels * math.prod(layer.kernel_size)
            nn.init.normal_(layer.weight, std=fan_in**-0.5)
        for layer in self.gate:
            nn.init.constant_(layer.bias, math.log(math.e - 1))
        nn.init.zeros_(self.leave.bias)

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights."""
        return self.enter.weight.dtype

    def forward(self, x: Tensor, timesteps: Tensor, low_res: Tensor) -> Tensor:  # noqa: ARG002
        noises = x.split(FIELDS, dim=1) if x.shape[1] else ()
        return torch.cat(list(self.outputs(low_res, noises)), dim=1)

    def outputs(self, low_res: Tensor, noises: Iterable[Tensor]) -> Iterator[Tensor]:
        """What a call returns, part by part: the answer, and for each noise [N, FIELDS, Z, X, Y] two deviations."""
        unit = self.config.low_res_scale
        prepared = self.prepare(low_res.float() * unit)
        yield cropped(from_sub_images(prepared.answer) / unit, low_res)
        for noise in noises:
            yield cropped(self.deviations(prepared, noise) / unit, low_res)

    def prepare(self, scan: Tensor) -> Prepared:
        """What all draws have in common, of a scan [N, 1, Z, X, Y] in SUV."""
        parts = padded_sub_images(scan, self.config)
        with torch.no_grad():
            local = self.regression.denoise(parts)
        noise = local.scale.noise
        squares = mean_around(patterns(parts - local.answer).square(), WINDOW)
        removed = (squares + (LEAST_RESIDUAL * noise).square()).sqrt()
        known = torch.cat(
            [one.to(self.dtype) for one in (local.features, local.inputs, (removed / noise).log())], dim=1
        )
        h = F.silu(self.know(continued(known, MULTIPLE // 2)))
        levels = [h]
        for _ in WIDTHS[1:]:
            levels.append(halved(levels[-1]))
        hints = tuple(layer(level) for layer, level in zip(self.hint, levels, strict=True))
        gates = tuple(F.softplus(layer(level)) for layer, level in zip(self.gate, levels, strict=True))
        return Prepared(local.answer, noise, removed, hints, gates)

    def deviations(self, prepared: Prepared, noise: Tensor) -> Tensor:
        """Of white noise [N, FIELDS, Z, X, Y]: deviations of the noise-free image, and noise as the scan's, in SUV."""
        whole = _repeated(noise, max(MULTIPLE, 2 ** len(self.config.multipliers)))
        parts = torch.cat([sub_images(field) for field in whole.split(1, dim=1)], dim=1)
        output = self.leave(self._levels(prepared, parts)).float()
        z, x, y = prepared.scale.shape[2:]
        free, fresh = (FIRST_SIZE * output[:, :, :z, :x, :y]).split(SUB_IMAGES, dim=1)
        in_suv = prepared.scale * free, patterns(prepared.removed * fresh)
        return torch.cat([from_sub_images(parts) for parts in in_suv], dim=1)

    def _levels(self, prepared: Prepared, parts: Tensor) -> Tensor:
        """The UNet over positions, in the precision of the weights."""
        h = self.enter(parts.to(self.dtype).contiguous(memory_format=torch.channels_last_3d))
        skips = []
        for level, block in enumerate(self.down):
            if level:
                # Means of eight values of white noise are smaller than these by the root of eight.
                h = self.widen[level - 1](halved(h) * 8**0.5)
            h = block(h, prepared.hints[level])
            skips.append(h)
        h = h * prepared.gates[-1]
        for level in reversed(range(len(self.up))):
            # Interpolation leaves white noise half its size.
            finer = 2 * F.interpolate(self.narrow[level](h), scale_factor=2, mode="trilinear")
            h = self.up[level](finer + skips[level], prepared.hints[level]) * prepared.gates[level]
        return h


def _repeated(noise: Tensor, multiple: int) -> Tensor:
    """The same with values from the other end, which continue white noise by white noise."""
    for axis in (2, 3, 4):
        length = noise.shape[axis]
        if length % multiple:
            places = torch.arange(length + -length % multiple, device=noise.device) % length
            noise = noise.index_select(axis, places)
    return noise


def predictive_draws(output: Tensor, low_dose: Tensor, reference: Reference) -> tuple[Tensor, Tensor]:
    """Mean [N, 1, Z, X, Y] of the reference by the regression alone, and draws [N, draws, Z, X, Y] of it.

    output: of a `LocalDraws`. low_dose: the scan in the same units.
    """
    answer, deviations = output[:, :1], output[:, 1:]
    free, noise = deviations[:, ::FIELDS], deviations[:, 1::FIELDS]
    of_scan = reference.of_scan
    mean = reference.expected(answer, low_dose)
    return mean, mean + (1 - of_scan) * free + reference.fresh.sqrt() * noise
