"""The forward diffusion process, its posterior, and the training losses.

Notation of Ho et al., Denoising Diffusion Probabilistic Models (2020), "DDPM", and Nichol and Dhariwal, Improved
Denoising Diffusion Probabilistic Models (2021), "IDDPM". Tables are float64; values gathered from them are float32.
Images are normalised tensors [N, 1, (Z,) X, Y]; t is int64 [N] and numbers the steps of this process, 0 being the least
noisy.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from guided_diffusion import samplers
from guided_diffusion.config import DiffusionConfig
from guided_diffusion.errors import InputError
from guided_diffusion.losses import discretised_gaussian_log_likelihood, normal_kl
from guided_diffusion.respace import kept_timesteps, spaced_betas

# The step count at which the published learning weights and beta range were chosen.
REFERENCE_STEPS = 1000


def beta_schedule(name: str, steps: int) -> np.ndarray:
    """Betas, float64 [steps].

    "linear": 1e-4 to 0.02, scaled so that other step counts end equally noisy (DDPM section 4).
    "cosine": IDDPM eq. 17 with offset 0.008 and betas of at most 0.999.
    """
    if name == "linear":
        scale = REFERENCE_STEPS / steps
        return np.linspace(scale * 1e-4, scale * 0.02, steps, dtype=np.float64)
    if name == "cosine":
        edges = np.arange(steps + 1, dtype=np.float64) / steps
        alpha_bar = np.cos((edges + 0.008) / 1.008 * math.pi / 2) ** 2
        return np.minimum(1.0 - alpha_bar[1:] / alpha_bar[:-1], 0.999)
    raise InputError(f"--noise_schedule {name!r} is unknown: choose linear or cosine")


def gather(table: np.ndarray, t: Tensor, like: Tensor) -> Tensor:
    """table[t] as float32 on the device of `t`, shaped to broadcast with `like`."""
    values = torch.from_numpy(table).to(t.device, non_blocking=True)[t].float()
    return values.reshape(-1, *[1] * (like.ndim - 1))


def mean_flat(x: Tensor) -> Tensor:
    """Mean over all but the batch axis: [N]."""
    return x.flatten(1).mean(dim=1)


class GaussianDiffusion:
    """A diffusion process over some or all timesteps of a schedule, and what the network predicts of it.

    start_step: the original timestep at which walks start, if not at the last; the process then ends there, at the
    nearest timestep that it keeps.
    """

    def __init__(self, config: DiffusionConfig, start_step: int | None = None):
        full_betas = beta_schedule(config.noise_schedule, config.diffusion_steps)
        if not ((full_betas > 0) & (full_betas < 1)).all():
            raise InputError(
                f"--diffusion_steps {config.diffusion_steps}: too few for the {config.noise_schedule} schedule, whose"
                f" betas reach {full_betas.max():.3g}; use --timestep_respacing for fewer steps of a longer process"
            )
        full_products = np.cumprod(1.0 - full_betas)
        kept = kept_timesteps(full_products, config.timestep_respacing, start_step)
        self.config = config
        self.original_timesteps = np.array(kept)
        self.betas = spaced_betas(full_products, kept) if config.timestep_respacing else full_betas[: len(kept)]
        self.num_timesteps = len(self.betas)

        self.alphas_cumprod = np.cumprod(1.0 - self.betas)
        self.alphas_cumprod_prev = np.append(1.0, self.alphas_cumprod[:-1])
        # q(x_{t-1} | x_t, x_0), DDPM eq. 6 and 7. Its variance is 0 at the first step, where the logarithm takes the
        # second's (the last one's, if there is but one step).
        self.posterior_variance = self.betas * (1.0 - self.alphas_cumprod_prev) / (1.0 - self.alphas_cumprod)
        first_positive = self.posterior_variance[1] if self.num_timesteps > 1 else self.betas[0]
        clipped_variance = np.append(first_positive, self.posterior_variance[1:])
        self.posterior_log_variance_clipped = np.log(clipped_variance)
        self.posterior_mean_coef1 = self.betas * np.sqrt(self.alphas_cumprod_prev) / (1.0 - self.alphas_cumprod)
        self.posterior_mean_coef2 = (
            (1.0 - self.alphas_cumprod_prev) * np.sqrt(1.0 - self.betas) / (1.0 - self.alphas_cumprod)
        )
        self.fixed_variance = np.append(first_positive, self.betas[1:])

    def model_timesteps(self, t: Tensor) -> Tensor:
        """Timesteps as the network gets them: those of the original process, mapped to 0..1000 if so configured."""
        original = torch.from_numpy(self.original_timesteps).to(t.device, non_blocking=True)[t]
        if self.config.rescale_timesteps:
            return original.float() * (REFERENCE_STEPS / self.config.diffusion_steps)
        return original

    def q_sample(self, x_start: Tensor, t: Tensor, noise: Tensor | None = None) -> Tensor:
        """x_t for given x_0 and noise, fresh noise if none is given (DDPM eq. 4)."""
        noise = torch.randn_like(x_start) if noise is None else noise
        signal = gather(np.sqrt(self.alphas_cumprod), t, x_start)
        return signal * x_start + gather(np.sqrt(1.0 - self.alphas_cumprod), t, x_start) * noise

    def q_posterior_mean_variance(self, x_start: Tensor, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean, variance and clipped log variance of q(x_{t-1} | x_t, x_0), DDPM eq. 6 and 7."""
        mean = gather(self.posterior_mean_coef1, t, x_t) * x_start + gather(self.posterior_mean_coef2, t, x_t) * x_t
        return (
            mean,
            gather(self.posterior_variance, t, x_t),
            gather(self.posterior_log_variance_clipped, t, x_t),
        )

    def predict_xstart_from_eps(self, x_t: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """x_0 that x_t and its noise imply."""
        scale = gather(np.sqrt(1.0 / self.alphas_cumprod), t, x_t)
        return scale * x_t - gather(np.sqrt(1.0 / self.alphas_cumprod - 1.0), t, x_t) * eps

    def predict_eps_from_xstart(self, x_t: Tensor, t: Tensor, x_start: Tensor) -> Tensor:
        """The noise that x_t and x_0 imply."""
        scale = gather(np.sqrt(1.0 / self.alphas_cumprod), t, x_t)
        return (scale * x_t - x_start) / gather(np.sqrt(1.0 / self.alphas_cumprod - 1.0), t, x_t)

    def p_mean_variance(
        self,
        model: Callable[..., Tensor],
        x: Tensor,
        t: Tensor,
        clip_denoised: bool = True,
        model_kwargs: dict[str, Any] | None = None,
    ) -> dict[str, Tensor]:
        """p(x_{t-1} | x_t) as the network estimates it: "mean", "variance", "log_variance" and "pred_xstart"."""
        output = model(x, self.model_timesteps(t), **(model_kwargs or {}))
        return self._interpret(output, x, t, clip_denoised)

    def _interpret(self, output: Tensor, x: Tensor, t: Tensor, clip_denoised: bool) -> dict[str, Tensor]:
        """The distribution that a network's output [N, 1 or 2, ...] stands for."""
        if self.config.learn_sigma:
            output, fraction = output.chunk(2, dim=1)
            log_variance = self._interpolated_log_variance(fraction, x, t)
        else:
            log_variance = gather(np.log(self.fixed_variance), t, x).expand_as(x)
        pred_xstart = output if self.config.predict_xstart else self.predict_xstart_from_eps(x, t, output)
        if clip_denoised:
            pred_xstart = pred_xstart.clamp(-1, 1)
        mean, _, _ = self.q_posterior_mean_variance(pred_xstart, x, t)
        return {
            "mean": mean,
            "variance": log_variance.exp(),
            "log_variance": log_variance,
            "pred_xstart": pred_xstart,
        }

    def _interpolated_log_variance(self, fraction: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """Between the posterior's and beta's, in log space; -1..1 spans the range (IDDPM eq. 15)."""
        smallest = gather(self.posterior_log_variance_clipped, t, x)
        largest = gather(np.log(self.betas), t, x)
        weight = (fraction + 1) / 2
        return weight * largest + (1 - weight) * smallest

    def training_losses(
        self,
        model: Callable[..., Tensor],
        x_start: Tensor,
        t: Tensor,
        model_kwargs: dict[str, Any] | None = None,
        noise: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Loss per batch element, each [N]: "loss", and the terms "mse" and "vb" it is made of."""
        noise = torch.randn_like(x_start) if noise is None else noise
        x_t = self.q_sample(x_start, t, noise)
        output = model(x_t, self.model_timesteps(t), **(model_kwargs or {}))
        if self.config.use_kl:
            bound = self._variational_bound(output, x_start, x_t, t)
            return {"loss": (bound * self.num_timesteps).to(x_start.dtype)}

        target = x_start if self.config.predict_xstart else noise
        terms = {"mse": mean_flat((target - output[:, : x_start.shape[1]]).square())}
        terms["loss"] = terms["mse"]
        if self.config.learn_sigma:
            # The bound trains the variance only: it must not move the mean (IDDPM section 3.1).
            mean, fraction = output.chunk(2, dim=1)
            bound = self._variational_bound(torch.cat([mean.detach(), fraction], dim=1), x_start, x_t, t)
            if self.config.rescale_learned_sigmas:
                bound = bound * (self.num_timesteps / REFERENCE_STEPS)
            terms["vb"] = bound.to(x_start.dtype)
            terms["loss"] = terms["mse"] + terms["vb"]
        return terms

    def _variational_bound(self, output: Tensor, x_start: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """One term of the bound in bits per voxel, [N]: the decoder's likelihood at t = 0, a divergence elsewhere.

        A mean in float64, so that its last digits do not depend on how a processor adds up float32.
        """
        predicted = self._interpret(output, x_t, t, clip_denoised=False)
        true_mean, _, true_log_variance = self.q_posterior_mean_variance(x_start, x_t, t)
        divergence = normal_kl(true_mean, true_log_variance, predicted["mean"], predicted["log_variance"])
        decoder = -discretised_gaussian_log_likelihood(x_start, predicted["mean"], 0.5 * predicted["log_variance"])
        return torch.where(t == 0, mean_flat(decoder.double()), mean_flat(divergence.double())) / math.log(2.0)

    def p_sample_loop(
        self,
        model: Callable[..., Tensor],
        shape: tuple[int, ...],
        noise: Tensor | None = None,
        clip_denoised: bool = True,
        model_kwargs: dict[str, Any] | None = None,
        device: torch.device | str | None = None,
        progress: bool = False,
    ) -> Tensor:
        """A sample by ancestral sampling, with noise from PyTorch's global generator. Returns `shape`, float32."""
        x = _start(model, shape, noise, device)
        predict = samplers.Predictor(self, model, model_kwargs or {}, clip_denoised)
        return samplers.ddpm(predict, x, noise_at=samplers.global_noise(x), after_step=samplers.bar(self, progress))

    def ddim_sample_loop(
        self,
        model: Callable[..., Tensor],
        shape: tuple[int, ...],
        noise: Tensor | None = None,
        clip_denoised: bool = True,
        model_kwargs: dict[str, Any] | None = None,
        device: torch.device | str | None = None,
        progress: bool = False,
        eta: float = 0.0,
    ) -> Tensor:
        """A sample by DDIM; eta = 0 is deterministic given the initial noise. Returns `shape`, float32."""
        x = _start(model, shape, noise, device)
        predict = samplers.Predictor(self, model, model_kwargs or {}, clip_denoised)
        noise_at = samplers.global_noise(x)
        return samplers.ddim(predict, x, noise_at=noise_at, eta=eta, after_step=samplers.bar(self, progress))


def _start(
    model: Callable[..., Tensor], shape: tuple[int, ...], noise: Tensor | None, device: torch.device | str | None
) -> Tensor:
    """The given noise or fresh noise, on the given device or the model's."""
    if noise is not None:
        return noise if device is None else noise.to(device)
    if device is None and isinstance(model, nn.Module):
        device = next(model.parameters()).device
    return torch.randn(*shape, device=device)
