"""The implementation of `scripts/demo.py`: simulates, denoises and measures one patient, command by command."""

import csv
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation.demo_report import write_demo_report
from evaluation.running import launcher, run_command
from guided_diffusion.config import Role, flag
from guided_diffusion.config.parser import Parser, add_flags, read_flags
from guided_diffusion.inference.subjects import REPORT_NAME
from guided_diffusion.pet.volume import load_volume

# No patient of the training data has this seed.
SIMULATE = (
    "scripts/simulate.py --preset demo --subjects 1 --seed 2026 --split test --tracers fdg --scanners discovery_mi"
)


@dataclass(frozen=True)
class DemoFlags:
    """Flags of the demo: its folder and the weights."""

    out_dir: Path = flag(Path("results/demo"), "where everything goes", Role.FILES, metavar="DIR")
    model_path: Path = flag(Path("checkpoint/demo_ddpm3d.pt"), "the weights", Role.FILES, metavar="FILE")


def create_parser(description: str) -> Parser:
    """All flags of the demo."""
    parser = Parser(description)
    add_flags(parser, DemoFlags)
    return parser


def run_demo(parser: Parser, arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, run the commands of a user in turn, and write the report. Exits where one fails.

    arguments: instead of the process's own.
    """
    flags = read_flags(DemoFlags, vars(parser.parse_args(arguments)))
    out = flags.out_dir
    run_command(sys.executable, *SIMULATE.split(), "--doses", "1/20", "--out", out / "trial")
    low_path, normal_path = _scans_of(out / "trial")
    denoise = ("scripts/test.py", "--base_samples", low_path, "--model_path", flags.model_path, "--save_dir", out)
    page = ("--report", "True", "--reference", normal_path)
    run_command(*launcher(2), sys.executable, *denoise, *page)

    low, denoised, normal = (load_volume(path) for path in (low_path, out / "denoised.nii.gz", normal_path))
    write_demo_report(low.data, denoised.data, normal.data, low.voxel_mm, out)
    print(f"picture: {out / 'coronal_mips.png'}")
    print(f"page: {(out / REPORT_NAME).resolve().as_uri()} (open it in a browser)")


def _scans_of(trial: Path) -> tuple[Path, Path]:
    """Low-dose and normal-dose NIfTI of a data set's one subject."""
    with open(trial / "manifest.csv", newline="") as file:
        row = next(csv.DictReader(file))
    return trial / row["low_dose"], trial / row["normal_dose"]
