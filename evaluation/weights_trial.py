"""The implementation of `scripts/trial.py`: compares all weights of a folder on a virtual trial, command by command."""

import csv
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation.compared_scans import dose_text
from evaluation.measures import pooled_region
from evaluation.measuring import Row
from evaluation.running import launcher, run_command
from evaluation.tables import COLUMNS
from guided_diffusion.config import Role, flag
from guided_diffusion.config.parser import Parser, add_flags, read_flags
from guided_diffusion.errors import InputError
from guided_diffusion.files import write_table
from guided_diffusion.pet.trial_manifest import read_cases

# Nothing was trained or chosen on patients of the first seed. Filters are tuned on those of the other.
TEST_SEED, VALIDATION_SEED = 61, 2
FIGURE_DOSE = 1 / 20
TRAINED_ALIKE = "small_"  # how the names of weights begin that saw the same pairs and as many voxels
PAPERS_METHOD = "ddpm3d"  # the others are tested against it

TITLES = {"gan3d": "3D GAN", "unet3d": "3D UNet", "ddpm2d": "2D DDPM", "ddpm3d": "3D DDPM", "local3d": "local3d"}
"""Titles in the figure by how a file of weights ends, in the order of the columns."""


@dataclass(frozen=True)
class Size:
    """A trial: its patients, those that filters are tuned on (always on the grid `slab`), its own grid, the doses."""

    subjects: int
    validation: int
    preset: str
    doses: str


SIZES = {
    "reduced": Size(4, 2, "demo", "1/4,1/20"),
    "full": Size(48, 4, "slab", "1/2,1/4,1/10,1/20,1/50,1/100"),
}


@dataclass(frozen=True)
class ReproductionFlags:
    """The trial, the weights and where everything goes."""

    out_dir: Path = flag(Path("results/trial"), "where everything goes; what is there is not made again", Role.FILES,
                         metavar="DIR")  # fmt: skip
    checkpoints: Path = flag(Path("checkpoint"), "folder of the weights, NAME.pt each", Role.FILES, metavar="DIR")
    size: str = flag(
        "reduced", "of the trial", Role.IMAGES,
        choices={name: f"{size.subjects} patients, grid {size.preset}, doses {size.doses}"
                 for name, size in SIZES.items()},
    )  # fmt: skip
    subjects: int | None = flag(None, "number of patients", Role.IMAGES, shown="that of the size")
    ranks: int = flag(2, "MPI ranks of every command", Role.MACHINE)

    def __post_init__(self) -> None:
        if self.subjects is not None and self.subjects < 1:
            raise InputError(f"--subjects {self.subjects}: must be at least 1")


def create_parser(description: str) -> Parser:
    """All flags of the trial."""
    parser = Parser(description)
    add_flags(parser, ReproductionFlags)
    return parser


def run_trial(parser: Parser, arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and run the commands of a user in turn. Exits if one fails.

    arguments: instead of the process's own. Raises InputError if there are no weights.
    """
    flags = read_flags(ReproductionFlags, vars(parser.parse_args(arguments)))
    weights = weights_in(flags.checkpoints)
    size, out = SIZES[flags.size], flags.out_dir / flags.size
    python = [*launcher(flags.ranks), sys.executable]
    simulate = [*python, "scripts/simulate.py", "--doses", size.doses]
    run_command(*simulate, "--preset", size.preset, "--subjects", flags.subjects or size.subjects,
                "--seed", TEST_SEED, "--split", "test", "--out", out / "test")  # fmt: skip
    run_command(*simulate, "--preset", "slab", "--subjects", size.validation,
                "--seed", VALIDATION_SEED, "--split", "validation", "--out", out / "validation")  # fmt: skip
    for name, path in weights.items():
        run_command(*python, "scripts/test.py", "--base_samples", out / "test", "--model_path", path,
                    "--save_dir", out / "denoised" / name, "--resume", "True")  # fmt: skip
    methods = [f"--method={name}={out / 'denoised' / name}" for name in weights]
    against = columns_of(list(weights)).get(TITLES[PAPERS_METHOD], next(iter(weights)))
    run_command(*python, "evaluation/compare.py", "--trial", out / "test", "--validation", out / "validation",
                *methods, "--against", against, "--out", out / "comparison")  # fmt: skip
    write_shown_numbers(out / "comparison" / "numbers.csv", out / "virtual_trial.csv")
    subject = read_cases(out / "test")[0].subject
    shown = [f"--method={title}={out / 'denoised' / name}" for title, name in columns_of(list(weights)).items()]
    run_command(sys.executable, "evaluation/results_figure.py", "--trial", out / "test", "--subject", subject,
                "--dose", dose_text(FIGURE_DOSE), *shown, "--out", out / "results.png")  # fmt: skip
    print(f"tables: {out / 'comparison' / 'table.md'}; plots beside it; numbers: {out / 'virtual_trial.csv'}")
    print(f"figure: {out / 'results.png'}")


def weights_in(folder: Path) -> dict[str, Path]:
    """The weights of a folder by name, in the order of `TITLES`, others last. Raises InputError for none."""
    found = sorted(folder.glob("*.pt"), key=lambda path: (_rank(path.stem), path.stem))
    if not found:
        raise InputError(f"{folder}: holds no weights (NAME.pt)")
    return {path.stem: path for path in found}


def columns_of(names: Sequence[str]) -> dict[str, str]:
    """The figure's columns: title -> weights. Of several with one title, those trained alike."""
    columns: dict[str, str] = {}
    for name in sorted(names, key=lambda name: (_rank(name), not name.startswith(TRAINED_ALIKE), name)):
        rank = _rank(name)
        columns.setdefault(list(TITLES.values())[rank] if rank < len(TITLES) else name.replace("_", " "), name)
    return columns


def _rank(name: str) -> int:
    return next((rank for rank, ending in enumerate(TITLES) if name.endswith(ending)), len(TITLES))


def write_shown_numbers(numbers: Path, path: Path) -> None:
    """Those rows of the tidy table that the printed tables are made of: a tenth of all, small enough to be kept."""
    with open(numbers, newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        shown = (row.values() for row in rows if (row["metric"], pooled_region(row["region"])) in COLUMNS)
        write_table(path, Row._fields, shown)
