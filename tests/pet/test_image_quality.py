import numpy as np
import pytest
import torch

from guided_diffusion.pet.image_quality import psnr, ssim
from guided_diffusion.training.validation import mean_ssim


def test_psnr_of_a_known_error_and_of_none():
    reference = np.ones((4, 5, 6), np.float32)
    assert psnr(reference, reference + np.float32(0.5), peak=2.0) == pytest.approx(10 * np.log10(16))
    assert psnr(reference, reference, peak=2.0) == np.inf


def test_crops_thinner_than_the_window_are_compared_in_the_largest_that_fits():
    truth, image = torch.rand(2, 2, 1, 6, 8, 9, generator=torch.Generator().manual_seed(0))
    by_hand = [ssim(truth[n, 0].numpy(), image[n, 0].numpy(), data_range=1.0, window=5) for n in range(2)]
    assert mean_ssim(truth, image) == pytest.approx(np.mean(by_hand))
    assert by_hand[0] != pytest.approx(ssim(truth[0, 0].numpy(), image[0, 0].numpy(), data_range=1.0, window=3))
