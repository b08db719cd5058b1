"""On a GPU: the same network, the same numbers within its precision."""

import pytest
import torch

from guided_diffusion.config import DEMO_DIFFUSION, DEMO_MODEL
from guided_diffusion.fast.fast_unet import FastSuperResModel
from guided_diffusion.script_util import create_model
from tests.golden_weights import fill

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


PLAIN, FAST = (lambda model, dtype: model.to(dtype)), FastSuperResModel


@pytest.mark.parametrize("make", [PLAIN, FAST], ids=["plain", "fast"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-3), (torch.bfloat16, 0.1), (torch.float16, 0.02)])
def test_a_network_call_agrees_with_the_cpu(make, dtype, tolerance):
    model = fill(create_model(DEMO_MODEL, DEMO_DIFFUSION))
    rng = torch.Generator().manual_seed(0)
    x, low_res = torch.rand(2, 1, 1, 8, 32, 48, generator=rng)
    t = torch.tensor([300])
    with torch.no_grad():
        exact = model(x, t, low_res=low_res)
        on_gpu = make(model.cuda(), dtype)(x.cuda(), t.cuda(), low_res=low_res.cuda()).cpu()
    assert float((on_gpu - exact).abs().mean()) < tolerance * float(exact.abs().mean())
