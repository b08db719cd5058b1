"""3D networks for inference: they compute the same function as the trained `UNetModel`s they are made from.

What differs is the cost. Weights are packed for the kernels once; all timestep projections are computed as one product
and cached; the two inputs of a decoder block are never concatenated; convolutions after upsampling run at the low
resolution; a skip connection is freed by the block that uses it. These networks cannot be trained.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from guided_diffusion.fast.layers import (
    LAYOUT,
    FastNorm,
    FastPointwise,
    FastUpConv,
    NormSilu,
    fast_conv,
    norm_silu,
)
from guided_diffusion.nn import nearest_up_in_plane, timestep_embedding
from guided_diffusion.unet import AttentionBlock, Downsample, ResBlock, UNetModel, Upsample, conditioned

# A layer is given the maps that stand side by side at its input, which it may use up, and the projections of the
# timestep, of which a residual block takes the next.
Layer = Callable[[list[Tensor], Iterator[Tensor]], Tensor]


@dataclass(frozen=True)
class Build:
    """Settings of all layers of a network: the precision of maps and convolutions, and the function of the norms."""

    dtype: torch.dtype
    norm_silu: NormSilu = norm_silu


class FastUNet(nn.Module):
    """The backbone. Subclasses define its input and output.

    Called like all networks: x and low_res [N, 1, Z, X, Y], timesteps [N] -> float32 [N, out, Z, X, Y]. model: in
    evaluation mode, on the device of this network. dtype: precision of feature maps and convolutions; timesteps and
    norms are always float32. norm_silu: such as the result of `compiled.compiled_norm_silu`. The patches of a batch are
    computed one after the other: together they would save no work and need more memory.
    """

    def __init__(self, model: UNetModel, dtype: torch.dtype, norm_silu: NormSilu = norm_silu):
        super().__init__()
        if model.config.dims != 3 or model.config.class_cond:
            raise ValueError("only 3D networks without class labels can be made fast")
        self.config = model.config
        self.dtype = dtype
        self.time_embed = copy.deepcopy(model.time_embed).float()
        blocks = [module for module in model.modules() if isinstance(module, ResBlock)]
        linears = [block.emb_layers[-1] for block in blocks]
        self._widths = [linear.out_features for linear in linears]
        self.register_buffer("_projection", torch.cat([linear.weight.float() for linear in linears]).detach())
        self.register_buffer("_projection_bias", torch.cat([linear.bias.float() for linear in linears]).detach())
        self._projected: dict[float, tuple[Tensor, ...]] = {}
        build = Build(dtype, norm_silu)
        with torch.no_grad():
            self._encoder = [_stage(block, build) for block in model.input_blocks]
            self._middle = _stage(model.middle_block, build)
            self._decoder = [_stage(block, build, parts=2) for block in model.output_blocks]
            self._out_norm = FastNorm(model.out[0], function=norm_silu)
            self._out_conv = fast_conv(model.out[2], dtype)

    @torch.no_grad()
    def forward(self, x: Tensor, timesteps: Tensor, low_res: Tensor) -> Tensor:
        """The network's output for a batch, patch by patch: the layers and their projections are made for one.

        How many patches come together is for the caller to say (`patch_sampling`), and changes no bit here.
        """
        patches = zip(x.split(1), timesteps.tolist(), low_res.split(1), strict=True)
        return torch.cat([self._one(*patch) for patch in patches])

    def _one(self, x: Tensor, timestep: float, low_res: Tensor) -> Tensor:
        """The output for one patch."""
        raise NotImplementedError

    def _unet(self, image: Tensor, timestep: float) -> Tensor:
        """The backbone's output for one patch [1, C, Z, X, Y], float32."""
        h = image.to(self.dtype).contiguous(memory_format=LAYOUT)
        projections = iter(self._projections(timestep))
        skips = []
        for stage in self._encoder:
            h = stage([h], projections)
            skips.append(h)
        h = self._middle([h], projections)
        for stage in self._decoder:
            parts = [h, skips.pop()]
            del h
            h = stage(parts, projections)
        return self._out_conv(self._out_norm(h)).float().contiguous()

    def _projections(self, timestep: float) -> tuple[Tensor, ...]:
        """A timestep's projections for the residual blocks, in their order: float32 vectors."""
        if timestep not in self._projected:
            t = torch.tensor([timestep], device=self._projection.device)
            emb = nn.functional.silu(self.time_embed(timestep_embedding(t, self.config.num_channels)))[0]
            projection = torch.addmv(self._projection_bias, self._projection, emb)
            self._projected[timestep] = projection.split(self._widths)
        return self._projected[timestep]


