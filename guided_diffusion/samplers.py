"""Samplers: ways to go back through the diffusion process from noise to an image.

A sampler is a function of (predictor, start, noise source, callback). The noise source returns the standard normal
noise of a step, given its number; `START` is the number of the noise that sampling starts from. The callback receives x
after every step, and sampling continues from what it returns. Every step costs one network call. `SAMPLERS` and
`STARTS` list the choices. Coefficients are computed in float64.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor
from tqdm import tqdm

from guided_diffusion.interfaces import NoisingProcess, Process
from guided_diffusion.respace import half_log_snr

START = -1  # the step number of the noise that a walk starts from

NoiseSource = Callable[[int], Tensor]
AfterStep = Callable[[Tensor], Tensor]
AnyProcess = TypeVar("AnyProcess", bound=Process)


@dataclass(frozen=True)
class Predictor(Generic[AnyProcess]):
    """A network's predictions in a process: the step before and x_0, from x at a step."""

    diffusion: AnyProcess
    model: Callable[..., Tensor]
    model_kwargs: dict[str, Any]
    clip_denoised: bool

    def steps(self) -> range:
        """The steps of the process, noisiest first."""
        return range(self.diffusion.num_timesteps - 1, -1, -1)

    @torch.no_grad()
    def __call__(self, x: Tensor, step: int) -> dict[str, Tensor]:
        t = torch.full((x.shape[0],), step, dtype=torch.int64, device=x.device)
        return self.diffusion.p_mean_variance(self.model, x, t, self.clip_denoised, self.model_kwargs)


def _keep(x: Tensor) -> Tensor:
    return x


def global_noise(like: Tensor) -> NoiseSource:
    """Noise of the shape and device of `like` from PyTorch's global generator, in the order of the calls."""
    return lambda _step: torch.randn_like(like)


def bar(diffusion: Process, show: bool) -> AfterStep:
    """A callback that moves a progress bar, or does nothing."""
    if not show:
        return _keep
    progress = tqdm(total=diffusion.num_timesteps)

    def move(x: Tensor) -> Tensor:
        progress.update()
        return x

    return move


def ddpm(predict: Predictor[Process], x: Tensor, *, noise_at: NoiseSource, after_step: AfterStep = _keep) -> Tensor:
    """Ancestral sampling (DDPM algorithm 2). x: the start; returns x_0 of the same shape.

    This is the only sampler here that uses the network's variance: a learned one compensates for long steps (IDDPM
    section 4), a fixed one is that of beta.
    """
    for step in predict.steps():
        out = predict(x, step)
        # The noise of the last step is drawn, though it has no weight, to follow the published order of draws.
        noise = noise_at(step)
        x = out["mean"] if step == 0 else out["mean"] + torch.exp(0.5 * out["log_variance"]) * noise
        x = after_step(x)
    return x


def ddim(
    predict: Predictor[NoisingProcess],
    x: Tensor,
    *,
    noise_at: NoiseSource,
    eta: float = 0.0,
    after_step: AfterStep = _keep,
) -> Tensor:
    """Song et al., Denoising Diffusion Implicit Models (2021), eq. 12 and 16.

    eta scales the fresh noise of each step: 0 is deterministic, 1 is like ancestral sampling. A learned variance is not
    used, since eta sets the variance of every step.
    """
    diffusion = predict.diffusion
    for step in predict.steps():
        t = torch.full((x.shape[0],), step, dtype=torch.int64, device=x.device)
        x_start = predict(x, step)["pred_xstart"]
        eps = diffusion.predict_eps_from_xstart(x, t, x_start)
        alpha = float(diffusion.alphas_cumprod[step])
        alpha_prev = float(diffusion.alphas_cumprod_prev[step])
        sigma = eta * ((1 - alpha_prev) / (1 - alpha)) ** 0.5 * (1 - alpha / alpha_prev) ** 0.5
        x = alpha_prev**0.5 * x_start + (1 - alpha_prev - sigma**2) ** 0.5 * eps
        if sigma > 0 and step > 0:
            x = x + sigma * noise_at(step)
        x = after_step(x)
    return x


def dpmpp_2m(
    predict: Predictor[NoisingProcess],
    x: Tensor,
    *,
    noise_at: NoiseSource,  # noqa: ARG001 the samplers have one signature
    after_step: AfterStep = _keep,
) -> Tensor:
    """DPM-Solver++(2M), the second-order multistep solver of the probability flow.

    Lu et al., DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models, 2022, algorithm 2. It is
    deterministic: no noise is drawn, and a learned variance does not enter the flow.
    """

    def advance(step: int, h: float, x: Tensor, estimate: Tensor) -> Tensor:
        alpha, sigma = _signal_and_noise(predict.diffusion, step - 1)
        _, sigma_before = _signal_and_noise(predict.diffusion, step)
        return sigma / sigma_before * x - alpha * math.expm1(-h) * estimate

    return _two_step(predict, x, advance, after_step)


