"""The default weights, used if a command line names none."""

from pathlib import Path

from guided_diffusion.errors import InputError

DEFAULT_WEIGHTS = Path(__file__).parents[2] / "checkpoint" / "local3d.pt"


def weights_or_default(path: str) -> tuple[str, list[str]]:
    """`path`, or the repository's weights with a notice where it is empty.

    Raises InputError where there are none, as beside an installed package: weights belong to the repository.
    """
    if path:
        return path, []
    if not DEFAULT_WEIGHTS.is_file():
        raise InputError(
            f"--model_path is missing, and {DEFAULT_WEIGHTS}, which stands in for it in a clone of the repository, is"
            " not there: give a checkpoint, such as local3d.pt of the repository's folder checkpoint"
        )
    return str(DEFAULT_WEIGHTS), [
        f"no --model_path is given: using {DEFAULT_WEIGHTS}, trained on virtual scans, which have no patient among them"
    ]
