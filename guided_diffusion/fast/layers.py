"""Layers for inference: the same functions as in `nn`, arranged for speed and low memory.

Feature maps are [1, C, Z, X, Y] in torch.channels_last_3d, the layout that convolutions use without reordering, in the
precision of the network. Norm statistics are float32. On a CPU, no bit depends on the number of threads.
"""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from guided_diffusion.machine.half_precision import has_bfloat16
from guided_diffusion.nn import GroupNorm32, doubling_kernels

LAYOUT = torch.channels_last_3d

# Below this many voxels the CPU's norm reads channels-last data badly: slices are taken together until they have them.
_FEWEST_VOXELS_OF_A_NORM = 1024

# As many at a time as stay in the cache, in which they wait for the next operation on them.
_BLOCKS_PER_THREAD = 4


def voxel_rows(x: Tensor) -> Tensor:
    """[1, C, Z, X, Y] seen as the matrix [voxels, C] that it is in memory."""
    return x.permute(0, 2, 3, 4, 1).reshape(-1, x.shape[1])


def _packs(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether oneDNN can keep weights of this precision in its own order."""
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and has_bfloat16(device))


class FastConv:
    """A 3D convolution whose weights are put into the kernel's order once; it can add to its result at no cost."""

    def __init__(self, weight: Tensor, bias: Tensor | None, padding: tuple[int, ...], stride: tuple[int, ...]):
        """weight: [out, in, kz, kx, ky] in the precision and on the device of the maps to come."""
        self._geometry = (padding, stride, (1, 1, 1), 1)
        self._bias = None if bias is None else bias.detach()
        self._packed = _packs(weight.dtype, weight.device)
        if self._packed:
            reorder = torch._C._nn.mkldnn_reorder_conv3d_weight
            self._weight = reorder(weight.to_mkldnn(), *self._geometry)
        else:
            self._weight = weight.contiguous(memory_format=LAYOUT)

    def __call__(self, x: Tensor, plus: Tensor | None = None, *, overwrite: bool = False) -> Tensor:
        """The convolution of x, plus a map of the result's shape if given. overwrite: whether that may hold the sum."""
        padding, stride, dilation, groups = self._geometry
        if not self._packed:
            # The plain kernel of CPUs, which serves where oneDNN does not, puts channels first.
            y = F.conv3d(x, self._weight, self._bias, stride, padding, dilation, groups).contiguous(
                memory_format=LAYOUT
            )
            return y if plus is None else y.add_(plus)
        what = (self._weight, self._bias, *self._geometry)
        if plus is None:
            return torch.ops.mkldnn._convolution_pointwise(x, *what, "none", [], "")
        if overwrite:
            return torch.ops.mkldnn._convolution_pointwise_.binary(plus, x, *what, "add", None, None, [], None)
        return torch.ops.mkldnn._convolution_pointwise.binary(x, plus, *what, "add", None, None, [], None)


def fast_conv(layer: nn.Conv3d, dtype: torch.dtype, inputs: slice = slice(None), *, bias: bool = True) -> FastConv:
    """The fast form of a trained layer; `inputs` selects some of its input channels."""
    weight = layer.weight[:, inputs].to(dtype)
    return FastConv(weight, layer.bias.to(dtype) if bias else None, layer.padding, layer.stride)


class FastUpConv:
    """Nearest-neighbour doubling of X and Y followed by a 3 x 3 x 3 convolution, without the doubled map."""

    def __init__(self, layer: nn.Conv3d, dtype: torch.dtype):
        kernels = doubling_kernels(layer.weight.float())
        self._conv = FastConv(kernels.to(dtype), layer.bias.repeat(4).to(dtype), (1, 1, 1), (1, 1, 1))

    def __call__(self, x: Tensor) -> Tensor:
        _, _, length, height, width = x.shape
        phases = self._conv(x).chunk(4, dim=1)
        shape = (1, phases[0].shape[1], length, 2 * height, 2 * width)
        doubled = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=LAYOUT)
        for number, phase in enumerate(phases):
            odd_x, odd_y = divmod(number, 2)
            inside = phase[..., odd_x : odd_x + height, odd_y : odd_y + width]
            doubled[..., odd_x::2, odd_y::2] = inside
        return doubled


class FastPointwise:
    """A 1 x 1 x 1 convolution of maps side by side, as matrix products that are summed."""

    def __init__(self, layer: nn.Conv3d, dtype: torch.dtype, parts: int):
        weights = layer.weight.flatten(1).to(dtype).chunk(parts, dim=1)
        self._weights = [weight.t().contiguous() for weight in weights]
        self._bias = layer.bias.to(dtype)

    def __call__(self, parts: list[Tensor]) -> Tensor:
        rows = torch.addmm(self._bias, voxel_rows(parts[0]), self._weights[0])
        for part, weight in zip(parts[1:], self._weights[1:], strict=True):
            rows.addmm_(voxel_rows(part), weight)
        _, _, length, height, width = parts[0].shape
        return rows.reshape(1, length, height, width, -1).permute(0, 4, 1, 2, 3)