class FastSuperResModel(FastUNet):
    """The function of a `SuperResModel`."""

    def _one(self, x: Tensor, timestep: float, low_res: Tensor) -> Tensor:
        return conditioned(lambda image: self._unet(image, timestep), self.config, x, low_res)


def _stage(layers: nn.Sequential, build: Build, parts: int = 1) -> Layer:
    """The layers of one block of the network in turn; the first is given so many maps."""
    first, *others = layers
    fast_layers = [_fast_layer(first, build, parts), *[_fast_layer(layer, build) for layer in others]]

    def run(maps: list[Tensor], projections: Iterator[Tensor]) -> Tensor:
        for layer in fast_layers:
            maps = [layer(maps, projections)]
        return maps[0]

    return run


def _fast_layer(layer: nn.Module, build: Build, parts: int = 1) -> Layer:
    """The fast form of a trained layer."""
    if isinstance(layer, ResBlock):
        return FastResBlock(layer, build, parts)
    if isinstance(layer, AttentionBlock):
        return _of_one_map(copy.deepcopy(layer).to(build.dtype))
    if isinstance(layer, Upsample):
        return _of_one_map(FastUpConv(layer.conv, build.dtype))
    return _of_one_map(fast_conv(layer.op if isinstance(layer, Downsample) else layer, build.dtype))


def _of_one_map(function: Callable[[Tensor], Tensor]) -> Layer:
    """A layer that takes a single map and does not depend on the timestep."""

    def run(maps: list[Tensor], _projections: Iterator[Tensor]) -> Tensor:
        return function(maps.pop()).contiguous(memory_format=LAYOUT)

    return run


class FastResBlock:
    """`unet.ResBlock` for one map, or for two of equal width: in the decoder, those from below and of the skip.

    The groups of the norm divide both halves of such a pair evenly, so the two are normalised separately, and their
    convolutions are added.
    """

    def __init__(self, block: ResBlock, build: Build, parts: int):
        in_norm, in_conv = block.in_layers[0], block.in_layers[-1]
        width = in_conv.in_channels // parts
        shares = [slice(part * width, (part + 1) * width) for part in range(parts)]
        self._in_norms = [FastNorm(in_norm, part, parts, build.norm_silu) for part in range(parts)]
        self._resample = block.resample
        if block.resample is nearest_up_in_plane:
            self._in_convs: list[Callable[..., Tensor]] = [FastUpConv(in_conv, build.dtype)]
        else:
            self._in_convs = [fast_conv(in_conv, build.dtype, share, bias=share.start == 0) for share in shares]
        self._scale_shift = block.use_scale_shift_norm
        self._out_norm = FastNorm(block.out_layers[0], function=build.norm_silu)
        self._out_conv = fast_conv(block.out_layers[-1], build.dtype)
        same_width = isinstance(block.skip_connection, nn.Identity)
        self._pointwise = None if same_width else FastPointwise(block.skip_connection, build.dtype, parts)

    def __call__(self, maps: list[Tensor], projections: Iterator[Tensor]) -> Tensor:
        """maps: emptied, so that nothing keeps them in memory while the second half of the block is computed."""
        h = None
        for norm, conv, part in zip(self._in_norms, self._in_convs, maps, strict=True):
            h = self._first_half(norm(part), conv, h)
        skip, is_new = self._skip(maps)
        maps.clear()
        del part
        projection = next(projections)
        if self._scale_shift:
            scale, shift = projection.chunk(2)
            h = self._out_norm(h, scale, shift)
        else:
            h = self._out_norm(h.add_(projection.to(h)[None, :, None, None, None]))
        return self._out_conv(h, skip, overwrite=is_new)

    def _first_half(self, normed: Tensor, conv: Callable[..., Tensor], other: Tensor | None) -> Tensor:
        """The first convolution of one map, added to the other's."""
        if self._resample is nearest_up_in_plane:
            return conv(normed)
        if self._resample is not None:
            normed = self._resample(normed)
        return conv(normed) if other is None else conv(normed, other, overwrite=True)

    def _skip(self, maps: list[Tensor]) -> tuple[Tensor, bool]:
        """The skip path's maps, and whether they are a copy, which may be overwritten."""
        if self._pointwise is not None:
            return self._pointwise(maps), True
        skip = maps[0] if len(maps) == 1 else torch.cat(maps, dim=1)
        return (skip, len(maps) > 1) if self._resample is None else (self._resample(skip), True)
