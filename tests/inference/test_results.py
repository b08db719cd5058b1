"""The way of results back to the scan's grid: what their numbers keep on it."""

from types import SimpleNamespace

import numpy as np
import pytest

from guided_diffusion.config.known_models import LOCAL_PREPROCESSING
from guided_diffusion.inference.results import Result
from guided_diffusion.pet.geometry import to_model_grid
from guided_diffusion.pet.grid import Volume


def test_what_lies_below_zero_on_the_models_grid_does_not_raise_means():
    """As between the peaks of an unfiltered image with few counts, of which a network leaves a part or everything."""
    rng = np.random.default_rng(0)
    scan = Volume(rng.gamma(0.2, 3.0, (60, 56, 48)).astype(np.float32), np.diag([-1.5, -1.5, 1.5, 1.0]))
    model_input = to_model_grid(scan, voxel_mm=2.5, linear=True)
    assert (model_input.data < 0).mean() > 0.3
    loaded = SimpleNamespace(sampling=SimpleNamespace(realisations=1), preprocessing=LOCAL_PREPROCESSING)
    result = Result(scan, model_input, loaded, "keep", None)
    result.add(model_input.data / LOCAL_PREPROCESSING.suv_max)
    back = result.described(None, []).volume.data
    inner = (slice(8, -8),) * 3
    # On the scan's grid a little is cut off. Cut off on the model's too, it would be 40 %.
    assert back[inner].mean() == pytest.approx(scan.data[inner].mean(), rel=0.06)
    assert back.min() == 0
