"""Methods, reference filters and the low dose on a virtual trial: numbers per subject and a table with intervals.

    python evaluation/compare.py --trial data/test --validation data/validation --method ddpm3d=results/ddpm3d --out OUT

OUT receives table.md, summary.csv, subjects.csv, lesions.csv and filters.csv; evaluation/README.md explains them.
"""

import csv
from collections.abc import Sequence
from dataclasses import MISSING, dataclass
from fractions import Fraction
from pathlib import Path

from tqdm import tqdm

from evaluation.case_page import write_case_page
from evaluation.case_scores import LOW_DOSE, Row, measure_case, open_case, result_path, tune_filters
from evaluation.filters import FILTERS
from evaluation.summary import as_row, dose_text, format_markdown, format_targets, summarise
from guided_diffusion.config import Role, flag
from guided_diffusion.config.parser import Parser, add_flags
from guided_diffusion.dist_util import run_main
from guided_diffusion.errors import InputError
from guided_diffusion.files import atomic_write, open_table, writable_folder
from guided_diffusion.pet.trial_manifest import Case, read_cases


@dataclass(frozen=True)
class ComparisonFlags:
    """The methods that are compared, the trial, and where the tables go."""

    trial: Path = flag(MISSING, "virtual trial; its split 'test' is compared", Role.FILES, metavar="DIR")
    validation: Path = flag(
        MISSING, "virtual trial whose split 'validation' tunes the filters", Role.FILES, metavar="DIR"
    )
    method: tuple[str, ...] = flag(
        MISSING,
        "results of scripts/test.py --base_samples TRIAL --save_dir DIR; may be given several times",
        Role.FILES,
        metavar="NAME=DIR",
    )
    out: Path = flag(MISSING, "folder of the tables", Role.FILES, metavar="DIR")
    report: str = flag(
        "",
        "comma list of subjects; a page is written about each of their scans, report_<subject>_<dose>.html",
        Role.FILES,
        metavar="SUBJECTS",
    )
    doses: str | None = flag(None, "comma list of dose fractions", Role.IMAGES, shown="all of the trial")


def main() -> None:
    args = create_parser().parse_args()
    methods = parse_methods(args.method)
    doses = None if args.doses is None else parse_doses(args.doses)
    out = writable_folder(args.out)
    cases = choose(read_cases(args.trial), "test", doses, args.trial)
    wanted = shown_cases(cases, args.report)
    for folder in methods.values():
        for case in cases:
            result_path(case, folder)  # now rather than after the tuning
    doses = sorted({case.dose for case in cases})
    parameters, tuned = tune_filters(choose(read_cases(args.validation), "validation", doses, args.validation))
    write_csv(out / "filters.csv", tuned)

    rows: list[Row] = []
    lesions: list[Row] = []
    for case in tqdm(cases, unit="case", desc="comparing", disable=None):
        of_methods, of_lesions = measure_case(open_case(case), methods, parameters[case.dose])
        rows += of_methods
        lesions += of_lesions
    summaries = summarise(rows, lesions)
    write_csv(out / "subjects.csv", rows)
    if lesions:
        write_csv(out / "lesions.csv", lesions)
    else:
        (out / "lesions.csv").unlink(missing_ok=True)  # of an earlier comparison
    write_csv(out / "summary.csv", [as_row(summary) for summary in summaries])
    text = f"{format_targets(summaries, methods)}\n{format_markdown(summaries)}"
    with atomic_write(out / "table.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(text, end="")
    for case in wanted:
        page = out / f"report_{case.subject}_{dose_text(case.dose).replace('/', '-')}.html"
        write_case_page(page, open_case(case), methods, parameters[case.dose], rows, lesions)
        print(f"page: {page}")


def create_parser() -> Parser:
    parser = Parser(__doc__)
    add_flags(parser, ComparisonFlags)
    return parser


def parse_methods(arguments: Sequence[str]) -> dict[str, Path]:
    """NAME=DIR each -> name: folder. Raises InputError for another form, a name twice and one that is taken."""
    methods: dict[str, Path] = {}
    for argument in arguments:
        name, equals, folder = argument.partition("=")
        if not (name and equals and folder):
            raise InputError(f"--method {argument!r}: write NAME=DIR")
        if name in methods or name in (LOW_DOSE, *FILTERS):
            raise InputError(f"--method {argument!r}: the name {name!r} is taken; choose another")
        methods[name] = Path(folder)
    return methods


def parse_doses(text: str) -> list[float]:
    """The numbers of a comma list of fractions. Raises InputError for another text."""
    try:
        return [float(Fraction(part)) for part in text.split(",")]
    except (ValueError, ZeroDivisionError):
        raise InputError(f"--doses {text!r}: give a comma list of fractions such as 1/4,1/20") from None


def shown_cases(cases: Sequence[Case], subjects: str) -> list[Case]:
    """The cases of a comma list of subjects. Raises InputError for one that is not compared."""
    names = [name for name in subjects.split(",") if name]
    for name in names:
        if name not in {case.subject for case in cases}:
            raise InputError(f"--report {name!r}: no such subject is compared")
    return [case for case in cases if case.subject in names]


def choose(cases: Sequence[Case], split: str, doses: Sequence[float] | None, trial: Path) -> list[Case]:
    """The cases of a split at some doses (None: all). Raises InputError where there are none at one of them."""
    own = [case for case in cases if case.split == split]
    if not own:
        raise InputError(f"{trial}: no subject has the split {split!r}")
    for dose in doses or ():
        if dose not in {case.dose for case in own}:
            raise InputError(f"{trial}: no scan at dose {dose_text(dose)}; simulate it (scripts/simulate.py --doses)")
    return [case for case in own if doses is None or case.dose in doses]


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    with atomic_write(path) as temporary, open_table(temporary) as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    run_main(main)
