"""Samplers on data whose denoiser is known in closed form: independent normal voxels."""

import numpy as np
import pytest
import torch

from guided_diffusion import samplers
from guided_diffusion.config import DiffusionConfig
from guided_diffusion.gaussian_diffusion import GaussianDiffusion

MEAN, STD = 0.2, 0.1
# Voxels of one image, so that no error can vanish in all of them at once.
MEANS = torch.tensor([0.0, 0.1, 0.2, 0.4, 0.8], dtype=torch.float64)
STDS = torch.tensor([0.02, 0.05, 0.1, 0.2, 0.4], dtype=torch.float64)
# So many timesteps that those of a walk lie where they are wanted: 1000 are too coarse at the noiseless end.
FINE = 100_000


def predictor(
    respacing: str = "", predict_xstart: bool = True, *, mean=MEAN, std=STD, timesteps: int = 1000
) -> samplers.Predictor:
    """The exact denoiser E[x_0 | x_t] of N(mean, std^2), or the noise that it implies."""
    config = DiffusionConfig(diffusion_steps=timesteps, predict_xstart=predict_xstart, timestep_respacing=respacing)
    full = torch.from_numpy(GaussianDiffusion(DiffusionConfig(diffusion_steps=timesteps)).alphas_cumprod)

    def model(x, t):
        alpha = full[t].to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))
        gain = std**2 * alpha.sqrt() / (alpha * std**2 + 1 - alpha)
        x_start = mean + gain * (x - alpha.sqrt() * mean)
        return x_start if predict_xstart else (x - alpha.sqrt() * x_start) / (1 - alpha).sqrt()

    return samplers.Predictor(GaussianDiffusion(config), model, {}, clip_denoised=False)


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


@pytest.mark.parametrize("walk", samplers.SAMPLERS.values(), ids=samplers.SAMPLERS)
def test_every_network_call_is_reported(walk):
    calls = []
    start = torch.zeros(1, 1, 1, 2, 2)
    walk(predictor("7"), start, noise_at=samplers.global_noise(start), after_step=lambda x: calls.append(1) or x)
    assert len(calls) == 7


def error_of(
    sampler: str, respacing: str, *, timesteps: int = 1000, last_step: bool = True, unit: float | torch.Tensor = STDS
) -> float:
    """How far mean and standard deviation are off after a walk, in a unit that is the voxel's own standard deviation if
    not given: root mean square over voxels of the two together.

    Exact, without sampling, since every step is linear in x and in its noise: the first of a batch of walks starts at
    the mean and gets no noise, each other one gets one source of noise, of one standard deviation, and the squares of
    what remains of them add up to the variance. last_step: or before it, which leaps to sigma = 0 at once.
    """
    predict = predictor(respacing, mean=MEANS, std=STDS, timesteps=timesteps)
    alpha_bar = predict.diffusion.alphas_cumprod
    start = torch.zeros(predict.diffusion.num_timesteps + 2, 1, 1, 1, len(MEANS), dtype=torch.float64)
    start += alpha_bar[-1] ** 0.5 * MEANS
    start[1] += (alpha_bar[-1] * STDS**2 + 1 - alpha_bar[-1]) ** 0.5

    def noise_at(step):
        noise = torch.zeros_like(start)
        noise[2 + step] = 1.0
        return noise

    walked = []
    samplers.SAMPLERS[sampler](predict, start, noise_at=noise_at, after_step=lambda x: walked.append(x) or x)
    result = walked[-1 if last_step else -2][:, 0, 0, 0]
    mean, std = result[0], (result[1:] - result[0]).square().sum(dim=0).sqrt()
    alpha = 1.0 if last_step else alpha_bar[0]
    off = torch.stack([mean - alpha**0.5 * MEANS, std - (alpha * STDS**2 + 1 - alpha) ** 0.5]) / unit
    return float(off.square().sum(dim=0).mean().sqrt())


