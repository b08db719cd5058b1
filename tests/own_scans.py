"""Scans of a user's own, as arrays and as NIfTI files, for tests of comparisons."""

import nibabel as nib
import numpy as np

SHAPE = (16, 18, 20)
AFFINE = np.diag([-4.0, -4.0, 4.0, 1.0])


def images_of_two():
    """Low and normal dose of two subjects, and what a method made of them; float32 in SUV: two halves of tissue."""
    rng = np.random.default_rng(3)
    made = {}
    for name in ("anna", "bert"):
        normal = (2 + 0.4 * rng.random(SHAPE)).astype(np.float32)
        normal[8:] += 3
        low, ours = (normal + size * rng.standard_normal(SHAPE).astype(np.float32) for size in (1.0, 0.3))
        made[name] = {"low": low, "normal": normal, "ours": ours}
    return made


def save_nifti(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, AFFINE), path)
