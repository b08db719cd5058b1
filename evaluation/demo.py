"""The work of `scripts/demo.py`: one patient simulated, denoised and measured, command by command."""

import csv
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation.demo_report import write_demo_report
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
    _run(sys.executable, *SIMULATE.split(), "--doses", "1/20", "--out", out / "trial")
    low_path, normal_path = _scans_of(out / "trial")
    launcher = [mpiexec, "-n", "2"] if (mpiexec := shutil.which("mpiexec")) else []
    denoise = ("scripts/test.py", "--base_samples", low_path, "--model_path", flags.model_path, "--save_dir", out)
    page = ("--report", "True", "--reference", normal_path)
    _run(*launcher, sys.executable, *denoise, *page)

    low, denoised, normal = (load_volume(path) for path in (low_path, out / "denoised.nii.gz", normal_path))
    write_demo_report(low.data, denoised.data, normal.data, low.voxel_mm, out)
    print(f"picture: {out / 'coronal_mips.png'}")
    print(f"page: {(out / REPORT_NAME).resolve().as_uri()} (open it in a browser)")


def _run(*command: object) -> None:
    """Print a command and run it; exit with its code where it fails."""
    words = [str(word) for word in command]
    print(f"$ {shlex.join(words)}", flush=True)
    done = subprocess.run(words, check=False)
    if done.returncode:
        sys.exit(done.returncode)


def _scans_of(trial: Path) -> tuple[Path, Path]:
    """Low-dose and normal-dose NIfTI of a data set's one subject."""
    with open(trial / "manifest.csv", newline="") as file:
        row = next(csv.DictReader(file))
    return trial / row["low_dose"], trial / row["normal_dose"]
