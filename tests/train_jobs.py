"""Runs of training inside one `mpiexec`: every line of a file is the flags of a run, as JSON.

A run with "mistake_of_item" meets a damaged pair at that item: only the rank that has the item notices.
"""

import json
import sys
from pathlib import Path

from guided_diffusion import logger
from guided_diffusion.commands import train as train_command
from guided_diffusion.dist_util import run_main
from guided_diffusion.errors import InputError
from guided_diffusion.image_datasets import Crop, CropSource
from guided_diffusion.training.settings import training_settings


def damage(item: int) -> None:
    """From here on, no crop with this number can be read."""
    whole = CropSource.crop

    def crop(source: CropSource, step: int, number: int) -> Crop:
        if number == item:
            raise InputError(f"item {number} is damaged")
        return whole(source, step, number)

    CropSource.crop = crop


def main() -> None:
    for line in Path(sys.argv[1]).read_text().splitlines():
        flags = json.loads(line)
        if "mistake_of_item" in flags:
            damage(flags.pop("mistake_of_item"))
        folder = Path(flags["save_dir"])
        folder.mkdir(exist_ok=True)
        with logger.to_folder(folder):
            train_command.train_with(training_settings(flags), folder)


if __name__ == "__main__":
    run_main(main)
