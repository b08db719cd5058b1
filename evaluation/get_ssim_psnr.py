"""SSIM and PSNR of generated volumes against their normal-dose references; evaluation/README.md explains them."""

from collections.abc import Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path

import numpy as np

from evaluation.compared_files import UNITS, SubjectFiles, find_subject_files, left_out_of, published_peak, read_pair
from evaluation.measures.image_fidelity import psnr, ssim
from evaluation.notices import print_notices
from guided_diffusion.config import Role, flag
from guided_diffusion.config.parser import Parser, add_flags
from guided_diffusion.dist_util import on_root, run_main
from guided_diffusion.errors import InputError, one_line
from guided_diffusion.files import writable_folder, write_table
from guided_diffusion.pet.image_quality import SSIM_WINDOW

COLUMNS = {  # title, width and decimals in the printed table
    "ssim": ("SSIM", 6, 4),
    "psnr": ("PSNR (dB)", 9, 2),
    "psnr_published": ("published PSNR (dB)", 19, 2),
}
MEAN, DEVIATION = "mean", "standard deviation"

Numbers = dict[str, float]


@dataclass(frozen=True)
class FolderFlags:
    """Folders of the volumes that are compared."""

    gtr_dir: Path = flag(
        MISSING, "normal dose: <subject>.npz (arr_0 [2,X,Y,Z]), .nii or .nii.gz", Role.FILES, metavar="DIR"
    )
    gen_dir: Path = flag(
        MISSING, "generated: one file of that format in <subject>/ (arr_0 [X,Y,Z])", Role.FILES, metavar="DIR"
    )
    matfile_dir: Path | None = flag(
        None, "scans before clipping, <subject>.mat with suv; adds the published PSNR", Role.FILES, metavar="DIR"
    )


@dataclass(frozen=True)
class UnitFlags:
    """Units of either side's values."""

    gtr_units: str = flag("normalised", "of the normal dose", Role.IMAGES, choices=UNITS)
    gen_units: str = flag("normalised", "of the generated volumes", Role.IMAGES, choices=UNITS)


@dataclass(frozen=True)
class TableFlags:
    """The table that is written."""

    csv: Path | None = flag(None, "file for the table, one row per subject", Role.FILES, metavar="FILE")


def main() -> None:
    args = create_parser().parse_args()
    subjects = find_subject_files(args.gtr_dir, args.gen_dir, args.matfile_dir)
    if args.csv is not None:
        check_csv(args.csv, subjects)
    print_notices(left_out_of(args.gtr_dir, args.gen_dir, subjects))

    columns = [column for column in COLUMNS if column != "psnr_published" or args.matfile_dir is not None]
    width = max(len(one_line(name)) for name in (DEVIATION, *(subject.name for subject in subjects)))
    print(format_header(columns, width))
    table: dict[str, Numbers] = {}
    for subject in subjects:
        table[subject.name] = evaluate(subject, args.gtr_units, args.gen_units)
        print(format_row(subject.name, table[subject.name], columns, width), flush=True)
    for name, numbers in summarise(table).items():
        print(format_row(name, numbers, columns, width))
    thin = [name for name, numbers in table.items() if "ssim" not in numbers]
    if thin:
        print_notices([f"no SSIM, which needs {SSIM_WINDOW} voxels along every axis: {', '.join(thin)}"])
    if args.csv is not None:
        write_csv(args.csv, table, columns)


def create_parser() -> Parser:
    parser = Parser(__doc__)
    add_flags(parser.add_argument_group("folders"), FolderFlags)
    units = parser.add_argument_group("units", "normalised is SUV/16, the published convention for both sides")
    add_flags(units, UnitFlags)
    add_flags(parser.add_argument_group("output"), TableFlags)
    return parser


def evaluate(subject: SubjectFiles, gtr_units: str, gen_units: str) -> Numbers:
    """The numbers of one subject, without SSIM where an axis is shorter than its window.

    Raises InputError, naming the file, where its volumes can't be read or compared.
    """
    peak = None if subject.scan is None else published_peak(subject.scan)
    reference, generated = read_pair(subject, gtr_units, gen_units)
    numbers = {} if min(reference.shape) < SSIM_WINDOW else {"ssim": ssim(reference, generated)}
    numbers["psnr"] = psnr(reference, generated)
    if peak is not None:
        numbers["psnr_published"] = psnr(reference, generated, peak=peak)
    return numbers


def summarise(table: dict[str, Numbers]) -> dict[str, Numbers]:
    """Mean and population standard deviation over the subjects that have a number, for every number."""
    values: dict[str, list[float]] = {}
    for numbers in table.values():
        for column, value in numbers.items():
            values.setdefault(column, []).append(value)
    return {
        MEAN: {column: float(np.mean(values[column])) for column in values},
        DEVIATION: {column: float(np.std(values[column])) for column in values},
    }


def format_header(columns: list[str], width: int) -> str:
    titles = [title.rjust(cell) for title, cell, _ in (COLUMNS[column] for column in columns)]
    return "  ".join(["subject".ljust(width), *titles])


def format_row(name: str, numbers: Numbers, columns: list[str], width: int) -> str:
    """A line of the printed table; a dash where a number is missing."""
    cells = []
    for column in columns:
        _, cell, decimals = COLUMNS[column]
        cells.append(f"{numbers[column]:{cell}.{decimals}f}" if column in numbers else "-".rjust(cell))
    return "  ".join([one_line(name).ljust(width), *cells])


def check_csv(path: Path, subjects: Sequence[SubjectFiles]) -> None:
    """Raise InputError now where the table could not be written after the work, or would replace a volume."""
    for file in (file for one in subjects for file in (one.reference, one.generated, one.scan) if file is not None):
        if file.resolve() == path.resolve():
            raise InputError(f"{path}: the table would replace this volume; give --csv another name")
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give --csv the name of a file")
    writable_folder(path.parent)


def write_csv(path: Path, table: dict[str, Numbers], columns: list[str]) -> None:
    """One row per subject, numbers in full precision; an empty cell where one is missing."""
    rows = ([name, *(numbers.get(column) for column in columns)] for name, numbers in table.items())
    write_table(path, ["subject", *columns], rows)


if __name__ == "__main__":
    run_main(lambda: on_root(main))
