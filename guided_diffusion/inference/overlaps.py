"""Neighbouring patches exchange their overlap of x_t after a step and continue from the blended state.

Patches are [Z, X, Y] here, where Z is the axial axis along which they overlap. The blending weights are those of the
plan, with which finished patches are stitched, so that afterwards a slice is the same in every patch that contains it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from guided_diffusion.dist_util import communicator, wait_until
from guided_diffusion.pet.patches import PatchPlan
from guided_diffusion.tasks import Tag


@dataclass(frozen=True)
class Contribution:
    """Slices first to last - 1 of the volume, which patch `giver` contributes to patch `taker`."""

    giver: int
    taker: int
    first: int
    last: int


def contributions(plan: PatchPlan) -> list[Contribution]:
    """All overlaps of patches, in the same order on all ranks.

    If the last patch was moved back, patches that are not neighbours may overlap too.
    """
    found = []
    for giver, start in enumerate(plan.starts):
        weighty = start + np.flatnonzero(plan.weights(giver))
        for taker, other in enumerate(plan.starts):
            first, last = max(weighty[0], other), min(weighty[-1] + 1, other + plan.patch_size)
            if giver != taker and first < last:
                found.append(Contribution(giver, taker, int(first), int(last)))
    return found


class Fusion:
    """Blends the patches of one rank with each other and with those of other ranks.

    owners: the rank of each patch of the plan. All ranks with patches must call their objects equally often.
    """

    def __init__(self, plan: PatchPlan, owners: Sequence[int]):
        self._plan = plan
        self._owners = owners
        rank = communicator().rank
        self._mine = [patch for patch, owner in enumerate(owners) if owner == rank]
        wanted = contributions(plan)
        self._inside = [c for c in wanted if owners[c.giver] == rank == owners[c.taker]]
        self._out = [c for c in wanted if owners[c.giver] == rank != owners[c.taker]]
        self._in = [c for c in wanted if owners[c.giver] != rank == owners[c.taker]]

    def __call__(self, x: Tensor) -> Tensor:
        """x: the state [N, 1, Z, X, Y] of this rank's patches in order; returns the blended state.

        At most two patches contribute to a slice, so sums do not depend on the order of arrival.
        """
        weights = np.stack([self._plan.weights(patch) for patch in self._mine])
        weighted = x * torch.from_numpy(weights).to(x)[:, None, :, None, None]
        requests, received = self._exchange(weighted)
        fused = weighted.clone()
        for c in self._inside:
            self._part(fused, c.taker, c).add_(self._part(weighted, c.giver, c))
        wait_until(lambda: all(request.Test() for request in requests))
        for c, part in zip(self._in, received, strict=True):
            self._part(fused, c.taker, c).add_(torch.from_numpy(part).to(x))
        return fused

    def _exchange(self, weighted: Tensor) -> tuple[list, list[np.ndarray]]:
        """Begin sending and receiving: the requests, and the arrays [slices, X, Y] that will be filled."""
        comm = communicator()
        received = [np.empty((c.last - c.first, *weighted.shape[3:]), dtype=np.float32) for c in self._in]
        requests = [
            comm.Irecv(part, source=self._owners[c.giver], tag=Tag.OVERLAP)
            for c, part in zip(self._in, received, strict=True)
        ]
        for c in self._out:
            part = self._part(weighted, c.giver, c).float().cpu().contiguous().numpy()
            requests.append(comm.Isend(part, dest=self._owners[c.taker], tag=Tag.OVERLAP))
        return requests, received

    def _part(self, x: Tensor, patch: int, c: Contribution) -> Tensor:
        """The slices of a contribution within one of this rank's patches: a view [slices, X, Y]."""
        start = self._plan.starts[patch]
        return x[self._mine.index(patch), 0, c.first - start : c.last - start]
