"""SUV: the factor that turns what a slice or a volume stores into standardised uptake values.

`factors` is the interface; `sidecar` that of volume files. `overrides` are a user's values in place of tags.
"""

from guided_diffusion.pet.suv.factors import (
    SUV_TAGS,
    SUVConversion,
    suv_conversion,
    suvbw_factors,
)
from guided_diffusion.pet.suv.overrides import SUVError, SUVOverrides, suvbw_of_bqml

__all__ = [
    "SUV_TAGS",
    "SUVConversion",
    "SUVError",
    "SUVOverrides",
    "suv_conversion",
    "suvbw_factors",
    "suvbw_of_bqml",
]
