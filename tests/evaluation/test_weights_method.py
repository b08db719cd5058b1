"""The method of a file of weights."""

import pytest
import torch

from evaluation.weights_method import method_of
from guided_diffusion.errors import InputError
from tests.evaluation_trial import write_weights


@pytest.mark.parametrize("method", ["unet3d", "local3d_draws"])
def test_a_header_names_the_method(tmp_path, method):
    write_weights(tmp_path / "weights.pt", method)
    assert method_of(tmp_path / "weights.pt").name == method


def test_weights_without_a_header_are_published_ones(tmp_path):
    torch.save({"weight": torch.zeros(1)}, tmp_path / "weights.pt")
    assert method_of(tmp_path / "weights.pt").name == "ddpm3d"


def test_an_unknown_method_is_refused(tmp_path):
    write_weights(tmp_path / "weights.pt", "own")
    with pytest.raises(InputError, match=r"weights\.pt: the header's method 'own' is unknown: this version knows"):
        method_of(tmp_path / "weights.pt")
