r"""Draw one scan of a virtual trial before and after each method: coronal, sagittal and axial slices in one SUV window.

    python evaluation/results_figure.py --trial data/test --subject sub-0000 --dose 1/20 \
        --method "3D UNet=results/unet3d" --out results.png
"""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from evaluation.compare import named_folders, parse_doses
from evaluation.compared_scans import ComparedScan, dose_text, open_examination, scans_of_trial
from evaluation.measures import Examination
from evaluation.method_results import ComparedMethod
from guided_diffusion.config import Role, flag
from guided_diffusion.config.parser import Parser, add_flags, read_flags
from guided_diffusion.dist_util import run_main
from guided_diffusion.errors import InputError
from guided_diffusion.pet.grid import Volume
from guided_diffusion.pet.orientation import turned
from guided_diffusion.report.picture_files import save_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH_INCHES, DPI = 13.0, 130
SIDES = {"coronal": ("R", "L"), "sagittal": ("A", "P"), "axial": ("R", "L")}


@dataclass(frozen=True)
class FigureFlags:
    """The scan, the methods and the picture."""

    trial: Path = flag(MISSING, "virtual trial", Role.FILES, metavar="DIR")
    subject: str = flag(MISSING, "one of its split 'test'", Role.FILES)
    method: tuple[str, ...] = flag(MISSING, "results of scripts/test.py; a column each", Role.FILES,
                                   metavar="TITLE=DIR")  # fmt: skip
    out: Path = flag(MISSING, "the PNG", Role.FILES, metavar="FILE")
    dose: str = flag("1/20", "dose fraction", Role.IMAGES)
    window: float = flag(7.0, "SUV that is black", Role.IMAGES)


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw the figure that the command line asks for. arguments: instead of the process's own."""
    parser = Parser(__doc__)
    add_flags(parser, FigureFlags)
    flags = read_flags(FigureFlags, vars(parser.parse_args(arguments)))
    scans = scans_of_trial(flags.trial, "test", parse_doses(flags.dose))
    scan = next((scan for scan in scans if scan.subject == flags.subject), None)
    if scan is None:
        raise InputError(f"--subject {flags.subject!r}: not in {flags.trial}")
    methods = [ComparedMethod(title, (folder,)) for title, folder in named_folders("--method", flags.method)]
    examination = open_examination(scan)
    save_slices(flags.out, shown_images(scan, examination, methods), place_of_interest(examination), flags.window)


def shown_images(scan: ComparedScan, examination: Examination, methods: Sequence[ComparedMethod]) -> dict[str, Volume]:
    """The columns by title, turned so that axes run to posterior, left and superior."""
    low_dose = examination.low_dose
    images = {f"low dose ({dose_text(scan.dose)})": low_dose.data}
    for method in methods:
        (images[method.name],) = method.images(scan, low_dose)
    images["normal dose"] = examination.normal_dose
    return {title: turned(replace(low_dose, data=data)) for title, data in images.items()}


def place_of_interest(examination: Examination) -> tuple[int, int, int]:
    """The voxel [X, Y, Z] (turned as the images) at which slices are shown: the centre of a lesion over 10 mm.

    Of several lesions, the one nearest to the middle of the volume; without one, that middle.
    """
    low_dose = turned(examination.low_dose)
    centre = (np.array(low_dose.data.shape) - 1) / 2
    middles = []
    for lesion in examination.lesions.values():
        upright = turned(replace(examination.low_dose, data=lesion.astype(np.float32)))
        middles.append(np.argwhere(upright.data > 0).mean(axis=0))
    nearest = min(middles, key=lambda middle: np.linalg.norm((middle - centre) * low_dose.voxel_mm), default=centre)
    return tuple(int(index) for index in nearest.round())


def save_slices(path: Path, images: Mapping[str, Volume], place: tuple[int, int, int], window: float) -> None:
    """Write a column per image, with axes to posterior, left and superior; a row per direction of the slice.

    Dark is hot, the head is up, and the patient's right is on the viewer's left; the patient faces left in the sagittal
    slice, and anterior is up in the axial one. All share one window, which the colour bar states.
    """
    first = next(iter(images.values()))
    depth, width, height = (n * mm for n, mm in zip(first.data.shape, first.voxel_mm, strict=True))
    columns, title_inches, bar_inches, margin = len(images), 0.3, 0.75, 0.05
    scale = (WIDTH_INCHES - bar_inches - margin) / (columns * width)  # inches per mm, the same for all directions
    inches = scale * (2 * height + depth) + title_inches + margin
    from matplotlib.figure import Figure  # once guided_diffusion takes what Matplotlib says as it is loaded

    figure = Figure(figsize=(WIDTH_INCHES, inches))
    for column, (title, image) in enumerate(images.items()):
        top = inches - title_inches
        for plane, pixels in slices_of(image.data, place).items():
            across = depth if plane == "sagittal" else width
            tall = depth if plane == "axial" else height
            left = margin + scale * (column * width + (width - across) / 2)
            top -= scale * tall
            axes = figure.add_axes(
                (left / WIDTH_INCHES, top / inches, scale * across / WIDTH_INCHES, scale * tall / inches)
            )
            shown = draw_slice(axes, pixels, plane, window)
        middle = (margin + scale * (column + 0.5) * width) / WIDTH_INCHES
        figure.text(middle, 1 - 0.5 * title_inches / inches, title, ha="center", va="center", fontsize=13)
    bar = figure.add_axes((1 - 0.85 * bar_inches / WIDTH_INCHES, 0.25, 0.2 / WIDTH_INCHES, 0.5))
    figure.colorbar(shown, cax=bar, extend="max").set_label("SUV", fontsize=13)
    bar.tick_params(labelsize=11)
    save_png(figure, path, DPI)


def slices_of(data: np.ndarray, place: tuple[int, int, int]) -> dict[str, np.ndarray]:
    """The three slices through a voxel as rows of pixels from the top, of a volume to posterior, left and superior."""
    x, y, z = place
    return {"coronal": data[x].T[::-1], "sagittal": data[:, y].T[::-1], "axial": data[:, :, z]}


def draw_slice(axes: "Axes", pixels: np.ndarray, plane: str, window: float):
    """Draw a slice with its sides; returns what a colour bar needs."""
    shown = axes.imshow(pixels, cmap="gray_r", vmin=0, vmax=window, aspect="auto", interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    for side, position in zip(SIDES[plane], (0.06, 0.94), strict=True):
        axes.text(position, 0.97, side, transform=axes.transAxes, ha="center", va="top", color="tab:blue", fontsize=10)
    return shown


if __name__ == "__main__":
    run_main(main)
