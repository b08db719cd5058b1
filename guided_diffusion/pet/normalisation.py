"""SUV limits of air and of the network's input, and the scaling of SUV used in training and inference."""

import numpy as np

# A mean over about 1 cm separates body and air: air holds a few hundredths, a thigh 0.2 and more.
BODY_SUV = 0.1
# The published networks saw SUV of 0 to this.
DEFAULT_SUV_MAX = 16.0


def normalise(suv: np.ndarray, suv_max: float, *, negative: bool = False) -> np.ndarray:
    """SUV clipped to [0, suv_max] and divided by it: float32 in [0, 1], same shape.

    negative: clip to [-suv_max, suv_max] instead.
    """
    return (np.clip(suv, -suv_max if negative else 0.0, suv_max) / suv_max).astype(np.float32, copy=False)


def denormalise(normalised: np.ndarray, suv_max: float) -> np.ndarray:
    """SUV (float32) of normalised values. Nothing is clipped."""
    return (normalised * suv_max).astype(np.float32)
