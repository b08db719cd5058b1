"""Published helpers for names of checkpoints and the log folder, for scripts written for the published code.

Training itself is `scripts/train.py`, whose flags have the published names.
"""

from guided_diffusion import logger
from guided_diffusion.errors import InputError


def parse_resume_step_from_filename(filename: str) -> int:
    """The step in a name such as model000200.pt; 0 for another name."""
    digits = filename.rpartition("model")[2].partition(".")[0]
    return int(digits) if filename.endswith(".pt") and digits.isascii() and digits.isdecimal() else 0


def get_blob_logdir() -> str:
    """The folder of logs and checkpoints."""
    return logger.get_dir()


class TrainLoop:
    """Stands where the published code has its training loop, and says what serves instead."""

    def __init__(self, **_options: object):
        raise InputError(
            "train_util.TrainLoop is not served, since crops have names here and are no stream: train with"
            " scripts/train.py, whose flags have the published names"
        )
