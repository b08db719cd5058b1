"""`--mirrored True`: the mean with the answer for the mirrored scan."""

import json
from dataclasses import replace

import numpy as np
import pytest

from guided_diffusion.checkpoints import save_checkpoint
from guided_diffusion.inference.presets import inference_settings
from guided_diffusion.methods.registry import METHODS
from tests.denoising import SMALL_HEADER, denoise, samples_in
from tests.golden_weights import fill

HEADER = replace(SMALL_HEADER, method="unet3d")


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "unet3d.pt"
    save_checkpoint(path, fill(METHODS["unet3d"].create_model(HEADER.model, HEADER.diffusion)).state_dict(), HEADER)
    return path


def test_the_result_is_the_mean_and_that_of_a_mirrored_scan_its_mirror_image(weights, tmp_path):
    """Of one patch that needs no padding, so that a run on the mirrored scan makes the network's other call. Unclipped,
    since the mean is clipped, not what it is the mean of."""
    unclipped = ("--clip_denoised", False)
    scans = {"there": np.random.default_rng(0).gamma(2.0, 1.0, (16, 24, 16)).astype(np.float32)}
    scans["back"] = scans["there"][::-1, ::-1, ::-1]
    plain, mirrored = {}, {}
    for name, scan in scans.items():
        np.savez(tmp_path / f"{name}.npz", arr_0=np.stack([scan, scan]))
        plain[name] = samples_in(denoise(tmp_path / f"{name}.npz", weights, tmp_path / name, *unclipped))
        out = tmp_path / f"{name}_mirrored"
        mirrored[name] = samples_in(denoise(tmp_path / f"{name}.npz", weights, out, *unclipped, "--mirrored", True))
    expected = (plain["there"] + plain["back"][::-1, ::-1, ::-1]) / 2
    assert np.abs(plain["there"] - expected).mean() > 1e-3
    np.testing.assert_allclose(mirrored["there"], expected, atol=1e-5)
    np.testing.assert_allclose(mirrored["back"], expected[::-1, ::-1, ::-1], atol=1e-5)
    calls = [json.loads((tmp_path / name / "run.json").read_text()) for name in ("there", "there_mirrored")]
    assert [manifest["nfe_per_patch_and_realisation"] for manifest in calls] == [1, 2]


def test_images_are_drawn_about_the_answer_of_one_call():
    header = replace(HEADER, method="local3d_draws")
    (notice,) = inference_settings({"mirrored": True, "realisations": 3}, header, on_gpu=False).notices
    assert notice == "local3d_draws answers in one call; ignored: --mirrored"
