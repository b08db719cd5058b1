"""The product in one command: simulate a patient at 1/20 of the dose, denoise the scan on two ranks, evaluate it.

    python scripts/demo.py --out_dir results/demo

It runs the commands that a user would type, and prints them.
"""

import csv
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from evaluation.demo_report import write_demo_report
from guided_diffusion.config.parser import Parser
from guided_diffusion.dist_util import run_main
from guided_diffusion.pet.volume import load_volume

# No patient of the training data has this seed.
SIMULATE = (
    "scripts/simulate.py --preset demo --subjects 1 --seed 2026 --split test --tracers fdg --scanners discovery_mi"
)


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--out_dir", type=Path, default=Path("results/demo"), help="where everything goes")
    parser.add_argument("--model_path", type=Path, default=Path("checkpoint/demo_ddpm3d.pt"), help="the weights")
    arguments = parser.parse_args()
    out = arguments.out_dir

    run(sys.executable, *SIMULATE.split(), "--doses", "1/20", "--out", out / "trial")
    low_path, normal_path = scans_of(out / "trial")
    launcher = [mpiexec, "-n", "2"] if (mpiexec := shutil.which("mpiexec")) else []
    denoise = ("scripts/test.py", "--base_samples", low_path, "--model_path", arguments.model_path, "--save_dir", out)
    run(*launcher, sys.executable, *denoise)

    low, denoised, normal = (load_volume(path) for path in (low_path, out / "denoised.nii.gz", normal_path))
    write_demo_report(low.data, denoised.data, normal.data, low.voxel_mm, out)
    print(f"picture: {out / 'coronal_mips.png'}")


def run(*command: object) -> None:
    """Print a command and run it; its failure is ours."""
    words = [str(word) for word in command]
    print(f"$ {shlex.join(words)}", flush=True)
    done = subprocess.run(words, check=False)
    if done.returncode:
        sys.exit(done.returncode)


def scans_of(trial: Path) -> tuple[Path, Path]:
    """Low-dose and normal-dose NIfTI of a data set's one subject."""
    with open(trial / "manifest.csv", newline="") as file:
        row = next(csv.DictReader(file))
    return trial / row["low_dose"], trial / row["normal_dose"]


if __name__ == "__main__":
    run_main(main)
