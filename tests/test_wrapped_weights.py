"""Weights as other programs save them are the same weights."""

import argparse
from pathlib import PosixPath

import numpy as np
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


def zeros(weights):
    return {name: 0 * value for name, value in weights.items()}


class Configuration:
    """A class of a training program."""

    def __init__(self):
        self.depth = 3


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
    "average": lambda w: {"model": zeros(w), "ema": w},
    "average of ema_pytorch": lambda w: {
        "model": zeros(w),
        "ema": prefixed("ema_model.", w) | prefixed("online_model.", zeros(w)) | {"step": torch.tensor([3])},
    },
    "average of lightning": lambda w: {
        "state_dict": prefixed("model.", zeros(w))
        | prefixed("model_ema.module.", w)
        | {"model_ema.decay": torch.tensor(0.999), "model_ema.num_updates": torch.tensor(3)}
    },
    "average in camel case": lambda w: {"netEMA": w, "net": zeros(w)},
    "average beside one whose name says that it is none": lambda w: {"ema": w, "non_ema": zeros(w)},
    "average without names": lambda w: {"model": w, "ema": {"decay": 0.9, "shadow_params": list(zeros(w).values())}},
    "with counters of a profiler": lambda w: (
        w
        | {
            f"{part}{name}": torch.zeros(1, dtype=torch.float64)
            for part in ("", "time_embed.", "out.")
            for name in ("total_ops", "total_params")
        }
    ),
    "with a count": lambda w: w | {"num_updates": torch.tensor(3)},
    "with arguments": lambda w: {"model": w, "args": argparse.Namespace(lr=1e-4)},
    "with NumPy's numbers": lambda w: {"state_dict": w, "best": np.float64(30), "losses": np.arange(3.0)},
    "with paths": lambda w: {"state_dict": w, "data_dir": PosixPath("/data")},
    "with a configuration": lambda w: {"state_dict": w, "cfg": Configuration()},
}


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
def test_wrapped_weights_are_the_same_weights(weights, tmp_path, wrap):
    torch.save(wrap(weights), tmp_path / "model.pt")
    found = load_checkpoint(str(tmp_path / "model.pt")).state_dict
    assert set(found) == set(weights)
    assert all(torch.equal(found[name], value) for name, value in weights.items())


def test_a_profilers_counters_are_left_out_of_other_networks_too(tmp_path):
    torch.save(
        {"conv.weight": torch.ones(3), "conv.total_ops": torch.zeros(1), "total_ops": torch.zeros(1)}, tmp_path / "m.pt"
    )
    assert set(load_checkpoint(str(tmp_path / "m.pt")).state_dict) == {"conv.weight"}


def test_where_they_were_is_told(weights, tmp_path):
    torch.save({"model": zeros(weights), "ema": weights}, tmp_path / "model.pt")
    told = " ".join(load_checkpoint(str(tmp_path / "model.pt")).notices)
    assert "'ema'" in told
    assert "not 'model'" in told


def test_several_weights_without_an_average_are_refused(weights, tmp_path):
    torch.save({"generator": weights, "teacher": weights}, tmp_path / "model.pt")
    with pytest.raises(InputError, match="holds several weights \\('generator', 'teacher'\\)"):
        load_checkpoint(str(tmp_path / "model.pt"))


@pytest.mark.parametrize("other", ["model_no_ema", "model_without_ema", "nonema", "semantic", "schema"])
def test_a_name_that_only_contains_ema_is_no_average(weights, tmp_path, other):
    torch.save({"model": weights, other: weights}, tmp_path / "model.pt")
    with pytest.raises(InputError, match=rf"holds several weights \('model', '{other}'\)"):
        load_checkpoint(str(tmp_path / "model.pt"))


@pytest.mark.parametrize(
    ("wrap", "name"),
    [
        (lambda w: {"model": w, "ema": {"decay": 0.9, "shadow_params": list(w.values())}}, "shadow_params"),
        (
            lambda w: {
                "state_dict": prefixed("model.", w) | {f"model_ema.{n.replace('.', '')}": v for n, v in w.items()}
            },
            "model_ema",
        ),
    ],
)
def test_an_average_without_names_is_told(weights, tmp_path, wrap, name):
    torch.save(wrap(weights), tmp_path / "model.pt")
    assert any(f"the average {name!r} is left out" in line for line in load_checkpoint(f"{tmp_path}/model.pt").notices)
    torch.save({"model": weights}, tmp_path / "model.pt")
    assert not any("is left out" in line for line in load_checkpoint(f"{tmp_path}/model.pt").notices)


@pytest.mark.parametrize("wrap", [lambda w: w, lambda w: {"model": w}, lambda w: prefixed("net.", w)])
def test_weights_as_numpy_arrays_are_named(weights, tmp_path, wrap):
    torch.save(wrap({name: value.numpy() for name, value in weights.items()}), tmp_path / "model.pt")
    with pytest.raises(InputError, match=r"model\.pt: the weights are no tensors; convert NumPy arrays"):
        load_checkpoint(str(tmp_path / "model.pt"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"state": {0: {}}, "param_groups": [{"lr": 1e-4}]}, "is the state of an optimiser; name the weights"),
        ({"step": 3, "optimiser": {"state": {}}}, "is the state of an optimiser; name the weights"),  # of this program
        (torch.nn.Linear(2, 2), "so it is not loaded; save its weights alone: torch.save"),
        ((1, 2), "holds a tuple, not a state dict; save its weights alone"),
    ],
)
def test_what_is_no_weights_is_named_with_a_way_out(content, words, tmp_path):
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(InputError, match=rf"model\.pt: .*{words}"):
        load_checkpoint(str(tmp_path / "model.pt"))


def test_a_stand_in_runs_nothing(weights, tmp_path):
    """Weights beside an object whose unpickling would make a file."""
    torch.save({"model": weights, "made": Making(tmp_path / "made")}, tmp_path / "model.pt")
    assert set(load_checkpoint(str(tmp_path / "model.pt")).state_dict) == set(weights)
    assert not (tmp_path / "made").exists()


class Making:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))
