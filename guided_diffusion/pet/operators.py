"""One-dimensional resampling as matrices: linear interpolation, its least-squares inverse, and their use on volumes.

Along one axis, let L interpolate linearly from the coarser of two grids to the finer. Going finer is L. Going coarser
is the least-squares inverse of L: of all images on the coarse grid, the one whose interpolation comes closest to the
fine image. That suppresses what the coarse grid cannot represent (anti-aliasing), keeps the mean of regions, and undoes
L exactly: coarse -> fine -> coarse changes nothing.
"""

import numpy as np
from scipy.linalg import solve

# Where both grids have nearly the same spacing, L blurs some stretches so much that undoing it would amplify noise.
# The weight of the squared second differences bounds that; straight lines pass untouched.
SMOOTHNESS = 5e-4


def axis_operator(positions: np.ndarray, count: int) -> np.ndarray:
    """Matrix [len(positions), count], float32, that resamples one axis to equally spaced `positions`.

    Args:
        positions: where the new samples lie, in voxels of the old grid (may decrease).
        count: samples of the old grid.
    """
    step = _step(positions)
    if step <= 1:
        return linear_weights(positions, count).astype(np.float32)
    # Going coarser: which old samples the new grid covers, and where they lie on it.
    low, high = covered_range(positions, count)
    on_new = (np.arange(low, high) - positions[0]) / _signed_step(positions)
    operator = np.zeros((len(positions), count))
    operator[:, low:high] = least_squares_inverse(linear_weights(on_new, len(positions)))
    return operator.astype(np.float32)


def back_operator(positions: np.ndarray, count: int) -> tuple[np.ndarray, slice]:
    """The way back of `axis_operator`: matrix [covered, len(positions)], float32, and which old samples it gives."""
    low, high = covered_range(positions, count)
    if _step(positions) <= 1:
        operator = least_squares_inverse(linear_weights(positions - low, high - low))
    else:
        on_new = (np.arange(low, high) - positions[0]) / _signed_step(positions)
        operator = linear_weights(on_new, len(positions))
    return operator.astype(np.float32), slice(low, high)


def covered_range(positions: np.ndarray, count: int) -> tuple[int, int]:
    """First and one past the last of `count` samples whose centres lie inside the voxels at `positions`."""
    reach = _step(positions) / 2 + 1e-6
    low = max(int(np.ceil(positions.min() - reach)), 0)
    high = min(int(np.floor(positions.max() + reach)) + 1, count)
    return low, high


def linear_weights(positions: np.ndarray, count: int) -> np.ndarray:
    """Matrix [len(positions), count] of linear interpolation; constant beyond the first and the last sample."""
    inside = np.clip(positions, 0, count - 1)
    left = np.minimum(np.floor(inside).astype(int), max(count - 2, 0))
    fraction = inside - left
    rows = np.arange(len(positions))
    weights = np.zeros((len(positions), count))
    weights[rows, left] = 1 - fraction
    weights[rows, np.minimum(left + 1, count - 1)] += fraction
    return weights


def least_squares_inverse(interpolation: np.ndarray) -> np.ndarray:
    """For L [fine, coarse]: (L'L + SMOOTHNESS D'D)^-1 L' [coarse, fine], D second differences on the coarse grid."""
    coarse = interpolation.shape[1]
    gram = interpolation.T @ interpolation
    if coarse > 2:
        bend = np.diff(np.eye(coarse), n=2, axis=0)
        gram += SMOOTHNESS * (bend.T @ bend)
    return solve(gram, interpolation.T, assume_a="pos")


def apply_separable(data: np.ndarray, operators: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
    """float32 [a, b, c] -> [a', b', c']: one matrix [new, old] per axis, those that shrink most first."""
    for axis in sorted(range(3), key=lambda a: operators[a].shape[0] / operators[a].shape[1]):
        data = _apply(data, operators[axis], axis)
    return data


def _apply(data: np.ndarray, operator: np.ndarray, axis: int) -> np.ndarray:
    if operator.shape[0] == operator.shape[1] and np.array_equal(operator, np.eye(len(operator))):
        return data
    if axis == 0:
        return (operator @ data.reshape(len(data), -1)).reshape(-1, *data.shape[1:])
    return operator @ data if axis == 1 else data @ operator.T


def _signed_step(positions: np.ndarray) -> float:
    return float(positions[-1] - positions[0]) / (len(positions) - 1) if len(positions) > 1 else 1.0


def _step(positions: np.ndarray) -> float:
    return abs(_signed_step(positions))
