"""Named noise: normal, the same for the same name, unrelated for different names."""

import numpy as np
import torch

from guided_diffusion.noise import axial_noise


def test_overlapping_slabs_see_the_same_noise():
    early = axial_noise(3, 0, 999, range(0, 20), (8, 12))
    late = axial_noise(3, 0, 999, range(12, 30), (8, 12))
    torch.testing.assert_close(early[:, :, 12:], late[:, :, :8], rtol=0, atol=0)


def test_every_part_of_the_name_counts():
    names = [(0, 0, 5, 7), (1, 0, 5, 7), (0, 1, 5, 7), (0, 0, 6, 7), (0, 0, 5, 8)]
    fields = [
        axial_noise(seed, realisation, step, range(axial, axial + 1), (64, 64)).numpy().ravel()
        for seed, realisation, step, axial in names
    ]
    correlation = np.corrcoef(fields) - np.eye(len(names))
    assert np.abs(correlation).max() < 5 / 64


def test_noise_is_standard_normal():
    noise = axial_noise(10, 2, 500, range(16), (64, 64)).numpy().ravel()
    assert abs(noise.mean()) < 4 / np.sqrt(noise.size)
    assert abs(noise.var() - 1) < 4 * np.sqrt(2 / noise.size)
    assert abs((noise**4).mean() - 3) < 4 * np.sqrt(96 / noise.size)
