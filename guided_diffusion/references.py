"""Which image is estimated from a scan: the noise-free one, or one of another dose, which follows from it.

A scan with the share p of a reference's counts is the noise-free image plus noise e. Of that reference

    reference = p scan + (1 - p) noise-free image + fresh noise

and the fresh noise, of variance p (1 - p) in units of e's, has nothing to do with the scan: thinned Poisson counts and
those that were left out are independent (Kingman, Poisson Processes, 1993, section 5.1), and images are nearly linear
in the counts. p = 0 stands for the noise-free image itself. So a network that estimates the noise-free image estimates
references of every dose.
"""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from torch import Tensor

Values = TypeVar("Values", np.ndarray, Tensor)


def expected(noise_free: Values, scan: Values, share: float | Tensor) -> Values:
    """The reference without its fresh noise, of the noise-free image and a scan with this share of its counts."""
    return share * scan + (1 - share) * noise_free


def fresh_variance(dose: Values | float) -> Values | float:
    """Variance of the fresh noise in units of the scan's, of which the reference has the `dose`."""
    return dose * (1 - dose)


@dataclass(frozen=True)
class Reference:
    """The image that is estimated, per batch element [N]: the share of its counts that the scan has, and the share of
    its noise that was not taken from it (1: it is an image as acquired; 0: it is free of noise).
    """

    dose: Tensor
    noise: Tensor

    @classmethod
    def of_pairs(cls, described: Tensor) -> "Reference":
        """Those that pairs describe by both numbers, [N, 2]; one of unknown dose (NaN) is taken for noise-free."""
        dose, noise = described.unbind(dim=1)
        return cls(dose.nan_to_num(), noise)

    @property
    def of_scan(self) -> Tensor:
        """Weight of the scan in the reference's mean, [N, 1, 1, 1, 1]."""
        return (self.noise * self.dose).view(-1, 1, 1, 1, 1)

    @property
    def fresh(self) -> Tensor:
        """Variance of its fresh noise in units of the scan's, [N, 1, 1, 1, 1]."""
        return (self.noise.square() * fresh_variance(self.dose)).view(-1, 1, 1, 1, 1)

    def expected(self, noise_free: Tensor, scan: Tensor) -> Tensor:
        """The reference without its fresh noise, of the noise-free image and the scan, all [N, 1, Z, X, Y]."""
        return expected(noise_free, scan, self.of_scan)
