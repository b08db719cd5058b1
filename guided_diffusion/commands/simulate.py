"""The implementation of `scripts/simulate.py`: writes a virtual trial."""

import math
from collections.abc import Sequence
from dataclasses import MISSING, dataclass
from fractions import Fraction
from pathlib import Path

from tqdm import tqdm

from guided_diffusion import logger
from guided_diffusion.config import Role, flag
from guided_diffusion.config.parser import Parser, add_flags, read_flags, refuse_without_effect
from guided_diffusion.dist_util import communicator, on_root
from guided_diffusion.errors import InputError
from guided_diffusion.pet.text import number_of
from guided_diffusion.pet.trial_manifest import SPLITS
from guided_diffusion.simulation import trial as trials
from guided_diffusion.simulation.acquisition import DOSES
from guided_diffusion.simulation.random_acquisition import RANDOM_SCANNERS
from guided_diffusion.simulation.random_trial import RandomTrial, random_manifest_rows, write_random_subject
from guided_diffusion.simulation.scanner import load_scanners, select
from guided_diffusion.simulation.tracers import load_tracers
from guided_diffusion.tasks import share_tasks

OF_DRAWN_SCANNERS = ("pair_voxel_mm", "reconstructions", "native", "clean_share")
"""Flags without effect on the other scanners."""


@dataclass(frozen=True, kw_only=True)
class SimulationFlags:
    """Flags that describe the virtual trial, and name its folder."""

    preset: str = flag(
        "demo",
        "grid of the images",
        Role.IMAGES,
        choices={name: f"{shape} voxels of {voxel} mm" for name, (shape, voxel) in trials.GRID_PRESETS.items()},
    )
    subjects: int = flag(1, "number of virtual patients", Role.IMAGES)
    seed: int = flag(0, "seed of the whole data set", Role.IMAGES)
    tracers: str = flag("all", f"all, or a comma list of {', '.join(load_tracers())}", Role.IMAGES)
    scanners: str = flag(
        "all",
        f"all, or a comma list of {', '.join(load_scanners())}; or one of {', '.join(RANDOM_SCANNERS)}: draws for each"
        " subject a scanner and reconstructions from published ranges; pairs are resampled from the scanner's grid",
        Role.IMAGES,
    )
    pair_voxel_mm: float = flag(2.5, "drawn scanners: voxel size of the pairs in mm", Role.IMAGES)
    reconstructions: int = flag(4, "drawn scanners: number of reconstructions per measurement", Role.IMAGES)
    native: bool = flag(
        False, "drawn scanners: keep images, truth and labels on the scanner's grid, as NIfTI", Role.IMAGES
    )
    clean_share: str = flag(
        "0",
        "drawn scanners: share of the normal dose's noise to remove from the target of each pair, by averaging it with"
        " the reconstruction of noise-free data; a comma list is gone through by the reconstructions of a subject",
        Role.IMAGES,
    )
    doses: str = flag(
        ",".join(f"1/{round(1 / dose)}" for dose in DOSES),
        "comma list of dose fractions; 1 is the normal dose itself",
        Role.IMAGES,
    )
    split: str = flag(
        "auto",
        "split of all subjects; auto: of every ten, 8 train, 1 validation, 1 test",
        Role.FILES,
        choices=("auto", *SPLITS),
    )
    out: Path = flag(MISSING, "folder of the data set; an unfinished one is continued", Role.FILES, metavar="DIR")

    def __post_init__(self) -> None:
        if self.subjects < 1:
            raise InputError(f"--subjects {self.subjects}: must be at least 1")


def create_parser(description: str) -> Parser:
    """All flags of a virtual trial."""
    parser = Parser(description)
    add_flags(parser, SimulationFlags, given_only=True)
    return parser


def simulate_trial(parser: Parser, arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and divide the subjects among the ranks; all ranks call this together.

    Rank 0 writes the manifest of all pairs once all subjects are finished. arguments: instead of the process's own.
    Raises InputError on all ranks.
    """
    flags, trial = communicator().bcast(on_root(_open_trial, parser, arguments))
    subjects = [trials.plan_subject(trial, index) for index in range(flags.subjects)]
    write, rows_of = (
        (write_random_subject, random_manifest_rows)
        if isinstance(trial, RandomTrial)
        else (trials.write_subject, trials.manifest_rows)
    )
    quiet = None if communicator().rank == 0 else True  # None: a bar on a terminal, nothing elsewhere
    with tqdm(total=flags.subjects, unit="subject", desc="simulating", disable=quiet) as progress:
        share_tasks(
            subjects,
            lambda subject, _step: write(trial, subject, flags.out),
            on_result=lambda *_: progress.update(),
            on_step=lambda: None,
        )
    rows = [row for subject in subjects for row in rows_of(trial, subject)]
    kept = on_root(_without_left_out, rows, flags.out) if isinstance(trial, RandomTrial) else rows
    on_root(trials.write_manifest, kept, flags.out)


def _without_left_out(rows: list[dict[str, object]], out: Path) -> list[dict[str, object]]:
    """The rows whose pairs were written, see `write_random_subject`."""
    written = [row for row in rows if (out / str(row["pair"])).exists()]
    if len(written) < len(rows):
        logger.log(f"notice: {len(rows) - len(written)} of {len(rows)} pairs left out: their counts make no image")
    return written


def _shares(text: str) -> float | list[float]:
    """The number, or several, of --clean_share."""
    try:
        shares = [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"--clean_share {text!r}: a number from 0 to 1, or a comma list of them") from None
    return shares if len(shares) > 1 else shares[0]


def _dose_names(text: str) -> list[str]:
    """The doses of a comma list such as "1/4, 0.05" as the fractions that name their files; other texts as they are."""
    numbers = {part.strip(): number_of(part) for part in text.split(",")}
    named = [
        part if math.isnan(dose) else str(Fraction(dose).limit_denominator(1000)) for part, dose in numbers.items()
    ]
    return list(dict.fromkeys(named))


def _open_trial(parser: Parser, arguments: Sequence[str] | None) -> tuple[SimulationFlags, trials.Trial]:
    """The trial that the command line describes, its folder opened."""
    given = vars(parser.parse_args(arguments))
    flags = read_flags(SimulationFlags, given)
    tracers, doses = select(load_tracers(), flags.tracers, "tracer"), _dose_names(flags.doses)
    if any(name in RANDOM_SCANNERS for name in flags.scanners.split(",")):
        trial = RandomTrial(
            flags.preset, flags.seed, tracers, select(dict.fromkeys(RANDOM_SCANNERS), flags.scanners, "drawn scanner"),
            doses, flags.split, voxel_mm=flags.pair_voxel_mm, reconstructions=flags.reconstructions,
            native=flags.native, clean_share=_shares(flags.clean_share),
        )  # fmt: skip
    else:
        drawn = ", ".join(RANDOM_SCANNERS)
        refuse_without_effect(given, OF_DRAWN_SCANNERS, f"is for drawn scanners only: --scanners {drawn}")
        scanners = select(load_scanners(), flags.scanners, "scanner")
        trial = trials.Trial(flags.preset, flags.seed, tracers, scanners, doses, flags.split)
    trials.open_trial(trial, flags.out)
    return flags, trial
