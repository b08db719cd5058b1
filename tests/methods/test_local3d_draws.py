"""A network that draws of noise: its score, what draws depend on, what follows for doses, its training."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import avg_pool3d

from evaluation.measures.ensembles import fair_crps
from guided_diffusion.config import DiffusionConfig
from guided_diffusion.interfaces import Examples
from guided_diffusion.local_draws import FIELDS, LEAST_RESIDUAL, LocalDraws, patterns, predictive_draws
from guided_diffusion.local_unet import local_scale, sub_images
from guided_diffusion.methods import local3d_draws
from guided_diffusion.methods.local3d_draws import FAIRNESS, METHOD, almost_fair_crps, draws_losses
from guided_diffusion.references import Reference
from tests.methods.drawing import MODEL, network


def scan(*size: int, seed: int = 1) -> torch.Tensor:
    return (1 + 0.3 * torch.randn(1, 1, *size, generator=torch.Generator().manual_seed(seed))) / 16


def test_the_score_mixes_the_fair_one_with_that_of_two_draws_as_they_are():
    """The latter by its definition: the integral of (share of draws below t - whether the reference is)^2."""
    rng = np.random.default_rng(0)
    draws, reference = rng.standard_normal((2, 50)), rng.standard_normal(50)
    t = np.linspace(-6, 6, 200_001)[:, None]
    steps = np.mean([t >= draw for draw in draws], axis=0) - (t >= reference)
    plain = np.square(steps).sum(axis=0) * (t[1] - t[0])
    expected = FAIRNESS * fair_crps(draws, reference) + (1 - FAIRNESS) * plain
    scores = almost_fair_crps(*(torch.from_numpy(values) for values in (*draws, reference)))
    np.testing.assert_allclose(scores, expected, atol=2e-4)


def test_the_best_spread_of_two_draws_is_one_per_cent_too_small():
    one, other, reference = torch.randn(3, 400_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sizes = torch.linspace(0.8, 1.2, 41)
    scores = [almost_fair_crps(size * one, size * other, reference).mean().item() for size in sizes]
    assert sizes[int(np.argmin(scores))].item() == pytest.approx(0.99, abs=0.021)


@torch.no_grad()
def test_a_draw_depends_on_its_own_noise_and_on_the_scan_alone():
    model, low_dose, t = network(), scan(16, 16, 24), torch.zeros(1)
    noise = torch.randn(1, 3 * FIELDS, 16, 16, 24)
    together = model(noise, t, low_res=low_dose)
    assert torch.equal(together[:, :1], model.regression(low_dose, t, low_res=low_dose))
    for number in range(3):
        own = slice(1 + FIELDS * number, 1 + FIELDS * (number + 1))
        alone = model(noise[:, FIELDS * number : FIELDS * (number + 1)], t, low_res=low_dose)
        assert torch.equal(alone[:, 1:], together[:, own])
    assert torch.equal(model(noise[:, :0], t, low_res=low_dose), together[:, :1])
    assert (together[:, 1] - together[:, 3]).abs().mean() > 0.1 * together[:, 1].std()


@torch.no_grad()
@settings(max_examples=6, deadline=None)
@given(st.tuples(*[st.integers(1, 13)] * 3))
def test_any_size_is_taken(size):
    output = network()(torch.randn(1, FIELDS, *size), torch.zeros(1), low_res=scan(*size))
    assert output.shape == (1, 1 + FIELDS, *size)
    assert output.isfinite().all()


@torch.no_grad()
def test_a_network_of_more_levels_is_taken():
    model = LocalDraws(replace(MODEL, channel_mult="1,1,1,1")).eval()
    output = model(torch.randn(1, FIELDS, 20, 20, 20), torch.zeros(1), low_res=scan(20, 20, 20))
    assert output.shape == (1, 1 + FIELDS, 20, 20, 20)


@torch.no_grad()
def test_the_first_guess_is_noise_of_mean_0_that_scales_with_the_uptake_and_is_correlated():
    torch.manual_seed(0)
    model, low_dose, t = LocalDraws(MODEL).eval(), 20 * scan(32, 32, 32), torch.zeros(1)
    noise = torch.randn(1, 2 * FIELDS, 32, 32, 32)
    deviations = model(noise, t, low_res=low_dose)[:, 1:]
    mirrored = model(-noise, t, low_res=low_dose)[:, 1:]
    torch.testing.assert_close(mirrored, -deviations, rtol=1e-3, atol=1e-5)
    relative = deviations.std() / low_dose.std()
    assert 0.2 < relative < 0.8
    over_blocks = avg_pool3d(deviations, 8).std() / deviations.std()
    assert over_blocks > 2 * 8**-1.5
    twice = model(noise, t, low_res=2 * low_dose)[:, 1:]
    torch.testing.assert_close(twice, 2 * deviations, rtol=0.05, atol=0.01)


def test_patterns_are_means_and_differences_within_positions():
    volume = torch.randn(2, 1, 4, 6, 8, generator=torch.Generator().manual_seed(0))
    found = patterns(sub_images(volume))
    blocks = volume.reshape(2, 2, 2, 3, 2, 4, 2)  # [N, Z, dz, X, dx, Y, dy]
    signs = torch.tensor([1.0, -1.0])
    for number in range(8):
        weights = [signs if number & bit else torch.ones(2) for bit in (4, 2, 1)]
        expected = torch.einsum("nzaxbyc,a,b,c->nzxy", blocks, *weights) / 8**0.5
        torch.testing.assert_close(found[:, number], expected)
    torch.testing.assert_close(patterns(found), sub_images(volume))
    assert found.square().sum().item() == pytest.approx(volume.square().sum().item(), rel=1e-5)


@torch.no_grad()
def test_noise_is_as_large_in_every_pattern_as_what_the_regression_took_away():
    """Of a network that is told nothing else about the scan, so that all that differs is that unit."""
    model = network()
    model.know.weight.zero_()
    noise = torch.randn(1, FIELDS, 20, 20, 20, generator=torch.Generator().manual_seed(3))
    white = torch.randn(1, 1, 22, 22, 22, generator=torch.Generator().manual_seed(4))
    drawn, sizes = [], []
    for field in (white[..., 1:-1, 1:-1, 1:-1], 3 * avg_pool3d(white, 3, stride=1)):
        low_dose = (1 + 0.3 * field) / MODEL.low_res_scale
        output = model(noise, torch.zeros(1), low_res=low_dose)
        drawn.append(patterns(sub_images(output[:, 2:3]))[0, :, 5, 5, 5].numpy())
        residual = patterns(sub_images(low_dose - output[:, :1]))[0].numpy()
        floor = LEAST_RESIDUAL * local_scale(sub_images(MODEL.low_res_scale * low_dose)).noise[0, 0, 5, 5, 5].item()
        around = np.square(residual[:, 3:8, 3:8, 3:8]).mean(axis=(1, 2, 3))
        sizes.append(np.sqrt(around + (floor / MODEL.low_res_scale) ** 2))
    assert (sizes[0] / sizes[1]).max() > 2 * (sizes[0] / sizes[1]).min()
    np.testing.assert_allclose(drawn[0] / drawn[1], sizes[0] / sizes[1], rtol=1e-3)


@settings(max_examples=20, deadline=None)
@given(st.floats(0.01, 0.9), st.floats(0.0, 1.0))
def test_draws_for_references_of_thinned_counts_are_as_these_are(dose, share):
    """Counts by counts, of a regression that knows the truth: draws must scatter as references of that dose do."""
    rng = np.random.default_rng(0)
    counts = rng.poisson(4000, 100_000)
    low = rng.binomial(counts, dose) / dose
    target = share * counts + (1 - share) * 4000
    low_dose, output = torch.from_numpy(low).view(1, 1, 1, 1, -1), torch.zeros(1, 3, 1, 1, 100_000).double()
    output[:, 0], output[:, 2] = 4000, (low - 4000).std() * torch.from_numpy(rng.standard_normal(100_000))
    reference = Reference(torch.tensor([dose]).double(), torch.tensor([share]).double())
    mean, draws = predictive_draws(output, low_dose, reference)
    error = target - mean.flatten().numpy()
    # Given the truth, the error is fresh noise alone.
    assert error.mean() == pytest.approx(0, abs=0.02 * low.std())
    assert abs(np.mean(error * (low - 4000))) < 0.03 * np.var(low)
    assert (draws - mean).std().item() == pytest.approx(error.std(), rel=0.03, abs=0.01 * low.std())
    assert draws.std().item() == pytest.approx(target.std(), rel=0.03, abs=0.01 * low.std())


@torch.no_grad()
def test_the_noise_free_image_takes_nothing_of_the_scan_and_no_fresh_noise():
    output, low_dose = torch.rand(1, 5, 4, 4, 4), torch.rand(1, 1, 4, 4, 4)
    mean, draws = predictive_draws(output, low_dose, Reference(torch.zeros(1), torch.ones(1)))
    assert torch.equal(mean, output[:, :1])
    torch.testing.assert_close(draws, output[:, :1] + output[:, [1, 3]])


class Scaled(torch.nn.Module):
    """Takes noise itself, of one size, for the deviations of the noise-free image."""

    config = MODEL

    def __init__(self, size):
        super().__init__()
        self.size = size

    def forward(self, x, _timesteps, low_res):
        return torch.cat([torch.full_like(low_res, 0.5), self.size * x], dim=1)


def test_the_loss_is_least_where_draws_scatter_as_references_do_and_spread_says_so():
    target = 0.5 + 0.1 * torch.randn(2, 1, 32, 32, 32, generator=torch.Generator().manual_seed(0))
    low_dose = torch.cat([scan(32, 32, 32), scan(32, 32, 32)])
    examples = Examples(low_dose, target, target, torch.zeros(2), torch.tensor([[0.1, 0.0]] * 2))

    def terms(size: float) -> dict[str, torch.Tensor]:
        torch.manual_seed(5)
        return draws_losses(Scaled(size), examples)

    losses = {size: terms(size)["loss"].sum().item() for size in (0.08, 0.1, 0.12)}
    assert losses[0.1] < min(losses[0.08], losses[0.12])
    right = terms(0.1)
    torch.testing.assert_close(right["spread"], torch.ones(2), atol=0.02, rtol=0)
    # Of a normal distribution: 1 / sqrt(pi) of its deviation, over sqrt(2 / pi), and half a per cent by the fairness.
    torch.testing.assert_close(right["crps"], torch.full((2,), 0.5**0.5 + 0.005 * 0.5**0.5), atol=0.01, rtol=0)
    assert terms(0.05)["spread"].max() < 0.75


def test_differences_of_neighbours_are_scored_along_every_axis(monkeypatch):
    target = 0.5 + 0.1 * torch.randn(1, 1, 8, 16, 24, generator=torch.Generator().manual_seed(0))
    low_dose = scan(8, 16, 24)
    examples = Examples(low_dose, target, target, torch.zeros(1), torch.tensor([[0.1, 0.0]]))
    losses, output = {}, []
    network = Scaled(0.1)
    network.register_forward_hook(lambda _module, _given, result: output.append(result))
    for weight in (0.0, 1.0):
        monkeypatch.setattr(local3d_draws, "DIFFERENCES", weight)
        torch.manual_seed(5)
        losses[weight] = draws_losses(network, examples)["loss"].item()
    _, draws = predictive_draws(output[0], low_dose, Reference(*examples.reference.unbind(dim=1)))
    one, other, reference = draws[0, 0].numpy(), draws[0, 1].numpy(), target[0, 0].numpy()
    expected = 0.0
    for axis in range(3):
        a, b, y = (np.diff(image, axis=axis) for image in (one, other, reference))
        expected += np.mean(0.5 * (abs(a - y) + abs(b - y)) - (0.25 + 0.25 * 0.99) * abs(a - b))
    noise = local_scale(sub_images(MODEL.low_res_scale * low_dose)).noise.mean().item() / MODEL.low_res_scale
    assert losses[1.0] - losses[0.0] == pytest.approx(expected / noise, rel=1e-4)


def test_training_finds_the_size_of_noise_about_a_known_answer():
    rng = torch.Generator().manual_seed(0)
    network = Scaled(torch.nn.Parameter(torch.tensor(0.3)))
    optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
    torch.manual_seed(1)
    sizes = []
    for _ in range(80):
        target = 0.5 + 0.1 * torch.randn(2, 1, 16, 16, 16, generator=rng)
        examples = Examples(scan(16, 16, 16).repeat(2, 1, 1, 1, 1), target, target, torch.zeros(2), torch.zeros(2, 2))
        optimiser.zero_grad()
        draws_losses(network, examples)["loss"].mean().backward()
        optimiser.step()
        sizes.append(network.size.item())
    assert np.mean(sizes[-20:]) == pytest.approx(0.099, rel=0.05)


def correlated(count, rng=None):
    white = torch.randn(count, 1, 18, 18, 18, generator=rng)
    return 0.1 / 16 * 27**0.5 * avg_pool3d(white, 3, stride=1)


class TrueDraws(torch.nn.Module):
    """Deviations from the regression's answer of the very kind that the targets have."""

    config = MODEL

    def __init__(self, regression):
        super().__init__()
        self.regression = regression

    def forward(self, x, timesteps, low_res):
        answer = self.regression(low_res, timesteps, low_res=low_res)
        return torch.cat([answer, *(correlated(len(answer)) for _ in range(x.shape[1]))], dim=1)


