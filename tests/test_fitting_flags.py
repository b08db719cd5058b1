"""The flags of a network by its weights, and what is said where the two do not fit."""

import pytest
import torch

from guided_diffusion.checkpoints import load_weights
from guided_diffusion.errors import InputError
from guided_diffusion.fitting_flags import fitting_flags
from guided_diffusion.script_util import sr_create_model_and_diffusion
from tests.golden_weights import LAYOUTS


@pytest.mark.parametrize("name", LAYOUTS)
def test_fitting_flags_rebuild_the_layout(name):
    """Also where the layout has attention: the flags of a 64 network with attention at its two lowest levels."""
    flags = LAYOUTS[name]["flags"] | {"attention_resolutions": "16,8" if name == "large_size_64" else "1000"}
    with torch.device("meta"):
        model, _ = sr_create_model_and_diffusion(**flags)
        again, _ = sr_create_model_and_diffusion(**fitting_flags(model.state_dict()))
    shapes = {key: value.shape for key, value in model.state_dict().items()}
    assert {key: value.shape for key, value in again.state_dict().items()} == shapes


def test_misfits_name_the_first_tensors_and_the_flags_that_fit():
    with torch.device("meta"):
        model, _ = sr_create_model_and_diffusion(num_channels=32, attention_resolutions="1000")
        other, _ = sr_create_model_and_diffusion(
            num_channels=32, attention_resolutions="1000", num_res_blocks=1, large_size=96, resblock_updown=True
        )
    with pytest.raises(InputError, match=r"some\.pt") as refusal:
        load_weights(model, other.state_dict(), "some.pt")
    message = str(refusal.value)
    assert "missing: input_blocks.3.0.op.weight and " in message
    assert "unexpected: input_blocks.3.0.in_layers" in message
    assert "--num_res_blocks 1" in message
    assert "--resblock_updown True" in message
    assert "\n" not in message


def test_weights_of_another_kind_of_network():
    with torch.device("meta"):
        model, _ = sr_create_model_and_diffusion(num_channels=32, attention_resolutions="1000")
    with pytest.raises(InputError, match="another kind of network"):
        load_weights(model, {"conv.weight": torch.zeros(3)}, "some.pt")
    colours = model.state_dict() | {"out.2.weight": torch.zeros(6, 32, 3, 3, 3)}
    with pytest.raises(InputError, match="another kind of network"):
        load_weights(model, colours, "some.pt")


def test_entries_that_no_flags_would_explain_are_no_matter_of_flags():
    with torch.device("meta"):
        model, _ = sr_create_model_and_diffusion(num_channels=32, attention_resolutions="1000")
        weights = model.state_dict()
    with pytest.raises(InputError, match=r"more than the network's weights \(unexpected: betas\); save its weights"):
        load_weights(model, weights | {"betas": torch.zeros(3)}, "some.pt")
    with pytest.raises(InputError, match=r"do not fit the flags \(unexpected: label_emb\.weight\); flags that would"):
        load_weights(model, weights | {"label_emb.weight": torch.zeros(3, 2)}, "some.pt")
