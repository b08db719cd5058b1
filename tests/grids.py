"""Grids in space and simple images on them, for the tests of geometry."""

from dataclasses import replace

import numpy as np
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from guided_diffusion.pet.grid import Volume, centred_affine

FLIPS = ("RAS", "LAS", "LPS", "PLS", "SRA", "IPL", "ASL")


def turned(affine, degrees, axis="x"):
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler(axis, degrees, degrees=True).as_matrix()
    return turn @ affine


def tilted(affine, degrees):
    """Slices tilted about x while the table moves straight on: axes no longer at right angles."""
    sheared = affine.copy()
    sheared[:3, 1] = turned(affine, degrees)[:3, 1]
    return sheared


def millimetres(volume):
    """Positions of all voxel centres, [3, i, j, k]."""
    index = np.indices(volume.data.shape, dtype=float)
    return np.tensordot(volume.affine[:3, :3], index, 1) + volume.affine[:3, 3].reshape(3, 1, 1, 1)


def ball(affine, shape, centre, diameter, hot=8.0, background=1.0, parts=5):
    """Sphere in a background; each voxel holds the mean over parts^3 points, as a scanner without blur would see it."""
    offsets = (np.arange(parts) - (parts - 1) / 2) / parts
    total = np.zeros(shape, np.float32)
    index = np.indices(shape, dtype=np.float32)
    for offset in np.stack(np.meshgrid(offsets, offsets, offsets), -1).reshape(-1, 3):
        points = np.tensordot(affine[:3, :3], index + offset.reshape(3, 1, 1, 1).astype(np.float32), 1)
        distance = np.sqrt(((points + (affine[:3, 3] - centre).reshape(3, 1, 1, 1)) ** 2).sum(0))
        total += distance <= diameter / 2
    return Volume(background + (hot - background) * total / parts**3, affine)


def identity(model_input, suv_max=16.0):
    return replace(model_input, data=np.clip(model_input.data, 0, suv_max))


@st.composite
def grids(draw):
    """Shapes 1..300, spacings 0.7..8 mm, any orientation, straight or oblique."""
    shape = [draw(st.integers(1, 300)) for _ in range(3)]
    while np.prod(shape) > 60_000:  # keep one long axis, for speed
        shape[int(np.argmin(np.array(shape) + 300 * (np.array(shape) < 8)))] //= 4
    shape = tuple(max(1, n) for n in shape)
    spacing = [draw(st.floats(0.7, 8)) for _ in range(3)]
    codes = draw(st.sampled_from(FLIPS))
    affine = centred_affine(shape, spacing, codes)
    affine[:3, 3] += draw(st.tuples(*[st.floats(-500, 500)] * 3))
    return shape, turned(affine, draw(st.sampled_from([0, 0, 20, -33])), draw(st.sampled_from("xyz")))
