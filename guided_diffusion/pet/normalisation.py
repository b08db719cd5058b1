"""Between SUV and what the network sees. Training and inference share these two functions."""

import numpy as np


def normalise(suv: np.ndarray, suv_max: float) -> np.ndarray:
    """SUV clipped to [0, suv_max] and divided by it: float32 in [0, 1], same shape."""
    return (np.clip(suv, 0.0, suv_max) / suv_max).astype(np.float32)


def denormalise(normalised: np.ndarray, suv_max: float) -> np.ndarray:
    """SUV (float32) of normalised values. Nothing is clipped."""
    return (normalised * suv_max).astype(np.float32)
