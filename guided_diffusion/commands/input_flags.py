"""Command-line flags about the input image, shared by the scripts that read one."""

import argparse
import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager

from guided_diffusion.config.inference_flags import InputFlags, TagFlags
from guided_diffusion.config.parser import add_flags
from guided_diffusion.errors import InputError
from guided_diffusion.pet.suv import SUVOverrides


def add_input_flags(parser: argparse.ArgumentParser, flags: type[TagFlags] = InputFlags) -> None:
    """The flags that replace missing or wrong DICOM tags, and --series unless `flags` leaves it out."""
    group = parser.add_argument_group(
        "DICOM input (weight, dose, half-life and times replace missing or wrong tags; the JSON beside the result names"
        " them)",
        "The unit of a NIfTI image (or another that nibabel reads) is the one stated by its BIDS sidecar or its header."
        " If none is stated, it is taken as SUV; or, if --weight_kg and --dose_bq are both given, as Bq/mL,"
        " decay-corrected to the injection, or to --scan_start if that and --injection_time are given too. A flag that"
        " does not apply to an image is an error.",
    )
    add_flags(group, flags)


def overrides_from(args: argparse.Namespace) -> SUVOverrides | None:
    """Replacements that the flags of `add_input_flags` give; None where they say nothing."""
    overrides = SUVOverrides(args.weight_kg, args.dose_bq, args.injection_time, args.half_life_s, args.scan_start)
    return overrides if overrides.given() else None


def words_of(overrides: SUVOverrides | None) -> list[str]:
    """The flags that give these replacements, as words of a command line."""
    return [] if overrides is None else [f"--{name}={value}" for name, value in overrides.given().items()]


@contextmanager
def without_input_flags(why: str) -> Iterator[None]:
    """For an image that the flags of `add_input_flags` do not apply to: errors that recommend one say what to do here.

    why: begins the addition, such as 'this command has no such flag'.
    """
    try:
        yield
    except InputError as error:
        if not any(f"--{field.name}" in str(error) for field in dataclasses.fields(InputFlags)):
            raise
        raise InputError(
            f"{error} ({why}: give the path of that series' folder, or make NIfTI in SUV of it with scripts/prepare.py)"
        ) from None
