"""Whether weights draw images about a mean, whose spread is an error bar."""

from pathlib import Path

from guided_diffusion.checkpoints import load_checkpoint
from guided_diffusion.methods.registry import method_named


def draws_images(weights: Path) -> bool:
    """Whether a file's network draws images of a stated dose; weights without a header do not.

    Raises InputError for a file that holds no weights, or those of an unknown method.
    """
    header = load_checkpoint(str(weights)).header
    return header is not None and method_named(header.method, f"{weights}: the header's method").noise_fields > 0