def dpmpp_2m_sde(
    predict: Predictor[NoisingProcess], x: Tensor, *, noise_at: NoiseSource, after_step: AfterStep = _keep
) -> Tensor:
    """SDE-DPM-Solver++(2M), the same for the reverse-time stochastic equation (Lu et al. 2022, on diffusion SDEs).

    With constant x_0 the equation is solved exactly by drawing from q(x_{t-1} | x_t, x_0), DDPM eq. 6 and 7; the second
    order puts an extrapolated x_0 there. The variance is that posterior's, and a learned one is not used: IDDPM eq. 15
    learns it for a mean that is not extrapolated.
    """

    def advance(step: int, h: float, x: Tensor, estimate: Tensor) -> Tensor:
        alpha, sigma = _signal_and_noise(predict.diffusion, step - 1)
        _, sigma_before = _signal_and_noise(predict.diffusion, step)
        renewed = -math.expm1(-2 * h)
        mean = sigma / sigma_before * math.exp(-h) * x + alpha * renewed * estimate
        return mean + sigma * math.sqrt(renewed) * noise_at(step)

    return _two_step(predict, x, advance, after_step)


def _two_step(
    predict: Predictor[NoisingProcess],
    x: Tensor,
    advance: Callable[[int, float, Tensor, Tensor], Tensor],
    after_step: AfterStep,
) -> Tensor:
    """Take all steps with x_0 extrapolated to the middle of each, from its predictions at this and the previous step.

    Lengths and middles are in lambda = log(alpha / sigma), over which x_0 is integrated (proposition 4.1).
    advance(step, h, x, estimate) returns x after a step of length h > 0 in lambda with that estimate of x_0. The first
    step has no previous prediction. The last one, to sigma = 0, is infinitely long: extrapolation is impossible, and
    either equation gives x_0 as predicted. Predictions are clipped, if at all, before extrapolation.

    Lu et al. extrapolate by h / 2 regardless of the length of the previous step. Steps evenly spaced in time grow by
    large factors towards the noiseless end, where that overshoots: on Gaussians, the error of the stochastic sampler
    doubles from 5 steps to 14. Here the extrapolation is limited to half of the previous step, which changes nothing
    for steps evenly spaced in lambda and keeps the order of convergence wherever step lengths change slowly.
    """
    lambdas = half_log_snr(predict.diffusion.alphas_cumprod)
    last, h_last = None, math.inf
    for step in predict.steps():
        x_start = predict(x, step)["pred_xstart"]
        if step == 0:
            x = x_start
        else:
            h = float(lambdas[step - 1] - lambdas[step])
            estimate = x_start if last is None else x_start + 0.5 * min(h / h_last, 1.0) * (x_start - last)
            x = advance(step, h, x, estimate)
            last, h_last = x_start, h
        x = after_step(x)
    return x


def _signal_and_noise(diffusion: NoisingProcess, step: int) -> tuple[float, float]:
    """alpha and sigma of x_t = alpha x_0 + sigma eps, in the notation of Lu et al."""
    alpha_bar = float(diffusion.alphas_cumprod[step])
    return math.sqrt(alpha_bar), math.sqrt(1.0 - alpha_bar)


SAMPLERS: dict[str, Callable[..., Tensor]] = {
    "ddpm": ddpm,
    "ddim": ddim,
    "dpmpp_2m": dpmpp_2m,
    "dpmpp_2m_sde": dpmpp_2m_sde,
}


def _pure_noise(_diffusion: Process, noise: Tensor, _low_dose: Tensor) -> Tensor:
    """The noise in which the process ends when it runs through all its timesteps."""
    return noise


def _noised_low_dose(diffusion: NoisingProcess, noise: Tensor, low_dose: Tensor) -> Tensor:
    """The low-dose image as the process's noisiest step would make it, were it the image: what it has in common with
    the normal-dose image need not be found again (SDEdit; Meng et al. 2022)."""
    t = torch.full((low_dose.shape[0],), diffusion.num_timesteps - 1, dtype=torch.int64, device=low_dose.device)
    return diffusion.q_sample(low_dose, t, noise)


STARTS: dict[str, Callable[[NoisingProcess, Tensor, Tensor], Tensor]] = {
    "noise": _pure_noise,
    "low_dose": _noised_low_dose,
}
"""Starts of sampling, from (process, noise, low-dose image), tensors [N, 1, (Z,) X, Y], normalised."""
