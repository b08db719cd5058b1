"""Ways to walk the diffusion process back from noise to an image.

A sampler is a function of (predictor, start, noise source, callback). The noise source is asked for the standard
normal noise of a step by number; `START` names the noise that the walk starts from. The callback is given x after
every step, and the walk goes on from what it returns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from tqdm import tqdm

if TYPE_CHECKING:
    from guided_diffusion.gaussian_diffusion import GaussianDiffusion

START = -1  # the step number of the noise that a walk starts from

NoiseSource = Callable[[int], Tensor]
AfterStep = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Predictor:
    """A network's view of a process: what x at a step says about the step before and about x_0."""

    diffusion: GaussianDiffusion
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


def bar(diffusion: GaussianDiffusion, show: bool) -> AfterStep:
    """A callback that moves a progress bar, or does nothing."""
    if not show:
        return _keep
    progress = tqdm(total=diffusion.num_timesteps)

    def move(x: Tensor) -> Tensor:
        progress.update()
        return x

    return move


def ddpm(predict: Predictor, x: Tensor, *, noise_at: NoiseSource, after_step: AfterStep = _keep) -> Tensor:
    """Ancestral sampling (DDPM algorithm 2). x: the start, pure noise; returns x_0 of the same shape."""
    for step in predict.steps():
        out = predict(x, step)
        # The noise of the last step is drawn, though it has no weight, to follow the published order of draws.
        noise = noise_at(step)
        x = out["mean"] if step == 0 else out["mean"] + torch.exp(0.5 * out["log_variance"]) * noise
        x = after_step(x)
    return x


def ddim(
    predict: Predictor, x: Tensor, *, noise_at: NoiseSource, eta: float = 0.0, after_step: AfterStep = _keep
) -> Tensor:
    """Song et al., Denoising Diffusion Implicit Models (2021), eq. 12 and 16.

    eta scales the fresh noise of each step: 0 is deterministic, 1 is like ancestral sampling.
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
