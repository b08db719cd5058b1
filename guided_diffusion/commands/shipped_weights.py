"""The default weights, used if a command line names none."""

from pathlib import Path

from guided_diffusion.errors import InputError

DEFAULT_WEIGHTS = Path(__file__).parents[2] / "checkpoint" / "local3d.pt"


def weights_or_default(path: str) -> tuple[str, list[str]]:
    """`path`, or if it is empty the weights of the repository, with a notice.

    Raises InputError if there are none, as beside an installed package: weights are part of the repository only.
    """
    if path:
        return path, []
    if not DEFAULT_WEIGHTS.is_file():
        raise InputError(
            f"--model_path is missing, and so are the default weights, {DEFAULT_WEIGHTS}: give a checkpoint, such as"
            " checkpoint/local3d.pt of a clone of the repository"
        )
    return str(DEFAULT_WEIGHTS), [
        f"no --model_path is given: using {DEFAULT_WEIGHTS}, trained on virtual scans only, not on patients"
    ]
