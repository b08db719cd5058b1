"""Divergences and likelihoods of normal distributions, in nats per element, and weights of training examples."""

import math

import torch
from torch import Tensor

# Intensities are binned as 8-bit images scaled to [-1, 1], as in the published bound.
_HALF_BIN = 1.0 / 255.0
_SMALLEST = 1e-12
_LEAST_ERROR = 1e-7


def normal_kl(mean1: Tensor, logvar1: Tensor, mean2: Tensor, logvar2: Tensor) -> Tensor:
    """KL(N(mean1, exp logvar1) || N(mean2, exp logvar2)) for tensors of one shape."""
    return 0.5 * (
        logvar2 - logvar1 - 1.0 + torch.exp(logvar1 - logvar2) + (mean1 - mean2).square() * torch.exp(-logvar2)
    )


def _standard_normal_cdf(x: Tensor) -> Tensor:
    """The tanh approximation of the standard normal distribution function (Page, J. R. Stat. Soc. C 26, 1977)."""
    return 0.5 * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


def discretised_gaussian_log_likelihood(x: Tensor, means: Tensor, log_scales: Tensor) -> Tensor:
    """Log probability of the intensity bin that holds x; the outermost bins reach to infinity.

    x in [-1, 1]; log_scales is the logarithm of the standard deviation.
    Ho et al., Denoising Diffusion Probabilistic Models (2020), eq. 13.
    """
    centred = x - means
    precision = torch.exp(-log_scales)
    below_upper = _standard_normal_cdf(precision * (centred + _HALF_BIN))
    below_lower = _standard_normal_cdf(precision * (centred - _HALF_BIN))
    probability = torch.where(
        x < -0.999, below_upper, torch.where(x > 0.999, 1.0 - below_lower, below_upper - below_lower)
    )
    return torch.log(probability.clamp(min=_SMALLEST))


def _uniform(low_dose: Tensor, _normal_dose: Tensor) -> Tensor:
    """Weights [N] of 1."""
    return low_dose.new_ones(low_dose.shape[0])


def _balanced(low_dose: Tensor, normal_dose: Tensor) -> Tensor:
    """Weights [N]: one over the root mean squared error of the low dose, images normalised [N, 1, Z, X, Y].

    Noise variance is proportional to 1/dose, so an unweighted mean is dominated by the lowest dose, and one weighted by
    the inverse variance by the highest. This lies between. A mean squared error below 1e-7 counts as 1e-7.
    """
    return (low_dose - normal_dose).square().flatten(1).mean(dim=1).clamp(min=_LEAST_ERROR).rsqrt()


WEIGHTINGS = {"uniform": _uniform, "balanced": _balanced}
