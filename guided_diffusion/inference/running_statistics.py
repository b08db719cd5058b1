"""Mean and standard deviation of arrays that arrive one after another and are not kept.

Welford, Note on a method for calculating corrected sums of squares and products, Technometrics 4 (1962) 419.
"""

import numpy as np


class RunningStatistics:
    """Voxelwise mean and standard deviation, float32, in the memory of two arrays for any number of arrays.

    Because of rounding, the last bits depend on the order in which arrays are added.
    """

    def __init__(self) -> None:
        self.count = 0
        self._mean: np.ndarray | None = None
        self._squares: np.ndarray | None = None  # sum of squared deviations from the mean

    def add(self, values: np.ndarray) -> None:
        """Add an array; all have the same shape."""
        self.count += 1
        if self.count == 1:
            self._mean = values.astype(np.float32)
            return
        if self.count == 2:
            self._squares = np.zeros_like(self._mean)
        deviation = values - self._mean
        self._mean += deviation / np.float32(self.count)
        self._squares += deviation * (values - self._mean)

    @property
    def mean(self) -> np.ndarray:
        """Mean of the arrays added, at least one."""
        return self._mean

    @property
    def standard_deviation(self) -> np.ndarray | None:
        """Sample standard deviation (n - 1 in the denominator); None for fewer than two arrays."""
        return None if self.count < 2 else np.sqrt(self._squares / np.float32(self.count - 1))
