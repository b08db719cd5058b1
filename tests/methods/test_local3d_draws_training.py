"""Training of a network that draws: what it begins with, what it leaves alone, how it goes on."""

import numpy as np
import pytest
import torch

from guided_diffusion.checkpoints import load_checkpoint, save_checkpoint
from guided_diffusion.errors import InputError
from tests.methods.drawing import HEADER, TRAINED, network
from tests.training_runs import run


def regression(folder):
    """A file of weights to begin with."""
    path = folder / "local3d.pt"
    save_checkpoint(path, network().regression.state_dict(), HEADER)
    return path


def test_training_begins_with_a_regression_leaves_it_alone_and_goes_on_with_the_same_bits(data_dir, tmp_path):
    begun = regression(tmp_path)
    for folder, steps in (("parts", 2), ("parts", 4), ("whole", 4)):
        run(data_dir, tmp_path / folder, **TRAINED, max_steps=steps, resume_checkpoint=str(begun))
    before, after, whole = (
        load_checkpoint(str(path)).state_dict
        for path in (begun, tmp_path / "parts" / "model000004.pt", tmp_path / "whole" / "model000004.pt")
    )
    for name, value in before.items():
        assert torch.equal(after[f"regression.{name}"], value)
    assert after["down.0.second.weight"].abs().max() > 0
    assert all(torch.equal(after[name], value) for name, value in whole.items())


def test_training_begins_with_the_regression_of_a_run_and_says_so(data_dir, tmp_path, caplog):
    caplog.set_level("INFO", "guided_diffusion")
    local = TRAINED | {"method": "local3d"}
    run(data_dir, tmp_path / "regression", **local, max_steps=1, ema_rate="0.5")
    begun = tmp_path / "regression" / "model000001.pt"
    assert (tmp_path / "regression" / "opt000001.pt").exists()
    for steps in (1, 2):
        caplog.clear()
        run(data_dir, tmp_path / "draws", **TRAINED, max_steps=steps, resume_checkpoint=str(begun))
        assert (f"beginning with {begun}" in caplog.text) == (steps == 1)
    before, after = (load_checkpoint(str(path)) for path in (begun, tmp_path / "draws" / "model000002.pt"))
    for name, value in before.state_dict.items():
        assert torch.equal(after.state_dict[f"regression.{name}"], value)
    with pytest.raises(InputError, match="trained as local3d, but --method is local3d_draws; give the same"):
        run(data_dir, tmp_path / "regression", **TRAINED, max_steps=2, ema_rate="0.5")


def test_a_mean_that_is_not_trained_is_not_validated(data_dir, tmp_path, caplog):
    caplog.set_level("INFO", "guided_diffusion")
    begun = regression(tmp_path)
    run(data_dir, tmp_path / "run", **TRAINED, max_steps=1, resume_checkpoint=str(begun), validation_interval=1)
    assert "its mean is not trained, so no scores" in caplog.text
    assert not list((tmp_path / "run").glob("ema_*_best.pt"))


def test_what_training_lacks_is_said_before_it_begins(data_dir, tmp_path):
    with pytest.raises(InputError, match="begins with trained weights: name them by --resume_checkpoint"):
        run(data_dir, tmp_path / "run", **TRAINED, max_steps=1)
    pairs = tmp_path / "pairs"
    pairs.mkdir()
    np.savez(pairs / "a.npz", arr_0=np.ones((2, 8, 8, 8), dtype=np.float32))
    with pytest.raises(InputError, match="needs every pair's dose"):
        run(pairs, tmp_path / "run", **TRAINED, max_steps=1, resume_checkpoint=str(regression(tmp_path)))
