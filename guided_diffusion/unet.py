"""The UNet in 2D and 3D, with parameter names and shapes of the published checkpoints.

Only the last two axes are ever resampled, so a patch may have any axial length. The decoder's widths follow the skip
connections: a block receives as many channels from below as its skip has and puts out as many as the next skip has.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from guided_diffusion.config import ModelConfig
from guided_diffusion.errors import InputError
from guided_diffusion.machine.half_precision import has_bfloat16
from guided_diffusion.nn import (
    GroupNorm32,
    average_pool_in_plane,
    conv_nd,
    conv_of_nearest_up,
    in_plane,
    nearest_up_in_plane,
    pointwise_conv_nd,
    timestep_embedding,
    zeroed,
)

NUM_CLASSES = 1000  # size of the label table in the published layout when class_cond is set


class TimestepBlock(nn.Module):
    """A module whose forward takes the timestep embedding too."""


class TimestepSequential(nn.Sequential):
    """A sequence that passes the embedding to those layers that take it."""

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        for layer in self:
            x = layer(x, emb) if isinstance(layer, TimestepBlock) else layer(x)
        return x


class Downsample(nn.Module):
    """Halves X and Y by a strided convolution."""

    def __init__(self, channels: int, dims: int):
        super().__init__()
        self.op = conv_nd(dims, channels, channels, 3, stride=in_plane(dims, 2), padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class Upsample(nn.Module):
    """Doubles X and Y by nearest neighbours, then convolves."""

    def __init__(self, channels: int, dims: int):
        super().__init__()
        self.conv = conv_nd(dims, channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(nearest_up_in_plane(x))


@dataclass(frozen=True)
class BlockShape:
    """Settings that all residual blocks of one network share."""

    emb_channels: int
    dropout: float
    dims: int
    use_scale_shift_norm: bool
    use_checkpoint: bool


class ResBlock(TimestepBlock):
    """Norm, SiLU, convolution; add the timestep; norm, SiLU, dropout, convolution; add the skip path.

    resample: None, or a function that halves or doubles X and Y of both paths.
    """

    def __init__(self, channels: int, out_channels: int, shape: BlockShape, resample=None):
        super().__init__()
        self.resample = resample
        self.use_scale_shift_norm = shape.use_scale_shift_norm
        self.use_checkpoint = shape.use_checkpoint
        self.in_layers = nn.Sequential(
            GroupNorm32(channels), nn.SiLU(), conv_nd(shape.dims, channels, out_channels, 3, padding=1)
        )
        emb_width = 2 * out_channels if shape.use_scale_shift_norm else out_channels
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(shape.emb_channels, emb_width))
        self.out_layers = nn.Sequential(
            GroupNorm32(out_channels),
            nn.SiLU(),
            nn.Dropout(shape.dropout),
            zeroed(conv_nd(shape.dims, out_channels, out_channels, 3, padding=1)),
        )
        same_width = channels == out_channels
        self.skip_connection = nn.Identity() if same_width else pointwise_conv_nd(shape.dims, channels, out_channels)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        if self.use_checkpoint and torch.is_grad_enabled():
            return checkpoint(self._forward, x, emb, use_reentrant=False)
        return self._forward(x, emb)

    def _forward(self, x: Tensor, emb: Tensor) -> Tensor:
        norm_act, conv = self.in_layers[:-1], self.in_layers[-1]
        h = norm_act(x)
        # In half precision only: float32 keeps the published order of rounding, to which the golden numbers hold.
        if self.resample is nearest_up_in_plane and _is_autocast(h.device.type):
            h, x = conv_of_nearest_up(conv, h), self.resample(x)
        elif self.resample is not None:
            h, x = conv(self.resample(h)), self.resample(x)
        else:
            h = conv(h)
        emb_out = self.emb_layers(emb)
        emb_out = emb_out.reshape(emb_out.shape + (1,) * (h.ndim - 2))
        if self.use_scale_shift_norm:
            scale, shift = emb_out.chunk(2, dim=1)
            h = self.out_layers[0](h) * (1 + scale) + shift
            h = self.out_layers[1:](h)
        else:
            h = self.out_layers(h + emb_out)
        return self.skip_connection(x) + h


def _is_autocast(device_type: str) -> bool:
    """Whether operations on a device are done in half precision now. Some, such as "meta", do not support it."""
    return torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type)


class AttentionBlock(nn.Module):
    """Self-attention over all voxels of a patch. Heads are split before queries, keys and values.

    Raises InputError if heads of that number or width do not divide the channels.
    """

    def __init__(self, channels: int, num_heads: int, num_head_channels: int):
        super().__init__()
        if channels % (num_heads if num_head_channels == -1 else num_head_channels):
            heads = f"{num_heads} heads" if num_head_channels == -1 else f"heads of {num_head_channels}"
            raise InputError(
                f"attention cannot divide {channels} channels into {heads}: change --num_heads or --num_head_channels"
            )
        self.num_heads = num_heads if num_head_channels == -1 else channels // num_head_channels
        self.norm = GroupNorm32(channels)
        self.qkv = conv_nd(1, channels, 3 * channels, 1)
        self.proj_out = zeroed(conv_nd(1, channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        n, channels = x.shape[:2]
        flat = x.reshape(n, channels, -1)
        heads = self.qkv(self.norm(flat)).reshape(n, self.num_heads, 3 * channels // self.num_heads, -1)
        q, k, v = heads.transpose(2, 3).chunk(3, dim=3)
        h = F.scaled_dot_product_attention(q, k, v).transpose(2, 3).reshape(n, channels, -1)
        return (flat + self.proj_out(h)).reshape(x.shape)


class UNetModel(nn.Module):
    """The network of guided diffusion in the published layout.

    in_channels, out_channels: of the image tensors. forward: x [N, in_channels, (Z,) X, Y] in any floating dtype,
    timesteps [N] -> float32 of the same size with out_channels. X and Y must be multiples of
    `config.in_plane_multiple`.
    """

    def __init__(self, config: ModelConfig, in_channels: int, out_channels: int):
        super().__init__()
        self.config = config
        width = config.num_channels
        shape = BlockShape(4 * width, config.dropout, config.dims, config.use_scale_shift_norm, config.use_checkpoint)
        self.time_embed = nn.Sequential(nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, 4 * width))
        if config.class_cond:
            self.label_emb = nn.Embedding(NUM_CLASSES, 4 * width)

        skips = self._build_encoder(in_channels, shape)
        deepest = skips[-1]
        self.middle_block = TimestepSequential(ResBlock(deepest, deepest, shape), ResBlock(deepest, deepest, shape))
        self._build_decoder(skips, shape)
        self.out = nn.Sequential(
            GroupNorm32(width), nn.SiLU(), zeroed(conv_nd(config.dims, width, out_channels, 3, padding=1))
        )

    def _build_encoder(self, in_channels: int, shape: BlockShape) -> list[int]:
        """Fill `input_blocks`; returns the width of every skip connection, outermost first."""
        config = self.config
        width = config.num_channels
        blocks = [TimestepSequential(conv_nd(config.dims, in_channels, width, 3, padding=1))]
        skips = [width]
        channels = width
        for level, mult in enumerate(config.multipliers):
            for _ in range(config.num_res_blocks):
                layers = [ResBlock(channels, mult * width, shape)]
                channels = mult * width
                layers += self._attention(channels, level, config.num_heads)
                blocks.append(TimestepSequential(*layers))
                skips.append(channels)
            if level < len(config.multipliers) - 1:
                down = (
                    ResBlock(channels, channels, shape, resample=average_pool_in_plane)
                    if config.resblock_updown
                    else Downsample(channels, config.dims)
                )
                blocks.append(TimestepSequential(down))
                skips.append(channels)
        self.input_blocks = nn.ModuleList(blocks)
        return skips

    def _build_decoder(self, skips: list[int], shape: BlockShape) -> None:
        """Fill `output_blocks`, each as wide as the skip that the next one will be given."""
        config = self.config
        heads = config.num_heads if config.num_heads_upsample == -1 else config.num_heads_upsample
        inwards = list(reversed(skips))
        outputs = [*inwards[1:], inwards[-1]]
        blocks = []
        for level in reversed(range(len(config.multipliers))):
            for number in range(config.num_res_blocks + 1):
                skip, channels = inwards[len(blocks)], outputs[len(blocks)]
                layers = [ResBlock(2 * skip, channels, shape)]
                layers += self._attention(channels, level, heads)
                if level > 0 and number == config.num_res_blocks:
                    layers.append(
                        ResBlock(channels, channels, shape, resample=nearest_up_in_plane)
                        if config.resblock_updown
                        else Upsample(channels, config.dims)
                    )
                blocks.append(TimestepSequential(*layers))
        self.output_blocks = nn.ModuleList(blocks)

    def _attention(self, channels: int, level: int, num_heads: int) -> list[nn.Module]:
        """The attention layer of a level, if it has one."""
        if 2**level not in self.config.attention_downsampling:
            return []
        return [AttentionBlock(channels, num_heads, self.config.num_head_channels)]

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights."""
        return self.input_blocks[0][0].weight.dtype

    def convert_to_fp16(self) -> None:
        """Halve the precision of the weights as `use_fp16` does: float16 on a GPU, bfloat16 on a CPU that has it."""
        place = self.input_blocks[0][0].weight.device
        if place.type == "cuda" or torch.cuda.is_available():
            self.to(torch.float16)
        elif has_bfloat16(place):
            self.to(torch.bfloat16)

    def convert_to_fp32(self) -> None:
        """Convert the weights back to single precision; their rounding stays."""
        self.float()

    def forward(self, x: Tensor, timesteps: Tensor, y: Tensor | None = None) -> Tensor:
        dtype = self.dtype
        emb = self.time_embed(timestep_embedding(timesteps, self.config.num_channels).to(dtype))
        if self.config.class_cond:
            emb = emb + self.label_emb(y)
        h = x.to(dtype)
        skips = []
        for block in self.input_blocks:
            h = block(h, emb)
            skips.append(h)
        h = self.middle_block(h, emb)
        for block in self.output_blocks:
            h = block(torch.cat([h, skips.pop()], dim=1), emb)
        return self.out(h).float()


