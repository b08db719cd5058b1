"""A measured number, and the definition of a metric."""

import math
from dataclasses import dataclass
from typing import Literal

Better = Literal["higher", "lower", "target"]

LESIONS = "lesions"
"""The region of all lesions of a subject pooled."""
LESION_PREFIX = "lesion_"


def pooled_region(region: str) -> str:
    """`LESIONS` for a single lesion such as "lesion_01", any other region as it is."""
    return LESIONS if region.startswith(LESION_PREFIX) else region


@dataclass(frozen=True)
class Measurement:
    """One number of one image.

    metric: a name in `METRICS`. region: "volume", "body", an organ such as "liver", or a lesion such as "lesion_01".
    """

    metric: str
    region: str
    value: float


@dataclass(frozen=True)
class Metric:
    """The definition of a metric.

    title: for tables and plots, without the unit. unit: "dB", "SUV", "%", or "" for a plain number. decimals: in
    tables. better: which values are better; "target" means nearer to `target`, None that the values are not rated.
    definition: a sentence. source: where it is defined.
    """

    title: str
    unit: str
    decimals: int
    better: Better | None
    definition: str
    source: str
    target: float = 0.0

    @property
    def heading(self) -> str:
        """The title with its unit in brackets."""
        return f"{self.title} ({self.unit})" if self.unit else self.title

    def loss(self, value: float) -> float:
        """A number that is lower for better values, NaN where no direction is good in itself."""
        if self.better is None:
            return math.nan
        return {"higher": -value, "lower": value, "target": abs(value - self.target)}[self.better]
