"""The estimate of training memory: what it counts, and that the published network fits where README says it does."""

import pytest
import torch

from guided_diffusion.config import DEMO_DIFFUSION, DEMO_MODEL, RELEASED_DIFFUSION, RELEASED_MODEL
from guided_diffusion.script_util import create_model
from guided_diffusion.training.training_memory import StorageCounter, training_memory

GIB = 2**30


def test_storages_are_counted_while_they_live():
    with StorageCounter() as counter:
        first = torch.zeros(1000)
        second = first.exp()  # 8000 bytes are alive
        view = second[:500]
        del first, second  # the view keeps its storage
        assert counter.alive == 4000
        third = view + 1
        assert counter.alive == 6000
        del view, third
    assert counter.alive == 0
    assert counter.peak == 8000


def test_saved_activations_are_in_the_peak():
    """Ten SiLUs keep their ten inputs, of which one is not made here; the backward pass adds a gradient or two."""
    x = torch.zeros(10_000, requires_grad=True)
    with StorageCounter() as counter:
        y = x
        for _ in range(10):
            y = torch.nn.functional.silu(y)
        y.sum().backward()
    assert 10 * 40_000 <= counter.peak <= 13 * 40_000


def test_constant_parts_follow_from_the_number_of_weights():
    size = sum(p.numel() for p in create_model(DEMO_MODEL, DEMO_DIFFUSION).parameters())
    memory = training_memory(DEMO_MODEL, DEMO_DIFFUSION, (16, 16, 4), torch.float32, use_checkpoint=False, averages=3)
    assert (memory.weights, memory.optimiser, memory.averages) == (4 * size, 8 * size, 12 * size)
    assert memory.passes > 4 * size  # the gradients at least


def test_crops_cost_in_proportion_and_savings_save():
    def passes(size: int, precision: torch.dtype = torch.float32, use_checkpoint: bool = False) -> int:
        crop = (48, 48, size)
        return training_memory(DEMO_MODEL, DEMO_DIFFUSION, crop, precision, use_checkpoint).passes

    assert passes(64) - passes(32) == pytest.approx(2 * (passes(32) - passes(16)), rel=0.05)
    assert passes(32, torch.bfloat16) < 0.8 * passes(32)
    assert passes(32, use_checkpoint=True) < 0.5 * passes(32)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_the_published_crop_fits_24_gb(precision):
    memory = training_memory(RELEASED_MODEL, RELEASED_DIFFUSION, (96, 96, 96), precision, use_checkpoint=True)
    assert memory.weights == 4 * 206_964_610
    assert memory.total < 20 * GIB  # 24 GB are 22.4 GiB, of which the GPU's context and convolutions need some
