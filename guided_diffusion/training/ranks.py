"""Ranks that train one network together: PyTorch's process group, created from the MPI ranks.

MPI starts the ranks, determines where they run and distributes errors. Gradients go through PyTorch, which overlaps
their reduction with the backward pass and uses the GPUs' own links.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from guided_diffusion.dist_util import communicator, meet, start_process_group


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Within the block the ranks are a process group. One rank alone needs none."""
    comm = communicator()
    if comm.size == 1:
        yield
        return
    start_process_group(device)
    yield
    # Not after an exception: a rank that waits for this one would fail on the closed connection and hide the reason.
    meet()
    dist.destroy_process_group()


def gathered(values: Tensor) -> Tensor:
    """The tensors of all ranks [ranks, ...] on every rank; they are on the CPU and have one shape."""
    if not dist.is_initialized():
        return values[None]
    parts = [torch.empty_like(values) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, values)
    return torch.stack(parts)


def data_parallel(model: nn.Module) -> nn.Module:
    """The model with rank 0's weights, whose gradients are averaged over the ranks during `backward`."""
    return DistributedDataParallel(model, gradient_as_bucket_view=True) if dist.is_initialized() else model
