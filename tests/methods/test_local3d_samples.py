"""The distribution about the local regression: what follows for references of any dose, its loss, its training."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from guided_diffusion.checkpoints import load_checkpoint, save_checkpoint
from guided_diffusion.config import DiffusionConfig, Header, ModelConfig, PreprocessingConfig, SamplerConfig
from guided_diffusion.errors import InputError
from guided_diffusion.image_datasets import find_pairs
from guided_diffusion.inference import denoise_volume, load_model
from guided_diffusion.inference.drawing import Distribution
from guided_diffusion.interfaces import Examples
from guided_diffusion.local_spread import CHANNELS, LENGTHS, LocalSpread, Reference, kernel, predictive
from guided_diffusion.methods.local3d_samples import spread_losses
from guided_diffusion.pet.grid import Volume
from tests.training_runs import run

MODEL = ModelConfig(num_channels=32, num_res_blocks=1, channel_mult="1,2", low_res_scale=16.0)
HEADER = Header("local3d", MODEL, DiffusionConfig(), PreprocessingConfig((3.3,) * 3), SamplerConfig(), {})
TRAINED = {
    "method": "local3d_samples", "crop_size": "8,8,8", "channel_mult": "1,2", "low_res_scale": 16.0,
    "resblock_updown": False, "attention_resolutions": "16,8", "add_low_res": False, "predict_xstart": False,
}  # fmt: skip


def network(seed: int = 0) -> LocalSpread:
    """With random weights in the layers that begin at zero too."""
    torch.manual_seed(seed)
    model = LocalSpread(MODEL).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model


def reference(dose: float, noise: float = 1.0) -> Reference:
    return Reference(torch.tensor([dose]), torch.tensor([noise]))


@settings(max_examples=25, deadline=None)
@given(st.floats(0.0, 0.9), st.floats(0.0, 1.0))
def test_references_of_thinned_counts_have_the_predicted_mean_and_variance(dose, share):
    """Counts by counts: images of Poisson counts, of which `dose` are the scan's, about truths that spread."""
    rng = np.random.default_rng(0)
    truth = 4000 * (1 + 0.01 * rng.standard_normal(100_000))
    counts = rng.poisson(truth)
    dose = max(dose, 0.01)
    scan = rng.binomial(counts, dose) / dose
    target = share * counts + (1 - share) * truth
    mean, amplitudes = _of(scan, truth, dose, share)
    error = target - mean
    # Given the truth, the error is fresh noise alone.
    assert error.mean() == pytest.approx(0, abs=0.02 * scan.std())
    assert error.std() == pytest.approx(amplitudes, rel=0.03, abs=0.01 * scan.std())
    assert abs(np.mean(error * (scan - truth))) < 0.03 * np.var(scan)


def _of(scan: np.ndarray, truth: np.ndarray, dose: float, share: float) -> tuple[np.ndarray, float]:
    """Mean and deviation by `predictive`, of a regression that knows the truth and the size of the scan's noise."""
    low_dose = torch.from_numpy(scan).view(1, 1, 1, 1, -1)
    output = torch.zeros(1, CHANNELS, 1, 1, len(scan), dtype=torch.float64)
    output[:, 0] = torch.from_numpy(truth)
    output[:, 1 + len(LENGTHS)] = (scan - truth).std()
    mean, amplitudes = predictive(output, low_dose, Reference(torch.tensor([dose]).double(), torch.tensor([share])))
    return mean.flatten().numpy(), amplitudes[:, :1].mean().item()


@torch.no_grad()
def test_the_noise_free_image_takes_nothing_of_the_scan_and_no_fresh_noise():
    output, low_dose = torch.rand(1, CHANNELS, 4, 4, 4), torch.rand(1, 1, 4, 4, 4)
    mean, amplitudes = predictive(output, low_dose, reference(0.0))
    assert torch.equal(mean, output[:, :1])
    torch.testing.assert_close(amplitudes, output[:, 1 : 1 + len(LENGTHS)])


