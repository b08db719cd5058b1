"""The command line of `scripts/test.py`."""

from guided_diffusion.commands.input_flags import add_input_flags
from guided_diffusion.config import DiffusionConfig, ModelConfig, PreprocessingConfig, Role
from guided_diffusion.config.inference_flags import (
    ExecutionFlags,
    OutputFlags,
    PrecisionFlags,
    PresetFlags,
    ReportFlags,
    Sampling,
)
from guided_diffusion.config.parser import Parser, add_flags


def create_parser(description: str) -> Parser:
    """All flags of inference. Those that a preset or a header decides stay out of the result unless they are given."""
    parser = Parser(description)
    add_flags(parser.add_argument_group("input and output"), OutputFlags)
    add_flags(parser.add_argument_group("report"), ReportFlags)
    add_input_flags(parser)
    sampling = parser.add_argument_group("sampling", "What is not given here comes from the preset.")
    add_flags(sampling, PresetFlags, Sampling, given_only=True)
    add_flags(sampling, PreprocessingConfig, roles=[Role.SAMPLING], given_only=True)
    computing = parser.add_argument_group("computing")
    add_flags(computing, PrecisionFlags, given_only=True)
    add_flags(computing, ExecutionFlags)
    network = parser.add_argument_group("network, for weights without a header")
    add_flags(network, ModelConfig, given_only=True)
    diffusion = parser.add_argument_group("diffusion, for weights without a header")
    add_flags(diffusion, DiffusionConfig, given_only=True)
    return parser
