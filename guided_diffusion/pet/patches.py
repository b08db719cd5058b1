"""Axial patches: into which slabs a volume is cut, and how these are blended into one volume again.

Volumes are [X, Y, Z]. Patches cover the volume's whole X and Y; neighbours overlap along Z.
"""

from dataclasses import dataclass

import numpy as np

from guided_diffusion.errors import InputError


@dataclass(frozen=True)
class PatchPlan:
    """Slabs of `patch_size` slices at `starts` that together cover `length` slices.

    A patch fades into the next one over its own last `overlap` slices, linearly from its first to its last: the
    published weights, j / 9 for the later patch at the j-th of 10. Where the last patch had to be moved back and
    overlaps its neighbour by more, its surplus slices have no weight.
    """

    length: int
    patch_size: int
    overlap: int
    starts: tuple[int, ...]

    def slab(self, number: int) -> slice:
        """The slices of patch `number`."""
        return slice(self.starts[number], self.starts[number] + self.patch_size)

    def weights(self, number: int) -> np.ndarray:
        """Weight of each slice of patch `number` in the volume, float32 [patch_size]."""
        weights = np.ones(self.patch_size, dtype=np.float32)
        if number > 0:
            fade_in = np.linspace(0.0, 1.0, self.overlap, dtype=np.float32)
            first = self.starts[number - 1] + self.patch_size - self.overlap - self.starts[number]
            weights[:first] = 0.0
            weights[first : first + self.overlap] = fade_in
        if number < len(self.starts) - 1 and self.overlap > 0:
            weights[-self.overlap :] *= 1.0 - np.linspace(0.0, 1.0, self.overlap, dtype=np.float32)
        return weights

    def add(self, volume: np.ndarray, number: int, patch: np.ndarray) -> None:
        """Add a weighted patch [X, Y, patch_size] to a volume [X, Y, length] that starts as zeros.

        No voxel has weight from more than two patches, so the sum does not depend on the order of the patches.
        """
        volume[..., self.slab(number)] += self.weights(number) * patch

    def stitch(self, patches: np.ndarray) -> np.ndarray:
        """The volume, float32 [X, Y, length], of patches [n, X, Y, patch_size] in order of `starts`."""
        if len(patches) != len(self.starts):
            raise ValueError(f"the plan has {len(self.starts)} patches, not {len(patches)}")
        volume = np.zeros((*patches[0].shape[:2], self.length), dtype=np.float32)
        for number, patch in enumerate(patches):
            self.add(volume, number, patch)
        return volume


def plan_axial_patches(length: int, patch_size: int = 96, overlap: int = 10) -> PatchPlan:
    """The published plan for any axial length (slices).

    Patches follow one another at a stride of `patch_size - overlap`; the last is moved back so that it ends with the
    volume. A volume shorter than a patch is one patch of its own length. Raises InputError for impossible sizes.
    """
    if length < 1 or patch_size < 1:
        raise InputError(f"cannot plan patches of {patch_size} slices for a volume of {length}")
    if not 0 <= overlap <= patch_size // 2:
        raise InputError(
            f"an overlap of {overlap} slices does not fit patches of {patch_size}: 0 to {patch_size // 2} does"
        )
    if length <= patch_size:
        return PatchPlan(length, length, 0, (0,))
    last = length - patch_size
    return PatchPlan(length, patch_size, overlap, (*range(0, last, patch_size - overlap), last))


def plan_aligned_patches(length: int, patch_size: int, overlap: int, multiple: int) -> PatchPlan:
    """A plan whose patches begin at multiples of `multiple` slices; the volume is extended to the plan's length.

    The stride is the multiple at or below `patch_size - overlap`, or the next one above if otherwise more than half of
    a patch would overlap. A volume shorter than a patch is one patch of its own length. Raises InputError as
    `plan_axial_patches`, and for patches shorter than `multiple`.
    """
    plan = plan_axial_patches(length, patch_size, overlap)
    if len(plan.starts) == 1:
        return plan
    if patch_size < multiple:
        raise InputError(f"patches of {patch_size} slices are too short for this network: {multiple} at least")
    stride = patch_size - overlap
    stride -= stride % multiple
    if 2 * stride < patch_size:
        stride += multiple
    continued = length + (patch_size - length) % multiple
    return plan_axial_patches(continued, patch_size, patch_size - stride)


def pad_in_plane(volume: np.ndarray, multiple: int) -> np.ndarray:
    """The volume [X, Y, Z] padded with zeros at the end of X and Y to the next multiple.

    `[:X, :Y]` of the result is the volume.
    """
    x, y = volume.shape[:2]
    return np.pad(volume, ((0, -x % multiple), (0, -y % multiple), (0, 0)))
