"""What tells one image from another, whatever files are called."""

import hashlib

import numpy as np

from guided_diffusion.pet.grid import Volume


def fingerprint(volume: Volume) -> str:
    """SHA-256 of a volume's voxels and affine."""
    digest = hashlib.sha256(np.ascontiguousarray(volume.data))
    digest.update(np.ascontiguousarray(volume.affine))
    return digest.hexdigest()
