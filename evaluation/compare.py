"""Methods, reference filters and the low dose on a virtual trial or on your own scans: tables, plots and a tidy CSV.

    python evaluation/compare.py --trial data/test --validation data/validation --method ddpm3d=results/ddpm3d --out OUT
    python evaluation/compare.py --low_dose LOW --normal_dose NORMAL --method ours=results/ours --out OUT

Runs alone or under mpiexec; a run that was ended goes on where it was. OUT receives numbers.csv, summary.csv, table.md,
table.tex and plots; evaluation/README.md explains them.
"""

import math
from collections.abc import Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path

from tqdm import tqdm

from evaluation.case_page import page_names, write_case_page
from evaluation.challenge_table import format_challenge
from evaluation.compared_files import UNITS
from evaluation.compared_scans import (
    Arrays,
    ComparedScan,
    UserFolders,
    scans_of_folders,
    scans_of_trial,
)
from evaluation.comparison_plots import save_bland_altman, save_dose_plots
from evaluation.filters import FILTERS
from evaluation.kept_results import KeptResults
from evaluation.measuring import (
    LOW_DOSE,
    Compared,
    Comparison,
    Row,
    check_results,
    measure_all,
    tune_filters,
)
from evaluation.method_results import ComparedMethod
from evaluation.notices import print_notices
from evaluation.summary import as_line, summarise, with_tests
from evaluation.tables import COLUMNS, format_latex, format_markdown
from evaluation.targets import format_targets
from guided_diffusion.config import Role, flag, flags_of
from guided_diffusion.config.parser import Parser, add_flags, read_flags, refuse_without_effect
from guided_diffusion.dist_util import communicator, on_root, run_main
from guided_diffusion.errors import InputError
from guided_diffusion.files import writable_folder, write_table, write_text
from guided_diffusion.folder_lock import one_writer
from guided_diffusion.pet.grid import DEFAULT_VOXEL_MM
from guided_diffusion.pet.text import number_of

KEPT = "measured"
FILTERS_NAME, DOSES_NAME, BLAND_ALTMAN_NAME = "filters.csv", "against_dose.png", "bland_altman.png"


@dataclass(frozen=True)
class TrialFlags:
    """Scans of a virtual trial."""

    trial: Path | None = flag(None, "virtual trial; its split 'test' is compared", Role.FILES, metavar="DIR")
    validation: Path | None = flag(
        None, "virtual trial whose split 'validation' tunes the filters; without it there are none", Role.FILES,
        metavar="DIR",
    )  # fmt: skip
    doses: str | None = flag(None, "comma list of dose fractions", Role.IMAGES, shown="all of the trial")


@dataclass(frozen=True)
class OwnFlags:
    """Scans of the user, in any format that scripts/test.py reads."""

    low_dose: Path | None = flag(None, "a scan or a folder of scans: the input of the methods", Role.FILES)
    normal_dose: Path | None = flag(
        None, "normal doses of the same names; without them only what needs no reference is measured", Role.FILES
    )
    subjects: Path | None = flag(
        None, "CSV about the scans: scan, and any of subject, tracer, scanner, dose, normal_dose, split", Role.FILES,
        metavar="FILE",
    )  # fmt: skip
    array_units: str = flag("suv", "of .npz and .mat", Role.IMAGES, choices=UNITS)
    voxel_mm: tuple[float, float, float] = flag(DEFAULT_VOXEL_MM, "of .npz and .mat that state none", Role.IMAGES)


@dataclass(frozen=True)
class MethodFlags:
    """The methods, and where the tables go."""

    out: Path = flag(MISSING, "folder of the tables; a comparison that was ended goes on", Role.FILES, metavar="DIR")
    method: tuple[str, ...] = flag(
        (), "a folder with an image per scan: results of scripts/test.py --save_dir DIR, or any volumes named after the"
        " scans; may be given several times", Role.FILES, metavar="NAME=DIR", shown="none",
    )  # fmt: skip
    realisations: tuple[str, ...] = flag(
        (), "a folder of such folders, one per realisation: their mean is measured, and their spread; may be given"
        " several times", Role.FILES, metavar="NAME=DIR", shown="none",
    )  # fmt: skip
    against: str | None = flag(
        None, "the image that the others are tested against for significance", Role.FILES, metavar="NAME",
        shown="the first method",
    )  # fmt: skip
    report: str = flag(
        "", "comma list of subjects; a page is written about each of their scans, report_<subject>_<dose>.html",
        Role.FILES, metavar="SUBJECTS",
    )  # fmt: skip


@dataclass(frozen=True)
class Flags:
    """The whole command line."""

    trial: TrialFlags
    own: OwnFlags
    methods: MethodFlags


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare as the command line says; all ranks call this together. arguments: instead of the process's own."""
    flags = communicator().bcast(on_root(parse_flags, arguments))
    out = flags.methods.out
    on_root(writable_folder, out)
    with one_writer(out):
        comparison = communicator().bcast(on_root(plan_comparison, flags))
        quiet = None if communicator().rank == 0 else True  # None: a bar on a terminal, nothing elsewhere
        with tqdm(total=comparison.steps(), unit="step", desc="comparing", disable=quiet) as progress:
            parameters, tuned = tune_filters(comparison, progress.update)
            parameters = communicator().bcast(parameters)
            by_scan = measure_all(comparison, parameters, progress.update)
        on_root(write_results, Compared(comparison, parameters, by_scan), tuned, flags.methods)


def create_parser() -> Parser:
    parser = Parser(__doc__)
    add_flags(parser.add_argument_group("a virtual trial"), TrialFlags, given_only=True)
    add_flags(parser.add_argument_group("your own scans"), OwnFlags, given_only=True)
    add_flags(parser.add_argument_group("methods and output"), MethodFlags)
    return parser


