"""Maximum intensity projections as image rows from head to feet.

Volumes are [X, Y, Z] with axes towards posterior, left and superior. Pictures then show the head up and, from the
front, the patient's right on the viewer's left.
"""

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import affine_transform

VIEWS = 24
ROTATION_MM = 3.3  # voxels of the turned volume: a view has fewer pixels than a slice


def coronal(volume: np.ndarray) -> np.ndarray:
    """The largest value along anterior-posterior: [X, Y, Z] -> [Z, Y]."""
    return volume.max(axis=0).T[::-1]


def sagittal(volume: np.ndarray) -> np.ndarray:
    """The largest value along left-right, anterior on the left: [X, Y, Z] -> [Z, X]."""
    return volume.max(axis=1).T[::-1]


def signed_extreme(volume: np.ndarray, axis: int) -> np.ndarray:
    """The value farthest from zero along an axis, with its sign: [X, Y, Z] -> the two other axes."""
    high, low = volume.max(axis=axis), volume.min(axis=axis)
    return np.where(high >= -low, high, low)


def coarser(volume: np.ndarray, block: int) -> np.ndarray:
    """Means over blocks of `block` voxels along each axis, float32; what does not fill a block at the end is left out.

    An axis shorter than a block becomes one voxel.
    """
    if block == 1:
        return volume
    blocks = [min(block, n) for n in volume.shape]
    whole = volume[tuple(slice(n // b * b) for n, b in zip(volume.shape, blocks, strict=True))]
    parts = [size for n, b in zip(whole.shape, blocks, strict=True) for size in (n // b, b)]
    return whole.reshape(parts).mean(axis=(1, 3, 5), dtype=np.float32)


def rotating(volume: np.ndarray, voxel_mm: Sequence[float]) -> list[np.ndarray]:
    """The first half of a turn of `VIEWS` views about the long axis, each [Z, C].

    The other half is their mirror images.
    View n shows the patient n / VIEWS of a turn from the front towards the patient's left. Pixels have the size
    that `rotation_pixel_mm` gives.
    """
    block = rotation_block(voxel_mm)
    small = coarser(volume, block)
    sizes = np.array(voxel_mm[:2]) * block
    step = sizes.min()
    width = int(np.ceil(np.hypot(*(np.array(small.shape[:2]) * sizes)) / step))
    middle_in, middle_out = (np.array(small.shape[:2]) - 1) / 2, (width - 1) / 2
    views = []
    for angle in 2 * np.pi * np.arange(VIEWS // 2) / VIEWS:
        depth, across = (np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle))
        matrix = np.eye(3)
        matrix[:2, :2] = np.stack([depth, across], axis=1) * step / sizes[:, None]
        offset = np.append(middle_in - matrix[:2, :2] @ [middle_out, middle_out], 0)
        turned = affine_transform(small, matrix, offset, (width, width, small.shape[2]), order=1)
        views.append(coronal(turned))
    return views


def rotation_block(voxel_mm: Sequence[float]) -> int:
    """Number of voxels along each axis that make one of a rotating view."""
    return max(1, int(ROTATION_MM / min(voxel_mm) + 0.01))


def rotation_pixel_mm(voxel_mm: Sequence[float]) -> tuple[float, float]:
    """Height and width of a pixel of a rotating view in mm."""
    block = rotation_block(voxel_mm)
    return voxel_mm[2] * block, min(voxel_mm[:2]) * block
