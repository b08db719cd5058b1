"""Reading files of other training programs whose content includes objects of classes that are not loaded.

Beside the weights, training programs save their arguments (a Namespace), scores (NumPy numbers), paths or
configurations. Each is replaced by an empty stand-in: no class of the file is imported, nothing of it is executed.
"""

import io
from typing import Any, Self

import torch


class StandIn:
    """Takes the place of an object, whatever that was made from."""

    def __new__(cls, *_args: Any, **_named: Any) -> Self:
        return super().__new__(cls)

    def __init__(self, *_args: Any, **_named: Any):
        pass

    def __setstate__(self, _state: Any) -> None:
        """Ignore the attributes that the object had."""


def load_with_stand_ins(content: bytes, map_location: torch.device | str) -> Any:
    """What a file of PyTorch holds, with a stand-in for every object that `torch.load` would refuse.

    Raises what PyTorch raises: for damaged files, for dictionaries of classes of their own, and for files in its older
    format with such objects.
    """
    strange = torch.serialization.get_unsafe_globals_in_checkpoint(io.BytesIO(content))
    stand_ins = [(type(name, (StandIn,), {}), name) for name in strange]
    with torch.serialization.safe_globals(stand_ins):
        return torch.load(io.BytesIO(content), map_location=map_location, weights_only=True)
