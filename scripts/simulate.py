"""Make a virtual PET trial: patients, scanners, tracers and doses. Runs alone or under mpiexec."""

import argparse
from pathlib import Path

from tqdm import tqdm

from guided_diffusion import dist_util
from guided_diffusion.config.parser import Parser
from guided_diffusion.errors import InputError
from guided_diffusion.simulation import trial as trials
from guided_diffusion.simulation.acquisition import DOSES
from guided_diffusion.simulation.scanner import load_scanners, select
from guided_diffusion.simulation.tracers import load_tracers
from guided_diffusion.tasks import share_tasks


def positive(text: str) -> int:
    """An argument that counts something."""
    value = int(text)
    if value < 1:
        raise InputError(f"--subjects {value}: must be at least 1")
    return value


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = Parser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    shapes = "; ".join(f"{name}: {shape} voxels of {voxel} mm" for name, (shape, voxel) in trials.GRID_PRESETS.items())
    parser.add_argument("--preset", choices=trials.GRID_PRESETS, default="demo", help=shapes)
    parser.add_argument("--subjects", type=positive, default=1, help="number of virtual patients")
    parser.add_argument("--seed", type=int, default=0, help="the whole data set follows from it")
    parser.add_argument("--tracers", default="all", help=f"all, or a comma list of {', '.join(load_tracers())}")
    parser.add_argument("--scanners", default="all", help=f"all, or a comma list of {', '.join(load_scanners())}")
    all_doses = ",".join(f"1/{round(1 / dose)}" for dose in DOSES)
    parser.add_argument("--doses", default=all_doses, help="comma list of dose fractions; 1 is the normal dose itself")
    parser.add_argument(
        "--split", choices=("auto", *trials.SPLITS), default="auto", help="auto: 8 train, 1 validation, 1 test of ten"
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of the data set; an unfinished one is continued"
    )
    return parser.parse_args()


def prepare() -> tuple[trials.Trial, int, Path]:
    """The trial that the command line describes, its number of subjects, and its folder, opened."""
    arguments = parse_arguments()
    trial = trials.Trial(
        arguments.preset,
        arguments.seed,
        select(load_tracers(), arguments.tracers, "tracer"),
        select(load_scanners(), arguments.scanners, "scanner"),
        arguments.doses.split(","),
        arguments.split,
    )
    trials.open_trial(trial, arguments.out)
    return trial, arguments.subjects, arguments.out


def main() -> None:
    """Share the subjects among the ranks; rank 0 writes the manifest when all are there."""
    comm = dist_util.communicator()
    trial, count, out = comm.bcast(dist_util.on_root(prepare))
    subjects = [trials.plan_subject(trial, index) for index in range(count)]
    quiet = None if comm.rank == 0 else True  # None: a bar on a terminal, nothing elsewhere
    with tqdm(total=count, unit="subject", desc="simulating", disable=quiet) as progress:
        share_tasks(
            subjects,
            lambda subject, _step: trials.write_subject(trial, subject, out),
            on_result=lambda *_: progress.update(),
            on_step=lambda: None,
        )
    dist_util.on_root(trials.write_manifest, trial, count, out)


if __name__ == "__main__":
    dist_util.run_main(main)