def corrected(config: ModelConfig, output: Tensor, low_res: Tensor) -> Tensor:
    """The image from a network's output whose first channels are a correction to the low-dose patch.

    The low-dose patch is multiplied by `low_res_scale` at the input and corrections are divided by it: tissue is a few
    hundredths of the normalised range, and layers learn faster from values around 1.
    """
    image, others = output.split([low_res.shape[1], output.shape[1] - low_res.shape[1]], dim=1)
    return torch.cat([image / config.low_res_scale + low_res.float(), others], dim=1)


def conditioned(backbone: Callable[[Tensor], Tensor], config: ModelConfig, x: Tensor, low_res: Tensor) -> Tensor:
    """The conditional model's function around a backbone: x_t and the low-dose patch enter side by side."""
    output = backbone(torch.cat([x, config.low_res_scale * low_res.to(x)], dim=1))
    return corrected(config, output, low_res) if config.add_low_res else output


class SuperResModel(UNetModel):
    """The conditional network.

    forward: x and low_res [N, 1, (Z,) X, Y] normalised. With `add_low_res` the first output channel is a correction to
    the low-dose patch, in the units that `low_res_scale` sets.
    """

    def __init__(self, config: ModelConfig, in_channels: int, out_channels: int):
        super().__init__(config, 2 * in_channels, out_channels)

    def forward(self, x: Tensor, timesteps: Tensor, low_res: Tensor, y: Tensor | None = None) -> Tensor:
        return conditioned(lambda image: UNetModel.forward(self, image, timesteps, y), self.config, x, low_res)
