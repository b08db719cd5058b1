"""Command-line flags about the input image, shared by the scripts that read one."""

import argparse

from guided_diffusion.config.inference_flags import InputFlags
from guided_diffusion.config.parser import add_flags
from guided_diffusion.pet.suv import SUVOverrides


def add_input_flags(parser: argparse.ArgumentParser) -> None:
    """--series and the flags that replace missing or wrong DICOM tags."""
    group = parser.add_argument_group(
        "DICOM input (the last five replace missing or wrong tags and are recorded)",
        "Of a NIfTI (or other nibabel) image the unit that its BIDS sidecar or its header names is believed. Where"
        " none is named, --weight_kg and --dose_bq, always both, say that its values are Bq/mL, decay-corrected to the"
        " injection; without them it is taken as SUV. What an image cannot use is refused.",
    )
    add_flags(group, InputFlags)


def overrides_from(args: argparse.Namespace) -> SUVOverrides | None:
    """Replacements that the flags of `add_input_flags` give; None where they say nothing."""
    overrides = SUVOverrides(args.weight_kg, args.dose_bq, args.injection_time, args.half_life_s, args.scan_start)
    return overrides if overrides.given() else None
