"""Several realisations: mean, deviation, their noise, and memory that does not grow."""

import tracemalloc
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from guided_diffusion.config import DiffusionConfig, PreprocessingConfig
from guided_diffusion.config.inference_flags import Sampling
from guided_diffusion.errors import InputError
from guided_diffusion.gaussian_diffusion import GaussianDiffusion
from guided_diffusion.inference.denoising import denoise_volume
from guided_diffusion.inference.patch_sampling import make_task, sample_batch
from guided_diffusion.pet.grid import Volume
from guided_diffusion.pet.patches import plan_axial_patches
from tests.denoising import loaded_model

GRID = PreprocessingConfig(patch_size=16, overlap=4)
DIFFUSION = GaussianDiffusion(DiffusionConfig(predict_xstart=True, timestep_respacing="2"))
FIELD = Sampling(realisations=3)


class Mixer(torch.nn.Module):
    """Predicts a mixture of what it is given, so that results depend on the noise."""

    config = SimpleNamespace(in_plane_multiple=4)

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(0.1))

    def forward(self, x, _timesteps, low_res):
        return 0.9 * low_res + self.weight * x


def scan(shape=(6, 8, 40), affine=None):
    data = np.random.default_rng(0).gamma(2.0, 1.0, shape).astype(np.float32)
    grid = np.array([[0, -1.65, 0, 0], [-1.65, 0, 0, 0], [0, 0, 1.65, 0], [0, 0, 0, 1]], dtype=float)
    return Volume(data, grid if affine is None else affine)


def realisation(number, sampling):
    """One realisation of the scan, patch by patch, by hand: [X, Y, Z] normalised."""
    low_dose = np.pad(scan().data.clip(0, 16) / 16, ((0, 2), (0, 0), (0, 0)))
    plan = plan_axial_patches(40, 16, 4)
    loaded = loaded_model(Mixer(), DIFFUSION, sampling, GRID)
    patches = [
        sample_batch(make_task(low_dose, plan, range(k, k + 1), number), loaded, lambda x: x)
        for k in range(len(plan.starts))
    ]
    return plan.stitch(np.concatenate([patch.samples for patch in patches]))[:6]


@pytest.mark.parametrize("noise", ["field", "per_patch"])
def test_mean_and_deviation_are_those_of_the_realisations(noise):
    sampling = replace(FIELD, noise=noise)
    result = denoise_volume(scan(), loaded_model(Mixer(), DIFFUSION, sampling, GRID))
    each = np.stack([realisation(number, sampling) for number in range(3)]).astype(np.float64)
    assert each.std(axis=0).min() > 0
    np.testing.assert_allclose(result.samples, each.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(result.samples_sd, each.std(axis=0, ddof=1), atol=1e-6)
    suv = 16 * each.clip(0)
    np.testing.assert_allclose(result.volume.data, suv.mean(axis=0), atol=2e-5)
    np.testing.assert_allclose(result.volume_sd.data, suv.std(axis=0, ddof=1), atol=2e-5)


def test_the_published_seed_goes_on_with_the_realisations():
    published = replace(FIELD, noise="per_patch")
    later = replace(published, seed=published.seed + 2)
    np.testing.assert_array_equal(realisation(2, published), realisation(0, later))


def test_one_realisation_is_the_first_and_has_no_deviation():
    one = denoise_volume(scan(), loaded_model(Mixer(), DIFFUSION, replace(FIELD, realisations=1), GRID))
    np.testing.assert_array_equal(one.samples, realisation(0, FIELD))
    assert one.samples_sd is None
    assert one.volume_sd is None


def test_deviation_comes_back_on_the_inputs_own_grid():
    """On a coarser grid the deviation is that of the coarser voxels, not an interpolation of the fine ones'."""
    affine = np.diag([-5.0, 5.0, 5.0, 1.0])
    coarse = scan((8, 8, 16), affine)
    result = denoise_volume(coarse, loaded_model(Mixer(), DIFFUSION, FIELD, replace(GRID, voxel_mm=(2.5, 2.5, 2.5))))
    assert result.volume_sd.data.shape == (8, 8, 16)
    np.testing.assert_array_equal(result.volume_sd.affine, affine)
    assert 0 < result.volume_sd.data.mean() < 16 * result.samples_sd.mean()


def test_memory_does_not_grow_with_the_number_of_realisations():
    def peak(realisations):
        tracemalloc.start()
        sampling = replace(FIELD, realisations=realisations)
        denoise_volume(scan((64, 64, 64)), loaded_model(Mixer(), DIFFUSION, sampling, GRID))
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    volume_bytes = 4 * 64**3
    assert peak(12) < peak(3) + 0.1 * volume_bytes


def test_a_result_that_is_not_finite_is_an_error():
    class Overflowing(Mixer):
        def forward(self, x, timesteps, low_res):
            return super().forward(x, timesteps, low_res) / (low_res > 0.3)

    with pytest.raises(InputError, match="NaN or infinite voxels"):
        denoise_volume(scan(), loaded_model(Overflowing(), DIFFUSION, replace(FIELD, clip_denoised=False), GRID))
