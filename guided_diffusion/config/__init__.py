"""Settings of models, processes and grids, and the single declaration of every flag.

A flag is a field of a frozen dataclass here, or beside the only command that has it.
"""

from guided_diffusion.config.flags import Role, field_names, flag, flags_of, flags_with
from guided_diffusion.config.header import Header, SamplerConfig
from guided_diffusion.config.known_models import (
    DEMO_DIFFUSION,
    DEMO_MODEL,
    DEMO_PREPROCESSING,
    DEMO_SAMPLER,
    FAST_SAMPLER,
    LOCAL_MODEL,
    LOCAL_PREPROCESSING,
    RELEASED_DIFFUSION,
    RELEASED_MODEL,
    SMALL_MODEL,
    SMALL_SLICE_MODEL,
)
from guided_diffusion.config.model import DiffusionConfig, ModelConfig, PreprocessingConfig

__all__ = [
    "DEMO_DIFFUSION",
    "DEMO_MODEL",
    "DEMO_PREPROCESSING",
    "DEMO_SAMPLER",
    "FAST_SAMPLER",
    "LOCAL_MODEL",
    "LOCAL_PREPROCESSING",
    "RELEASED_DIFFUSION",
    "RELEASED_MODEL",
    "SMALL_MODEL",
    "SMALL_SLICE_MODEL",
    "DiffusionConfig",
    "Header",
    "ModelConfig",
    "PreprocessingConfig",
    "Role",
    "SamplerConfig",
    "field_names",
    "flag",
    "flags_of",
    "flags_with",
]