@torch.no_grad()
@settings(max_examples=6, deadline=None)
@given(st.tuples(*[st.integers(1, 13)] * 3))
def test_any_size_is_taken_and_amplitudes_are_positive(size):
    low_dose = 1 / 16 + 0.02 * torch.randn(1, 1, *size)
    output = network()(low_dose, torch.zeros(1), low_res=low_dose)
    assert output.shape == (1, CHANNELS, *size)
    assert output.isfinite().all()
    assert output[:, 1:].min() > 0


@torch.no_grad()
def test_a_new_head_leaves_the_regressions_answer_and_scales_with_the_uptake():
    torch.manual_seed(0)
    model, low_dose = LocalSpread(MODEL).eval(), 20 * (1 + 0.3 * torch.randn(1, 1, 16, 16, 16)) / 16
    output = model(low_dose, torch.zeros(1), low_res=low_dose)
    assert torch.equal(output[:, :1], model.regression(low_dose, torch.zeros(1), low_res=low_dose))
    twice = model(2 * low_dose, torch.zeros(1), low_res=2 * low_dose)
    torch.testing.assert_close(twice[:, 1:], 2 * output[:, 1:], rtol=0.02, atol=1e-4)


class Given(torch.nn.Module):
    """Predicts a given output."""

    config = MODEL

    def __init__(self, output):
        super().__init__()
        self.output = output

    def forward(self, _x, _timesteps, low_res):  # noqa: ARG002
        return self.output


@pytest.mark.parametrize("number", range(len(LENGTHS)))
def test_the_loss_is_least_at_the_noise_that_is_there(number):
    """Its size by the voxels, its correlation by the means over blocks."""
    flat = np.zeros((48, 48, 48), dtype=np.float32)
    kernels = tuple(kernel(length).numpy() for length in LENGTHS)
    noise = torch.from_numpy(Distribution(flat, flat[None], kernels[number : number + 1]).noise(0, 1, 0))[None, None]
    noise = noise / noise.square().mean().sqrt()  # noise of long correlation has not the variance 1 in a small volume
    low_dose = 1 + 0.5 * torch.randn(1, 1, 48, 48, 48, generator=torch.Generator().manual_seed(0))
    examples = Examples(low_dose, 1 + 0.1 * noise, noise, torch.zeros(1), torch.tensor([[0.0, 0.0]]))

    def loss(amplitude: float, correlated_as: int) -> float:
        output = torch.full((1, CHANNELS, 48, 48, 48), 1e-6)
        output[:, 0], output[:, 1 + correlated_as] = 1, amplitude
        return spread_losses(Given(output), examples)["loss"].item()

    assert loss(0.1, number) < min(loss(0.08, number), loss(0.12, number))
    for other in set(range(len(LENGTHS))) - {number}:
        assert loss(0.1, number) < min(loss(amplitude, other) for amplitude in (0.06, 0.08, 0.1, 0.12, 0.16))


def checkpoint(folder, method: str = "local3d"):
    model = network() if method == "local3d_samples" else network().regression
    save_checkpoint(folder / f"{method}.pt", model.state_dict(), replace(HEADER, method=method))
    return folder / f"{method}.pt"


def test_training_begins_with_a_regression_and_leaves_it_alone(data_dir, tmp_path):
    begun = checkpoint(tmp_path)
    run(data_dir, tmp_path / "run", **TRAINED, max_steps=2, resume_checkpoint=str(begun))
    run(data_dir, tmp_path / "run", **TRAINED, max_steps=4, resume_checkpoint=str(begun))
    run(data_dir, tmp_path / "whole", **TRAINED, max_steps=4, resume_checkpoint=str(begun))
    before, after, whole = (
        load_checkpoint(str(path)).state_dict
        for path in (begun, tmp_path / "run" / "model000004.pt", tmp_path / "whole" / "model000004.pt")
    )
    for name, value in before.items():
        assert torch.equal(after[f"regression.{name}"], value)
    assert after["leave.weight"].abs().max() > 0
    assert all(torch.equal(after[name], value) for name, value in whole.items())