@pytest.mark.slow
def test_training_comes_near_the_loss_of_true_draws_of_correlated_noise():
    """In few steps the network does not learn all of the correlation, and then scatters less than the targets."""
    torch.manual_seed(0)
    model = LocalDraws(MODEL)
    truth = TrueDraws(model.regression)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=1e-3, weight_decay=0)
    decay = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.0, total_iters=150)
    rng = torch.Generator().manual_seed(2)
    losses, spreads, of_truth = [], [], []
    for _ in range(150):
        low_dose = (1 + 0.3 * torch.randn(4, 1, 16, 16, 16, generator=rng)) / 16
        noise = correlated(4, rng)
        answer = model.regression(low_dose, torch.zeros(4), low_res=low_dose)
        examples = Examples(low_dose, answer + noise, noise, torch.zeros(4), torch.zeros(4, 2))
        with torch.no_grad():
            of_truth.append({name: values.mean().item() for name, values in draws_losses(truth, examples).items()})
        terms = draws_losses(model, examples)
        optimiser.zero_grad()
        terms["loss"].mean().backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        decay.step()
        losses.append(terms["loss"].mean().item())
        spreads.append(terms["spread"].mean().item())
    least = np.mean([terms["loss"] for terms in of_truth])
    assert np.mean([terms["spread"] for terms in of_truth]) == pytest.approx(1, abs=0.02)
    assert np.mean(losses[:5]) > 1.1 * least
    assert least < np.mean(losses[-20:]) < 1.05 * least
    assert 0.75 < np.mean(spreads[-20:]) < 1.1


def test_the_process_gives_the_regressions_answer():
    model, low_dose = network(), scan(8, 8, 8)
    process = METHOD.create_process(DiffusionConfig())
    with torch.no_grad():
        output = process.p_mean_variance(
            model, torch.randn(1, 1, 8, 8, 8), torch.zeros(1).long(), True, {"low_res": low_dose}
        )
        expected = model.regression(low_dose, torch.zeros(1), low_res=low_dose)
    assert torch.equal(output["pred_xstart"], expected.clamp(-1, 1))
