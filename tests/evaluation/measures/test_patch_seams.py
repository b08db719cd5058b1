import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from evaluation.measures.patch_seams import seam_index
from guided_diffusion.errors import InputError
from guided_diffusion.pet.patches import plan_axial_patches

PLAN = plan_axial_patches(40, 16, 4)  # starts 0, 12 and 24: blended in slices 12 to 15 and 24 to 27


def test_seam_index_by_hand():
    """The error climbs by 1 from slice to slice, and by 3 within the slices where patches are blended."""
    steps = np.ones(39)
    steps[[12, 13, 14, 24, 25, 26]] = -3
    error = np.concatenate([[0], np.cumsum(steps)])
    truth = np.random.default_rng(0).random((5, 6, 40))
    assert seam_index(truth, truth + error, PLAN) == pytest.approx(3, rel=1e-5)
    assert seam_index(truth, truth + np.arange(40), PLAN) == pytest.approx(1, rel=1e-5)


def test_seam_index_sees_patches_that_disagree():
    rng = np.random.default_rng(1)
    truth = gaussian_filter(rng.random((20, 20, 40)), 2)
    noise = 0.01 * rng.normal(size=truth.shape)
    offsets = [np.full((20, 20, 16), offset) for offset in (0.0, 0.1, -0.1)]
    assert seam_index(truth, truth + noise, PLAN) == pytest.approx(1, abs=0.1)
    assert seam_index(truth, truth + noise + PLAN.stitch(np.stack(offsets)), PLAN) > 2


def test_seam_index_of_one_patch_is_refused():
    with pytest.raises(InputError, match="1 patches"):
        seam_index(np.ones((3, 3, 10)), np.ones((3, 3, 10)), plan_axial_patches(10, 16, 4))
