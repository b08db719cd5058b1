"""The method of a file of weights, which says what the network can do."""

from pathlib import Path

from guided_diffusion.checkpoints import load_checkpoint
from guided_diffusion.interfaces import Method
from guided_diffusion.methods.registry import METHODS, method_named


def method_of(weights: Path) -> Method:
    """The method that a header names; without one the weights are published ones.

    Raises InputError for a file that holds no weights, or those of an unknown method.
    """
    header = load_checkpoint(str(weights)).header
    return METHODS["ddpm3d"] if header is None else method_named(header.method, f"{weights}: the header's method")
