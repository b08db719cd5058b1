"""What the shipped weights are worth: a patient whom they have not seen, at a twentieth of the dose.

The bounds are the targets of checkpoint/demo.md, which has the numbers of many patients.
"""

import hashlib
import json
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.stats import t as student

from evaluation.measures.image_fidelity import clip_suv
from evaluation.measures.uptake import SMALLEST_LESION_MM, bias_percent, lesions_over, organ_core
from guided_diffusion.checkpoints import load_checkpoint
from guided_diffusion.inference.denoising import denoise_volume
from guided_diffusion.inference.loading import load_model
from guided_diffusion.pet.grid import Volume
from guided_diffusion.pet.image_quality import psnr, ssim
from guided_diffusion.pet.suv_peak import suv_peak
from guided_diffusion.simulation.body_phantom import load_tissues
from guided_diffusion.simulation.trial import VirtualSubject, simulate
from tests.mpi import ROOT, run_script

DOSE = 0.05
SMALL = ("ddpm2d", "ddpm3d", "gan3d", "unet3d")
PATIENT = VirtualSubject("unseen", 24, "fdg", "mct", "test")
TRUNK = (..., slice(92, None))  # of 180 slices those with the liver, the lungs and seven of eight lesions over 10 mm


@pytest.fixture(scope="module")
def scan():
    return simulate(PATIENT, "demo", [DOSE])


@pytest.fixture(scope="module")
def trunk(scan):
    """Its images, labels and voxels of the trunk."""
    voxel_mm = (scan.phantom.grid.voxel_mm,) * 3
    low, normal, labels = (each[TRUNK] for each in (scan.images[DOSE], scan.images[1.0], scan.phantom.labels))
    return SimpleNamespace(low=low, normal=normal, labels=labels, voxel_mm=voxel_mm)


@pytest.fixture(scope="module", params=["demo_ddpm3d", pytest.param("demo_unet3d", marks=pytest.mark.slow), "local3d"])
def denoised(request, scan, trunk):
    """SUV [X, Y, Z], as `scripts/test.py --preset fast` makes it."""
    loaded = load_model(str(ROOT / "checkpoint" / f"{request.param}.pt"), {"preset": "fast"})
    low_dose = Volume(trunk.low, scan.phantom.grid.affine())
    result = denoise_volume(low_dose, loaded)
    return result.volume.data


def test_image_is_nearer_to_the_normal_dose(trunk, denoised):
    normal, low, image = (clip_suv(volume) for volume in (trunk.normal, trunk.low, denoised))
    assert psnr(normal, image, peak=16) > psnr(normal, low, peak=16) + 5
    assert ssim(normal, image, data_range=16) > ssim(normal, low, data_range=16)


@pytest.mark.parametrize("organ", ["liver", "lung"])
def test_organs_keep_their_uptake(organ, trunk, denoised):
    core = organ_core(trunk.labels == load_tissues()[organ].label, trunk.voxel_mm)
    assert abs(bias_percent(denoised[core].mean(), trunk.normal[core].mean())) < 2


def test_lesions_keep_their_uptake(trunk, denoised):
    labels, voxel_mm = trunk.labels, trunk.voxel_mm
    biases = [
        bias_percent(*(suv_peak(image, labels == label, voxel_mm) for image in (denoised, trunk.normal)))
        for label in lesions_over(labels, voxel_mm, SMALLEST_LESION_MM)
    ]
    assert len(biases) >= 5
    assert abs(np.mean(biases)) < 10


def test_the_small_weights_have_seen_the_same():
    """Pairs, crops, steps, seed and optimiser; a comparison of methods rests on it."""
    headers = {name: load_checkpoint(str(ROOT / "checkpoint" / f"small_{name}.pt")).header for name in SMALL}
    assert {name: header.method for name, header in headers.items()} == {name: name for name in SMALL}
    for entry in ("step", "seed", "data", "ema_rate", "ranks"):
        (shared,) = {json.dumps(header.training[entry]) for header in headers.values()}
        assert shared != "null"
    names = ("data_dir", "crop_size", "crops_per_step", "loss_weighting", "lr", "lr_warmup_steps", "grad_clip")
    (_,) = {json.dumps([header.training["history"][0]["flags"][name] for name in names]) for header in headers.values()}


@pytest.mark.parametrize("name", SMALL)
def test_small_weights_bring_slices_nearer_to_the_normal_dose(name, scan):
    loaded = load_model(str(ROOT / "checkpoint" / f"small_{name}.pt"))
    middle = (..., slice(80, 96))
    low_dose, normal_dose = (scan.images[dose][middle] for dose in (DOSE, 1.0))
    image = denoise_volume(Volume(low_dose, scan.phantom.grid.affine()), loaded).volume.data
    before, after = (psnr(clip_suv(normal_dose), clip_suv(volume), peak=16) for volume in (low_dose, image))
    assert after > before + 2


def test_a_newcomer_gets_the_weights_that_carry_over_and_is_told(small, tmp_path):
    done = run_script("scripts/test.py", "--base_samples", small / "scan.nii.gz", "--save_dir", tmp_path)
    assert done.returncode == 0, done.stderr
    weights = ROOT / "checkpoint" / "local3d.pt"
    assert json.loads((tmp_path / "run.json").read_text())["checkpoint"] == {
        "name": "local3d.pt",
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
    }
    assert f"notice: no --model_path is given: using {weights}, trained on virtual scans" in done.stderr


def noisy_cylinder(dose: float) -> tuple[Volume, Volume]:
    """A scan and its reference on the model's grid, of whose counts the scan has the share `dose`. Noise as after a
    filter of 6 mm, its variance in proportion to the uptake.
    """
    x, y, z = np.indices((64, 64, 64))
    warm = np.where((x - 32) ** 2 + (y - 32) ** 2 < 26**2, 2.0, 0.05)
    warm[(x - 24) ** 2 + (y - 32) ** 2 + (z - 32) ** 2 < 10**2] = 6.0
    truth = gaussian_filter(warm, 1.0)
    rng = np.random.default_rng(0)
    size = 0.6 * np.sqrt(warm / 2)  # of the scan's noise

    def noise(variance: float) -> np.ndarray:
        white = rng.standard_normal(truth.shape) * size * np.sqrt(variance)
        return gaussian_filter(white, 1.0) / 0.282**1.5

    with_scan, left_out = noise(1.0), noise(dose / (1 - dose))
    affine = np.array([[0, -2.5, 0, 0], [-2.5, 0, 0, 0], [0, 0, 2.5, 0], [0, 0, 0, 1]])
    both = truth + with_scan, truth + dose * with_scan + (1 - dose) * left_out
    scan, reference = (Volume(image.astype(np.float32), affine) for image in both)
    return scan, reference


def test_the_error_bar_of_shipped_weights_holds_the_reference():
    scan, reference = noisy_cylinder(1 / 10)
    path = str(ROOT / "checkpoint" / "local3d_draws.pt")
    denoised = denoise_volume(scan, load_model(path, {"dose_fraction": "1/10", "realisations": 20}))
    inside = (slice(16, 48), slice(16, 48), slice(8, 56))
    error, deviation = (reference.data - denoised.volume.data)[inside], denoised.volume_sd.data[inside]
    # A deviation of 20 draws is itself uncertain: Student's quantile, as the card says.
    assert 0.93 < np.mean(np.abs(error) < student.ppf(0.975, 19) * deviation) < 0.97
    assert 0.9 < np.sqrt(np.mean(deviation**2) / np.mean(error**2)) < 1.1
