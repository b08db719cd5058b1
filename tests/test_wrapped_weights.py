"""Weights as other programs save them are the same weights."""

import pytest
import torch

from guided_diffusion.checkpoints import load_checkpoint
from guided_diffusion.errors import InputError
from guided_diffusion.script_util import create_model
from tests.denoising import SMALL_HEADER
from tests.golden_weights import fill


@pytest.fixture(scope="module")
def weights():
    return fill(create_model(SMALL_HEADER.model, SMALL_HEADER.diffusion)).state_dict()


def prefixed(prefix, weights):
    return {f"{prefix}{name}": value for name, value in weights.items()}


WRAPPED = {
    "plain": lambda w: w,
    "ddp": lambda w: prefixed("module.", w),
    "compiled": lambda w: prefixed("_orig_mod.", w),
    "ddp of compiled": lambda w: prefixed("module._orig_mod.", w),
    "fsdp": lambda w: prefixed("_fsdp_wrapped_module.", w),
    "model": lambda w: {"model": w, "step": 10},
    "state_dict": lambda w: {"state_dict": w, "epoch": 3},
    "model_state_dict": lambda w: {"model_state_dict": w, "optimizer_state_dict": {"lr": 1.0}},
    "ddp in state_dict": lambda w: {"state_dict": prefixed("module.", w)},
    "lightning": lambda w: {"state_dict": prefixed("net.", w), "epoch": 3},
    "with header": lambda w: {"header": SMALL_HEADER.as_dict(), "state_dict": prefixed("module.", w)},
    "average": lambda w: {"model": {name: 0 * value for name, value in w.items()}, "ema": w},
}


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
def test_wrapped_weights_are_the_same_weights(weights, tmp_path, wrap):
    torch.save(wrap(weights), tmp_path / "model.pt")
    found = load_checkpoint(str(tmp_path / "model.pt")).state_dict
    assert set(found) == set(weights)
    assert all(torch.equal(found[name], value) for name, value in weights.items())


def test_where_they_were_is_told(weights, tmp_path):
    torch.save({"model": {name: 0 * value for name, value in weights.items()}, "ema": weights}, tmp_path / "model.pt")
    told = " ".join(load_checkpoint(str(tmp_path / "model.pt")).notices)
    assert "'ema'" in told
    assert "not 'model'" in told


def test_several_weights_without_an_average_are_refused(weights, tmp_path):
    torch.save({"generator": weights, "teacher": weights}, tmp_path / "model.pt")
    with pytest.raises(InputError, match="holds several weights \\('generator', 'teacher'\\)"):
        load_checkpoint(str(tmp_path / "model.pt"))
