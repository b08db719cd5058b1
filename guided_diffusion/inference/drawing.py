"""Images drawn from a predicted distribution: a mean, and noise of a few correlation lengths about it.

Everything is drawn for the volume as a whole on one rank, from noise that is named by (seed, realisation, length, axial
slice): draws depend on nothing but the mean and the amplitudes.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from guided_diffusion.noise import axial_noise


@dataclass(frozen=True)
class Distribution:
    """Of a volume [X, Y, Z]: the mean, and the amplitudes [lengths, X, Y, Z] of noise of variance 1, which is white but
    for Gaussian `kernels`, float64 [taps] with squares that add up to 1.
    """

    mean: np.ndarray
    amplitudes: np.ndarray
    kernels: tuple[np.ndarray, ...]

    @property
    def deviation(self) -> np.ndarray:
        """Standard deviation of every voxel."""
        return np.sqrt(np.square(self.amplitudes).sum(axis=0))

    def draw(self, seed: int, realisation: int) -> np.ndarray:
        """An image, float32 [X, Y, Z]."""
        image = self.mean.copy()
        for number, amplitude in enumerate(self.amplitudes):
            image += amplitude * self.noise(number, seed, realisation)
        return image

    def noise(self, number: int, seed: int, realisation: int) -> np.ndarray:
        """Noise of variance 1 and the correlation of one of the kernels, float32 [X, Y, Z]."""
        weights = self.kernels[number]
        reach = len(weights) // 2
        x, y, length = self.mean.shape
        slices = range(length + 2 * reach)
        noise = axial_noise(seed, realisation, number, slices, (x + 2 * reach, y + 2 * reach))[0, 0].numpy()
        for axis in range(3):
            noise = ndimage.convolve1d(noise, weights, axis=axis, mode="constant") if reach else noise
        inside = tuple(slice(reach, size - reach) for size in noise.shape)
        return np.ascontiguousarray(noise[inside].transpose(1, 2, 0))
