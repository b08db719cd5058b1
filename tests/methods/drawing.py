"""A small network that draws, and the flags of its training."""

import torch

from guided_diffusion.config import DiffusionConfig, Header, ModelConfig, PreprocessingConfig, SamplerConfig
from guided_diffusion.local_draws import LocalDraws

MODEL = ModelConfig(num_channels=32, num_res_blocks=1, channel_mult="1,2", low_res_scale=16.0)
HEADER = Header("local3d", MODEL, DiffusionConfig(), PreprocessingConfig((3.3,) * 3), SamplerConfig(), {})
TRAINED = {
    "method": "local3d_draws", "crop_size": "8,8,8", "channel_mult": "1,2", "low_res_scale": 16.0,
    "resblock_updown": False, "attention_resolutions": "16,8", "add_low_res": False, "predict_xstart": False,
}  # fmt: skip


def network(seed: int = 0) -> LocalDraws:
    """With random weights in the layers that begin at zero too."""
    torch.manual_seed(seed)
    model = LocalDraws(MODEL).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model
