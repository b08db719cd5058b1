"""`--dose_fraction` of a network of the noise-free image: the image of which the scan has that share of counts."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from guided_diffusion.checkpoints import save_checkpoint
from guided_diffusion.inference.presets import inference_settings
from guided_diffusion.methods.registry import METHODS
from guided_diffusion.references import Reference
from tests.denoising import SMALL_HEADER, denoise, samples_in
from tests.evaluation_trial import write_trial

HEADER = replace(SMALL_HEADER, method="local3d")


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "local3d.pt"
    torch.manual_seed(0)
    network = METHODS["local3d"].create_model(HEADER.model, HEADER.diffusion)
    torch.nn.init.normal_(network.leave.weight, std=0.1)
    save_checkpoint(path, network.state_dict(), HEADER)
    return path


def test_of_a_larger_dose_the_share_that_the_scan_has_is_kept(weights, tmp_path):
    scan = np.random.default_rng(0).gamma(2.0, 1.0, (16, 24, 16)).astype(np.float32)
    np.savez(tmp_path / "scan.npz", arr_0=np.stack([scan, scan]))
    images = {
        dose: samples_in(denoise(tmp_path / "scan.npz", weights, tmp_path / f"{dose}", "--dose_fraction", dose))
        for dose in (0, 0.25)
    }
    assert np.abs(images[0] - scan / 16).mean() > 0.01
    np.testing.assert_allclose(images[0.25], 0.75 * images[0] + 0.25 * scan / 16, atol=1e-6)


@pytest.mark.parametrize(
    ("said", "line"),
    [
        (("--dose_fraction", "0"), "estimating the noise-free image (--dose_fraction 0)"),
        (
            ("--dose_fraction", "1/20"),
            "estimating the image of 20 times the counts, which keeps 5 % of the scan's noise",
        ),
        ((), "estimating the image of 4 times the counts, which keeps 25 % of the scan's noise (--dose_fraction)"),
    ],
)
def test_the_log_says_what_is_estimated(weights, tmp_path, said, line):
    np.savez(tmp_path / "scan.npz", arr_0=np.random.default_rng(0).gamma(2.0, 1.0, (16, 16, 16)).astype(np.float32))
    denoise(tmp_path / "scan.npz", weights, tmp_path / "out", *said)
    assert line in (tmp_path / "out" / "log.txt").read_text()


def test_unsaid_it_is_that_of_the_manifest(weights, tmp_path):
    """A scan at the normal dose has none of a larger image's counts."""
    trial = tmp_path / "trial"
    write_trial(trial, "test", subjects=1, doses=(1.0, 0.05))
    denoise(trial, weights, tmp_path / "all")
    for name, said in {"low_dose_1": "0", "low_dose_1-20": "1/20"}.items():
        denoise(trial / "sub-0000" / f"{name}.nii.gz", weights, tmp_path / name, "--dose_fraction", said)
        alone, of_trial = tmp_path / name, tmp_path / "all/sub-0000" / name
        assert (alone / "denoised.nii.gz").read_bytes() == (of_trial / "denoised.nii.gz").read_bytes()
    settings = json.loads((tmp_path / "all/sub-0000/low_dose_1-20/run.json").read_text())["settings"]
    assert settings["sampling"]["dose_fraction"] == "0.05"


def test_other_methods_estimate_an_image_of_no_stated_dose():
    sampling = inference_settings({}, SMALL_HEADER, on_gpu=False).sampling
    assert sampling.dose == sampling.at_dose(0.05).dose == sampling.at_dose(None).dose == 0


def test_the_variance_of_thinned_counts_is_that_of_the_formula():
    """Of Poisson counts the scan has a quarter: what the expected reference lacks is the fresh noise alone."""
    rng, dose, mean = np.random.default_rng(0), 0.25, 50.0
    counts = rng.poisson(mean, 200_000)
    scan = torch.from_numpy(rng.binomial(counts, dose) / dose).view(-1, 1, 1, 1, 1)
    ones = torch.ones(len(counts), dtype=torch.float64)
    reference = Reference(dose * ones, ones)
    error = torch.from_numpy(counts).view(-1, 1, 1, 1, 1) - reference.expected(torch.full_like(scan, mean), scan)
    assert error.mean().item() == pytest.approx(0, abs=0.05)
    fresh = reference.fresh[0].item() * scan.var().item()
    assert error.var().item() == pytest.approx(fresh, rel=0.02)
    assert np.corrcoef(error.flatten(), scan.flatten())[0, 1] == pytest.approx(0, abs=0.01)
