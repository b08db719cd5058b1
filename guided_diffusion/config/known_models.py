"""The published network, the shipped networks, and the recommended samplers for them."""

from dataclasses import replace

from guided_diffusion.config.header import SamplerConfig
from guided_diffusion.config.model import DiffusionConfig, ModelConfig, PreprocessingConfig

# The flags of the published weights.
RELEASED_MODEL = ModelConfig(
    large_size=96,
    small_size=96,
    num_channels=128,
    num_head_channels=64,
    attention_resolutions="1000",
    resblock_updown=True,
    use_scale_shift_norm=True,
)
RELEASED_DIFFUSION = DiffusionConfig(learn_sigma=True)

# For checkpoints without a recommendation, such as the published weights.
FAST_SAMPLER = SamplerConfig(sampler="ddim", timestep_respacing="ddim20", bfloat16=True)

# The small network that is trained on virtual patients and shipped: it adds a correction to the low-dose image, since
# a few hours on two cores do not suffice to learn the image from noise.
DEMO_MODEL = ModelConfig(
    large_size=96,
    small_size=96,
    num_channels=32,
    num_res_blocks=1,
    attention_resolutions="1000",
    resblock_updown=True,
    channel_mult="1,2,3",
    add_low_res=True,
    low_res_scale=16.0,
)
DEMO_DIFFUSION = DiffusionConfig(predict_xstart=True)
# Patches not much longer than the crops of training: the norms take their statistics over a whole patch.
DEMO_PREPROCESSING = PreprocessingConfig(voxel_mm=(3.3, 3.3, 3.3), patch_size=32)

# More calls gain 0.1 dB at the most (checkpoint/demo.md).
DEMO_SAMPLER = SamplerConfig(
    sampler="ddim", timestep_respacing="logsnr1", start_from="low_dose", start_step=250, bfloat16=True
)

# Small networks for comparisons of methods that see equally many voxels: as DEMO_MODEL, with about 1.65 million
# parameters each. A slice's network is deeper: its kernels have a third of the weights.
SMALL_MODEL = replace(DEMO_MODEL, channel_mult="1,1,2")
SMALL_SLICE_MODEL = replace(DEMO_MODEL, channel_mult="1,2,2,2", dims=2)

# The network for scanners outside its training, and the grid between the scans' and its own: finer than most
# scanners resolve, and not so fine that it costs more than it shows.
LOCAL_MODEL = ModelConfig(num_channels=96, num_res_blocks=1, channel_mult="1,2,2", low_res_scale=64.0)
LOCAL_PREPROCESSING = PreprocessingConfig(voxel_mm=(2.5, 2.5, 2.5), suv_max=64.0, linear_transfer=True, overlap=24)