def test_what_training_lacks_is_said_before_it_begins(data_dir, tmp_path):
    with pytest.raises(InputError, match="begins with trained weights: name them by --resume_checkpoint"):
        run(data_dir, tmp_path / "run", **TRAINED, max_steps=1)
    pairs = tmp_path / "pairs"
    pairs.mkdir()
    np.savez(pairs / "a.npz", arr_0=np.ones((2, 8, 8, 8), dtype=np.float32))
    with pytest.raises(InputError, match="needs every pair's dose"):
        run(pairs, tmp_path / "run", **TRAINED, max_steps=1, resume_checkpoint=str(checkpoint(tmp_path)))


def test_the_noise_of_references_comes_from_the_manifest(tmp_path):
    np.savez(tmp_path / "a.npz", arr_0=np.ones((2, 8, 8, 8), dtype=np.float32))
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("subject,dose,split,voxel_mm,pair,clean_share\nx,0.1,train,3.3,a.npz,1\ny,1,train,3.3,a.npz,\n")
    assert [(p.dose, p.reference_noise) for p in find_pairs(tmp_path, "train", (3.3,) * 3)] == [("0.1", 0), ("1", 1)]
    manifest.write_text("subject,dose,split,voxel_mm,pair,clean_share\nx,0.1,train,3.3,a.npz,2\n")
    with pytest.raises(InputError, match="clean_share '2' is no number from 0 to 1"):
        find_pairs(tmp_path, "train", (3.3,) * 3)


@pytest.fixture(scope="module")
def denoised(tmp_path_factory):
    """A function of flags that denoises one scan, on the model's own grid unless told otherwise."""
    path = str(checkpoint(tmp_path_factory.mktemp("weights"), "local3d_samples"))

    def denoise(spacing=3.3, **flags):
        suv = np.random.default_rng(0).gamma(2.0, 1.0, (24, 24, 30)).astype(np.float32)
        affine = np.array([[0, -spacing, 0, 0], [-spacing, 0, 0, 0], [0, 0, spacing, 0], [0, 0, 0, 1]])
        loaded = load_model(path, {"precision": "float32", "patch_size": 16, "overlap": 4} | flags)
        return denoise_volume(Volume(suv, affine), loaded, measure=lambda image: image.data)

    return denoise


def test_the_mean_and_the_error_bar_do_not_depend_on_what_is_drawn(denoised):
    one, three, drawn = denoised(), denoised(realisations=3), denoised(sample=True)
    for other in (three, drawn):
        np.testing.assert_array_equal(other.samples_sd, one.samples_sd)
        np.testing.assert_array_equal(other.volume_sd.data, one.volume_sd.data)
    np.testing.assert_array_equal(three.samples, one.samples)
    assert (len(one.measured), len(three.measured)) == (0, 3)
    np.testing.assert_array_equal(drawn.volume.data, three.measured[0])
    assert np.abs(three.measured[1] - three.measured[0]).max() > 0.01


def test_the_dose_mixes_the_scan_in_and_adds_its_noise(denoised):
    clean, half = denoised(), denoised(dose_fraction="1/2")
    scan = clean.model_input.data.clip(0, 16) / 16
    np.testing.assert_allclose(half.samples, 0.5 * scan + 0.5 * clean.samples, atol=1e-6)
    with pytest.raises(InputError, match="--dose_fraction '2/1': a fraction such as 1/20"):
        denoised(dose_fraction="2/1")


def test_on_another_grid_the_error_bar_is_the_spread_of_what_is_drawn_there(denoised):
    """Finer and coarser than the model's."""
    for spacing in (2.2, 5.0):
        result = denoised(spacing, realisations=40)
        away_from_zero = result.volume.data > 4 * result.volume_sd.data
        spread = np.std(np.stack(result.measured), axis=0, ddof=1)
        inside = away_from_zero & (result.volume_sd.data > 0)
        assert inside.mean() > 0.2
        ratio = np.square(result.volume_sd.data[inside]).mean() / np.square(spread[inside]).mean()
        assert ratio == pytest.approx(1, abs=0.1)