def library_norm_silu(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """The library's group norm with float32 statistics, then SiLU."""
    return F.silu(F.group_norm(x, groups, weight.to(x), bias.to(x), eps), inplace=True)


def steady_norm_silu(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """`library_norm_silu` on a CPU, bit-identical for any number of threads.

    Once the statistics are known, batch norm is the remaining affine map, computed in float32 for any x.
    """
    moments = group_moments(x, groups)
    y = torch.empty(x.shape, dtype=x.dtype, memory_format=LAYOUT)
    for images, results in zip(_images(x), _images(y), strict=True):
        for share in _even_shares(len(images)):
            normed = F.batch_norm(images[share], *moments, weight, bias, training=False, eps=eps)
            torch.ops.aten.silu.out(normed, out=results[share])
    return y


def norm_silu(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """SiLU of the group norm of x, scaled by `weight` and shifted by `bias` (float32 [C])."""
    function = steady_norm_silu if x.device.type == "cpu" else library_norm_silu
    return function(x, groups, weight, bias, eps)


# A function such as `norm_silu`.
NormSilu = Callable[[Tensor, int, Tensor, Tensor, float], Tensor]


class FastNorm:
    """Group norm, scale and shift by the timestep, and SiLU."""

    def __init__(self, norm: GroupNorm32, part: int = 0, parts: int = 1, function: NormSilu = norm_silu):
        """part: which of `parts` equal shares of the channels this is. Groups must not straddle their borders."""
        self._function = function
        self._groups = norm.num_groups // parts
        self._weight = norm.weight.detach().float().chunk(parts)[part]
        self._bias = norm.bias.detach().float().chunk(parts)[part]
        self._eps = norm.eps

    def __call__(self, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
        """SiLU(norm(x) (1 + scale) + shift). scale and shift: float32 [C]."""
        weight, bias = self._weight, self._bias
        if scale is not None:
            weight, bias = weight * (1 + scale), bias * (1 + scale) + shift
        return self._function(x, self._groups, weight, bias, self._eps)


def group_moments(x: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Mean and (population) variance of the group of each channel, float32 [C].

    x: [1, C, Z, X, Y] channels last, on the CPU.
    """
    moments = [_moments(images[share], groups) for images in _images(x) for share in _even_shares(len(images))]
    voxels, means, variances = (torch.cat(values) for values in zip(*moments, strict=True))
    return merged_moments(voxels, means, variances, x.shape[1])


def blocks_of_slices(x: Tensor) -> list[Tensor]:
    """[1, C, Z, X, Y] as one or two tensors [blocks, voxels, C]: as many slices in a block as a norm reads well.

    What is left at the end is a block of its own. The division depends on nothing but the map's size.
    """
    _, height, width = x.shape[2:]
    size = -(-_FEWEST_VOXELS_OF_A_NORM // (height * width)) * height * width
    rows = voxel_rows(x)
    even = len(rows) - len(rows) % size
    whole, rest = rows[:even].reshape(len(rows) // size, size, x.shape[1]), rows[None, even:]
    return [blocks for blocks in (whole, rest) if blocks.numel()]


def merged_moments(voxels: Tensor, means: Tensor, variances: Tensor, channels: int) -> tuple[Tensor, Tensor]:
    """Mean and variance of all blocks, float32 [C], from those of each, float64 [blocks, groups]."""
    share = (voxels / voxels.sum())[:, None]
    mean = (share * means).sum(0)
    variance = (share * (variances + (means - mean).square())).sum(0)
    return tuple(moment.float().repeat_interleave(channels // len(mean)) for moment in (mean, variance))


def _images(x: Tensor) -> list[Tensor]:
    """`blocks_of_slices` as images [blocks, C, slices X, Y], channels last."""
    return [blocks.unflatten(1, (-1, x.shape[4])).permute(0, 3, 1, 2) for blocks in blocks_of_slices(x)]


def _even_shares(count: int) -> Iterator[slice]:
    """`count` blocks in runs that the threads can share evenly; that many threads run while the consumer has a run.

    The library divides its work into as many equal pieces as there are threads. Sums over other pieces, and the ends of
    vector loops, differ in the last bits; here pieces never end within a block.
    """
    threads = torch.get_num_threads()
    even = count - count % threads
    step = _BLOCKS_PER_THREAD * threads
    for first in range(0, even, step):
        yield slice(first, min(first + step, even))
    if even < count:
        torch.set_num_threads(count - even)
        try:
            yield slice(even, count)
        finally:
            torch.set_num_threads(threads)


def _moments(blocks: Tensor, groups: int) -> tuple[Tensor, Tensor, Tensor]:
    """Voxels [blocks], means and variances [blocks, groups] in float64 of blocks [blocks, C, X, Y], channels last."""
    count, channels, height, width = blocks.shape
    # The weights make the statistics float32; without an epsilon the variance can be had back from its root's inverse.
    ones, zeros = torch.ones(channels), torch.zeros(channels)
    _, mean, inverse = torch.native_group_norm(blocks, ones, zeros, count, channels, height * width, groups, 0.0)
    voxels = torch.full((count,), height * width, dtype=torch.float64)
    return voxels, mean.double(), inverse.double().pow(-2)
