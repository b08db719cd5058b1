"""Visibility of the borders between patches."""

import numpy as np

from evaluation.measures.image_fidelity import comparable
from guided_diffusion.errors import InputError
from guided_diffusion.pet.patches import PatchPlan


def seam_index(truth: np.ndarray, image: np.ndarray, plan: PatchPlan) -> float:
    """Axial change of an image's error where patches meet, relative to that elsewhere; 1: no seams.

    It is the mean absolute difference between axial neighbours of (image - truth) over the pairs of slices at which the
    plan changes from one patch to the next, divided by that over all other pairs. Raises InputError if shapes differ, a
    voxel is not finite, or there is nothing to compare: a single patch, or changes at all slices.
    """
    truth, image = comparable(truth, image)
    weights = np.zeros((len(plan.starts), plan.length))
    for patch in range(len(plan.starts)):
        weights[patch, plan.slab(patch)] = plan.weights(patch)
    at_borders = (np.diff(weights, axis=1) != 0).any(axis=0)
    if at_borders.all() or not at_borders.any():
        raise InputError(f"seams show between patches and within them; {len(plan.starts)} patches have not both")
    changes = np.abs(np.diff(image - truth, axis=2)).mean(axis=(0, 1), dtype=np.float64)
    return float(changes[at_borders].mean() / changes[~at_borders].mean())
