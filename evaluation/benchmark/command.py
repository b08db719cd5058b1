"""The implementation of `scripts/benchmark.py`: runs the chosen sections, writes a Markdown report and JSON."""

import argparse
import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from evaluation.benchmark.gpu import measure_gpu
from evaluation.benchmark.network_call import measure_network
from evaluation.benchmark.rank_scaling import measure_ranks, measure_startup
from evaluation.benchmark.sampler_table import measure_samplers
from evaluation.benchmark.seams import measure_seams
from evaluation.benchmark.section import Section
from evaluation.benchmark.training_step import measure_training
from evaluation.benchmark.whole_volume import measure_volume
from guided_diffusion.config import Role, flag
from guided_diffusion.config.parser import Parser, add_flags
from guided_diffusion.dist_util import share_cores
from guided_diffusion.errors import InputError
from guided_diffusion.files import write_text

# Each takes the parsed arguments; a further section is a further line here.
SECTIONS: dict[str, Callable[[argparse.Namespace], Section]] = {
    "network": lambda flags: measure_network(rounds=3 if flags.quick else 9),
    "volume": lambda flags: measure_volume(flags.model_path, timed_steps=2 if flags.quick else 10),
    "ranks": lambda flags: measure_ranks(flags.model_path, in_plane=128),
    "startup": lambda _flags: measure_startup(),
    "training": lambda flags: measure_training(rounds=2 if flags.quick else 9),
    "samplers": lambda flags: measure_samplers(flags.model_path, flags.trial, longest=20 if flags.quick else 1000),
    "seams": lambda flags: measure_seams(flags.model_path, flags.trial, chain=not flags.quick),
    "gpu": lambda flags: measure_gpu(rounds=3 if flags.quick else 9),
}
# These ask for --trial.
ON_TRIALS = ("samplers", "seams")


@dataclass(frozen=True)
class BenchmarkFlags:
    """Sections to measure, the weights, and where the numbers go."""

    quick: bool = flag(False, "within five minutes", Role.MACHINE)
    sections: str = flag("", f"of {','.join(SECTIONS)}", Role.FILES, metavar="LIST", shown="all it can")
    model_path: str = flag("checkpoint/demo_ddpm3d.pt", "weights to run", Role.FILES, metavar="FILE")
    trial: Path | None = flag(
        None, "a validation trial, for the sections samplers and seams", Role.FILES, metavar="DIR"
    )
    json: Path | None = flag(None, "write the numbers here", Role.FILES, metavar="FILE")
    markdown: Path | None = flag(None, "write the tables here", Role.FILES, metavar="FILE")
    threads: int = flag(0, "CPU threads", Role.MACHINE, shown="all cores")


def create_parser(description: str) -> Parser:
    """All flags of the benchmark."""
    parser = Parser(description)
    add_flags(parser, BenchmarkFlags)
    return parser


def run_benchmark(parser: Parser, arguments: Sequence[str] | None = None) -> None:
    """Measure, print the tables as they come, and write the files that were asked for."""
    flags = parser.parse_args(arguments)
    chosen = _chosen(flags.sections, flags.trial is not None)
    threads = share_cores(flags.threads)
    machine = f"{platform.processor() or platform.machine()}, {threads} thread(s), PyTorch {torch.__version__}"
    print(f"{machine}\n", flush=True)
    sections = []
    for name in chosen:
        sections.append(SECTIONS[name](flags))
        print(f"{sections[-1].markdown()}\n", flush=True)
    if flags.json:
        values = {section.name: section.values for section in sections}
        write_text(flags.json, json.dumps({"machine": machine, **values}, indent=2) + "\n")
    if flags.markdown:
        write_text(flags.markdown, "\n\n".join([machine, *(section.markdown() for section in sections)]) + "\n")


def _chosen(text: str, trial: bool) -> list[str]:
    """The sections to run: those listed, or all that this machine can."""
    if not text:
        return [
            name
            for name in SECTIONS
            if (trial or name not in ON_TRIALS) and (name != "gpu" or torch.cuda.is_available())
        ]
    names = text.split(",")
    unknown = [name for name in names if name not in SECTIONS]
    if unknown:
        raise InputError(f"--sections {text}: {unknown[0]!r} is unknown; choose from {', '.join(SECTIONS)}")
    if "gpu" in names and not torch.cuda.is_available():
        raise InputError("--sections gpu: there is no CUDA device on this machine")
    return [name for name in SECTIONS if name in names]  # in this order: the first one's memory has its own rules
