"""Samplers on data whose denoiser is known in closed form: independent normal voxels."""

import pytest
import torch

from guided_diffusion import samplers
from guided_diffusion.config import DiffusionConfig
from guided_diffusion.gaussian_diffusion import GaussianDiffusion

MEAN, STD = 0.2, 0.1


def predictor(respacing: str = "", predict_xstart: bool = True) -> samplers.Predictor:
    """The exact denoiser E[x_0 | x_t] of N(MEAN, STD^2), or the noise that it implies."""
    diffusion = GaussianDiffusion(DiffusionConfig(predict_xstart=predict_xstart, timestep_respacing=respacing))
    full = GaussianDiffusion(DiffusionConfig())

    def model(x, t):
        alpha = torch.from_numpy(full.alphas_cumprod)[t].float().reshape(-1, *[1] * (x.ndim - 1))
        gain = STD**2 * alpha.sqrt() / (alpha * STD**2 + 1 - alpha)
        x_start = MEAN + gain * (x - alpha.sqrt() * MEAN)
        return x_start if predict_xstart else (x - alpha.sqrt() * x_start) / (1 - alpha).sqrt()

    return samplers.Predictor(diffusion, model, {}, clip_denoised=False)


def exact_std(respacing: str, kept_of, fresh_of) -> float:
    """Standard deviation after a walk with the exact denoiser, by recursion, since every step is linear in x:
    x_{t-1} = sqrt(alpha_prev) x_0 + sqrt(1 - alpha_prev - kept^2) eps + fresh z.

    kept_of(diffusion, step), fresh_of(diffusion, step): the two standard deviations of a step.
    """
    diffusion = GaussianDiffusion(DiffusionConfig(timestep_respacing=respacing))
    variance = 1.0
    for step in reversed(range(diffusion.num_timesteps)):
        alpha, alpha_prev = diffusion.alphas_cumprod[step], diffusion.alphas_cumprod_prev[step]
        kept, fresh = kept_of(diffusion, step), fresh_of(diffusion, step) if step else 0.0
        gain = STD**2 * alpha**0.5 / (alpha * STD**2 + 1 - alpha)
        direction = (1 - alpha_prev - kept**2) ** 0.5 / (1 - alpha) ** 0.5
        slope = alpha_prev**0.5 * gain + direction * (1 - alpha**0.5 * gain)
        variance = slope**2 * variance + fresh**2
    return variance**0.5


def posterior_std(diffusion, step):
    return diffusion.posterior_variance[step] ** 0.5


@pytest.mark.parametrize("predict_xstart", [True, False])
def test_ddpm_samples_have_the_right_distribution(predict_xstart):
    torch.manual_seed(0)
    start = torch.randn(1, 1, 1, 128, 128)
    samples = samplers.ddpm(predictor("", predict_xstart), start, noise_at=samplers.global_noise(start))
    expected = exact_std("", posterior_std, lambda diffusion, step: diffusion.fixed_variance[step] ** 0.5)
    assert expected == pytest.approx(STD, rel=0.1)
    assert float(samples.std()) == pytest.approx(expected, rel=0.025)
    assert float(samples.mean()) == pytest.approx(MEAN, abs=5 * STD / 128)


def test_ddim_converges_on_the_exact_flow_as_steps_grow():
    """The deterministic map of N(0, 1) to N(MEAN, STD^2) is linear: x_0 = MEAN + STD * x_T, up to the last alpha."""
    start = torch.linspace(-3, 3, 101).reshape(1, 1, 101, 1)
    full = GaussianDiffusion(DiffusionConfig())
    alpha = full.alphas_cumprod[-1]
    exact = MEAN + STD * (start - alpha**0.5 * MEAN) / (alpha * STD**2 + 1 - alpha) ** 0.5
    errors = []
    for respacing in ("10", "20", "50", "100", "250", "1000"):
        result = samplers.ddim(predictor(respacing), start, noise_at=samplers.global_noise(start))
        errors.append(float((result - exact).abs().max()))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.02 * 3 * STD
    assert errors[0] > 5 * errors[-1]


@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_ddim_with_fresh_noise_has_the_variance_that_eta_asks_for(eta):
    """Song et al. (2021), eq. 16: eta scales the standard deviation of the posterior."""
    torch.manual_seed(1)
    start = torch.randn(1, 1, 1, 128, 128)
    samples = samplers.ddim(predictor("50"), start, noise_at=samplers.global_noise(start), eta=eta)

    def sigma(diffusion, step):
        return eta * posterior_std(diffusion, step)

    assert float(samples.std()) == pytest.approx(exact_std("50", sigma, sigma), rel=0.02)
    assert float(samples.mean()) == pytest.approx(MEAN, abs=5 * STD / 128)


def test_ddim_without_fresh_noise_asks_for_none():
    def refuse(step):
        raise AssertionError(f"noise of step {step} was drawn")

    samplers.ddim(predictor("5"), torch.zeros(1, 1, 1, 2, 2), noise_at=refuse)


def test_every_network_call_is_reported():
    calls = []
    start = torch.zeros(1, 1, 1, 2, 2)
    for walk in (samplers.ddpm, samplers.ddim):
        walk(predictor("7"), start, noise_at=samplers.global_noise(start), after_step=lambda x: calls.append(1) or x)
    assert len(calls) == 14
