"""How deep the voxels of an organ lie below its surface."""

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import distance_transform_edt, find_objects


def depth_mm(organ: np.ndarray, voxel_mm: Sequence[float]) -> tuple[tuple[slice, slice, slice], np.ndarray]:
    """The box around an organ (bool [X, Y, Z]), and the depth of the voxels in it below the organ's surface in mm.

    Depth is that of a voxel's centre to the nearest centre outside, 0 outside the organ, which ends at the border of
    the volume. The box is empty if there is no organ.
    """
    boxes = find_objects(organ.astype(np.uint8))
    if not boxes:
        return (slice(0, 0),) * 3, np.zeros((0, 0, 0))
    padded = np.pad(organ[boxes[0]], 1)
    return boxes[0], distance_transform_edt(padded, sampling=voxel_mm)[1:-1, 1:-1, 1:-1]
