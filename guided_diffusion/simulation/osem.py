"""Ordered-subsets expectation maximisation (Hudson and Larkin, IEEE Trans Med Imaging 13:601, 1994)."""

from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np

from guided_diffusion.simulation.projector import Projector


def osem(
    projector: Projector,
    counts: Sequence[np.ndarray],
    factors: Sequence[np.ndarray],
    background: Sequence[np.ndarray],
    iterations: int,
) -> np.ndarray:
    """Reconstruct [X, Y, Z] float32 from the counts of every subset.

    The model is counts ~ Poisson(factors * forward(image) + background). `counts`, `factors` (attenuation times
    sensitivity) and `background` (randoms and scatter) hold an array [views, bins, Z] per subset. `factors` are counts
    per unit of the image. Voxels crossed by no ray are 0.
    """
    return next(islice(osem_iterates(projector, counts, factors, background), iterations - 1, None))


def osem_iterates(
    projector: Projector,
    counts: Sequence[np.ndarray],
    factors: Sequence[np.ndarray],
    background: Sequence[np.ndarray],
) -> Iterator[np.ndarray]:
    """Yield the image of `osem` after one iteration, two, and so on: one array, which goes on changing."""
    n_subsets = projector.geometry.n_subsets
    sensitivity = [projector.back(factors[s], s) for s in range(n_subsets)]
    total = sum(sensitivity)
    seen = total > 1e-6 * total.max()
    mean = sum(float(c.sum()) for c in counts) - sum(float(b.sum()) for b in background)
    image = np.where(seen, np.float32(max(mean, 1.0) / total[seen].sum()), np.float32(0))
    while True:
        for s in range(n_subsets):
            expected = factors[s] * projector.forward(image, s) + background[s]
            ratio = np.divide(counts[s], expected, out=np.zeros_like(expected), where=expected > 0)
            update = projector.back(factors[s] * ratio, s)
            image *= np.divide(update, sensitivity[s], out=np.zeros_like(update), where=sensitivity[s] > 0)
        yield image