@pytest.mark.parametrize("respacing", ["{}", "logsnr{}"])
@pytest.mark.parametrize("sampler", samplers.SAMPLERS)
def test_errors_only_fall_as_steps_grow(sampler, respacing):
    """Whether steps are even in time, as published, or in log-SNR."""
    errors = [error_of(sampler, respacing.format(steps)) for steps in (5, 7, 10, 14, 20, 30, 50, 70, 100)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.35 * errors[0]


@pytest.mark.parametrize("sampler", samplers.SAMPLERS)
def test_no_sampler_overshoots_where_steps_grow_towards_the_end(sampler):
    """In one unit for all voxels, in which the wide distributions count most. Algorithm 2 to the letter fails here."""
    errors = [error_of(sampler, str(steps), unit=1.0) for steps in (5, 7, 10, 14, 20, 30, 50)]
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize(("sampler", "order"), [("ddpm", 1), ("ddim", 1), ("dpmpp_2m", 2), ("dpmpp_2m_sde", 2)])
def test_order_of_convergence(sampler, order):
    """For steps even in log-SNR, before the last: that one goes all the way to sigma = 0, whatever their number."""
    steps = np.array([20, 40, 80, 160])
    errors = [error_of(sampler, f"logsnr{count}", timesteps=FINE, last_step=False) for count in steps]
    slope, _ = np.polyfit(np.log(steps), np.log(errors), 1)
    assert -slope == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize(
    ("sampler", "tolerance"), [("ddpm", 0.02), ("ddim", 0.012), ("dpmpp_2m", 0.001), ("dpmpp_2m_sde", 0.001)]
)
def test_many_steps_give_the_exact_distribution(sampler, tolerance):
    assert error_of(sampler, "logsnr320", timesteps=FINE) < tolerance


@pytest.mark.parametrize("steps", [10, 20])
@pytest.mark.parametrize("sampler", samplers.SAMPLERS)
def test_few_steps_are_better_spent_evenly_in_log_snr(sampler, steps):
    assert error_of(sampler, f"logsnr{steps}") < 0.5 * error_of(sampler, str(steps))


@pytest.mark.parametrize("sampler", samplers.SAMPLERS)
def test_a_single_step_is_the_prediction(sampler):
    """From any start; a float64 image and exact coefficients, so to the last digits."""
    predict = predictor("logsnr1")
    start = torch.linspace(-2, 2, 9, dtype=torch.float64).reshape(1, 1, 1, 1, 9)
    result = samplers.SAMPLERS[sampler](predict, start, noise_at=samplers.global_noise(start))
    torch.testing.assert_close(result, predict(start, 0)["pred_xstart"], rtol=1e-6, atol=0)


@pytest.mark.parametrize("sampler", samplers.SAMPLERS)
def test_the_last_step_is_a_clipped_prediction(sampler):
    """Where the solver extrapolates and noise is added, results still lie within the range of images."""
    diffusion = GaussianDiffusion(DiffusionConfig(predict_xstart=True, timestep_respacing="6"))
    predict = samplers.Predictor(diffusion, lambda x, t: x + 0.002 * t.reshape(-1, 1, 1, 1), {}, clip_denoised=True)
    start = 3 * torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    result = samplers.SAMPLERS[sampler](predict, start, noise_at=lambda _: torch.ones_like(start))
    assert result.abs().max() <= 1
    assert (result == 1).any()


def test_deterministic_walks_ask_for_no_noise():
    def refuse(step):
        raise AssertionError(f"noise of step {step} was drawn")

    for sampler in ("ddim", "dpmpp_2m"):
        samplers.SAMPLERS[sampler](predictor("5"), torch.zeros(1, 1, 1, 2, 2), noise_at=refuse)


def test_the_low_dose_start_is_the_noised_low_dose_image():
    """At the nearest kept timestep at or below the one that is asked for: 10 of 1000 are 0, 111, ..., 444, ..., 999."""
    diffusion = GaussianDiffusion(DiffusionConfig(timestep_respacing="10"), start_step=450)
    low_dose, noise = torch.tensor([0.0, 0.3, 0.3, 1.0]).reshape(1, 1, 1, 4), torch.tensor([1.0, 0.0, -2.0, 0.5])
    signal = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))[444]
    start = samplers.STARTS["low_dose"](diffusion, noise.reshape(1, 1, 1, 4), low_dose)
    torch.testing.assert_close(start, signal**0.5 * low_dose + (1 - signal) ** 0.5 * noise)
    assert diffusion.num_timesteps == 5
    assert samplers.STARTS["noise"](diffusion, noise, low_dose) is noise


@pytest.mark.parametrize("sampler", ["ddpm", "ddim"])
@pytest.mark.parametrize("respacing", ["", "20"])
def test_a_walk_from_an_intermediate_step_is_the_rest_of_the_whole_one(sampler, respacing):
    whole = predictor(respacing)
    config = DiffusionConfig(predict_xstart=True, timestep_respacing=respacing)
    rest = samplers.Predictor(GaussianDiffusion(config, start_step=300), whole.model, {}, clip_denoised=False)
    start, passed = torch.randn(1, 1, 1, 4, 4), []

    def noise_at(step):
        return torch.randn(start.shape, generator=torch.Generator().manual_seed(step))

    walk = samplers.SAMPLERS[sampler]
    expected = walk(whole, start, noise_at=noise_at, after_step=lambda x: passed.append(x) or x)
    begin = passed[-rest.diffusion.num_timesteps - 1]
    torch.testing.assert_close(walk(rest, begin, noise_at=noise_at), expected, rtol=0, atol=0)