def parse_flags(arguments: Sequence[str] | None) -> Flags:
    given = vars(create_parser().parse_args(arguments))
    if "low_dose" not in given:
        refuse_without_effect(given, flags_of(OwnFlags), "is for own scans (--low_dose); a trial says it itself")
    return Flags(*(read_flags(kind, given) for kind in (TrialFlags, OwnFlags, MethodFlags)))


def plan_comparison(flags: Flags) -> Comparison:
    """The comparison that the command line describes. Raises InputError before any work where it cannot be made."""
    scans, tuning = choose_scans(flags)
    methods = [
        *(ComparedMethod(name, (folder,)) for name, folder in named_folders("--method", flags.methods.method)),
        *(ComparedMethod.of_realisations(*one) for one in named_folders("--realisations", flags.methods.realisations)),
    ]
    if not methods:
        raise InputError("no method: give --method NAME=DIR or --realisations NAME=DIR")
    own_names = [method.name for method in methods]
    for name in own_names:
        if own_names.count(name) > 1 or name in (LOW_DOSE, *FILTERS):
            raise InputError(f"--method: the name {name!r} is taken; choose another")
    comparison = Comparison(scans, methods, tuning, KeptResults(flags.methods.out / KEPT))
    against = flags.methods.against
    if against is not None and against not in comparison.names():
        raise InputError(f"--against {against!r}: no such image; choose from {', '.join(comparison.names())}")
    shown_scans(scans, flags.methods.report)
    check_results(comparison)
    return comparison


def choose_scans(flags: Flags) -> tuple[list[ComparedScan], list[ComparedScan]]:
    """The scans that are compared, and those that filters are tuned on."""
    trial, own = flags.trial, flags.own
    if (trial.trial is None) == (own.low_dose is None):
        raise InputError("give either --trial or --low_dose")
    if trial.trial is None:
        if trial.validation is not None or trial.doses is not None:
            raise InputError("--validation and --doses are for a --trial; a table (--subjects) says them of own scans")
        arrays = Arrays(own.array_units, own.voxel_mm)
        scans, tuning, notices = scans_of_folders(UserFolders(own.low_dose, own.normal_dose, own.subjects, arrays))
        print_notices(notices)
        return scans, tuning
    doses = None if trial.doses is None else parse_doses(trial.doses)
    scans = scans_of_trial(trial.trial, "test", doses)
    if trial.validation is None:
        return scans, []
    return scans, scans_of_trial(trial.validation, "validation", sorted({scan.dose for scan in scans}))


def named_folders(name: str, arguments: Sequence[str]) -> list[tuple[str, Path]]:
    """NAME=DIR each -> (name, folder). Raises InputError for another form; name: of the flag."""
    parts = [argument.partition("=") for argument in arguments]
    for argument, (method, _, folder) in zip(arguments, parts, strict=True):
        if not (method and folder):
            raise InputError(f"{name} {argument!r}: write NAME=DIR")
    return [(method, Path(folder)) for method, _, folder in parts]


def parse_doses(text: str) -> list[float]:
    """The numbers of a comma list of fractions. Raises InputError for another text."""
    doses = [number_of(part) for part in text.split(",")]
    if any(map(math.isnan, doses)):
        raise InputError(f"--doses {text!r}: give a comma list of fractions such as 1/4,1/20")
    return doses


def shown_scans(scans: Sequence[ComparedScan], subjects: str) -> list[ComparedScan]:
    """The scans of a comma list of subjects. Raises InputError for one that is not compared."""
    names = [name for name in subjects.split(",") if name]
    for name in names:
        if name not in {scan.subject for scan in scans}:
            raise InputError(f"--report {name!r}: no such subject is compared")
    return [scan for scan in scans if scan.subject in names]


def write_results(compared: Compared, tuned: Sequence[dict[str, object]], flags: MethodFlags) -> None:
    """Write the tables, plots and pages, and print the table."""
    comparison, rows, out = compared.comparison, compared.rows, flags.out
    if not rows:
        raise InputError("without normal doses there is nothing to measure: no uniform tissue, no focus")
    print_notices(compared.doubts())
    for name in (FILTERS_NAME, DOSES_NAME, BLAND_ALTMAN_NAME):  # of an earlier run, and not written by every one
        if (out / name).is_file():
            (out / name).unlink()
    against = flags.against or comparison.methods[0].name
    summaries = with_tests(summarise(rows), against, COLUMNS)
    write_table(out / "numbers.csv", Row._fields, rows)
    write_lines(out / "summary.csv", [as_line(one) for one in summaries])
    if tuned:
        write_lines(out / FILTERS_NAME, tuned)
    targets = format_targets(rows, [method.name for method in comparison.methods])
    parts = [targets, format_challenge(rows), format_markdown(summaries, against)]
    text = "\n".join(part for part in parts if part)
    write_text(out / "table.md", text)
    write_text(out / "table.tex", format_latex(summaries, against))
    print(text, end="")
    save_dose_plots(out / DOSES_NAME, summaries)
    save_bland_altman(out / BLAND_ALTMAN_NAME, [own.rows for own in compared.by_scan])
    shown = shown_scans(comparison.scans, flags.report)
    for scan, name in zip(shown, page_names(shown), strict=True):
        write_case_page(out / name, scan, compared)
        print(f"page: {out / name}")


def write_lines(path: Path, lines: Sequence[dict[str, object]]) -> None:
    """A table of lines with the same columns."""
    write_table(path, lines[0], [line.values() for line in lines])


if __name__ == "__main__":
    run_main(main)
