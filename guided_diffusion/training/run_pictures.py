"""Two pictures of a run, redrawn at every validation: its curves, and one slice before and after denoising."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from guided_diffusion.report.picture_files import save_png

DPI = 110
WINDOW_QUANTILE = 0.995
Rows = Sequence[dict[str, str]]


def draw_curves(path: Path, progress: Rows, validations: Rows) -> None:
    """Write a PNG of loss, PSNR and SSIM by step, from the rows of the tables of a run."""
    figure = Figure(figsize=(13.0, 3.8), layout="constrained")
    loss, psnr, ssim = figure.subplots(1, 3)
    _curve(loss, progress, "loss", "all timesteps", color="black", zorder=3)
    for quartile in range(4):
        label = f"timesteps, quartile {quartile + 1}"
        _curve(loss, progress, f"loss_q{quartile}", label, linewidth=0.7, alpha=0.7)
    loss.set_yscale("log")
    loss.set_ylabel("training loss")
    for panel, name, label in ((psnr, "psnr", "validation PSNR (dB)"), (ssim, "ssim", "validation SSIM")):
        _curve(panel, validations, f"{name}_denoised", "denoised", color="black", marker=".")
        _curve(panel, validations, f"{name}_low_dose", "low dose", color="tab:red", linestyle="--")
        panel.set_ylabel(label)
    for panel in (loss, psnr, ssim):
        panel.set_xlabel("step")
        panel.grid(alpha=0.3)
        panel.legend(fontsize="small")
    save_png(figure, path, DPI)


def draw_example(path: Path, images: np.ndarray, suv_max: float, voxel_mm: Sequence[float], title: str) -> None:
    """Write a PNG of an axial slice before and after denoising, and at normal dose.

    images: low dose, denoised and normal dose, normalised [3, X, Y]. All share one SUV window, which the normal dose
    sets, so that pictures of one run can be compared. Slices are axial because they show no face, whatever the
    patient is; anterior is at the top, and the sides are not marked because crops may be mirrored.
    """
    images = images * suv_max
    top = max(1.0, float(np.ceil(np.quantile(images[2], WINDOW_QUANTILE))))
    figure = Figure(figsize=(11.0, 4.0), layout="constrained")
    panels = figure.subplots(1, 3)
    depth, width = images.shape[1] * voxel_mm[0], images.shape[2] * voxel_mm[1]
    for panel, image, name in zip(panels, images, ("low dose", f"denoised, {title}", "normal dose"), strict=True):
        drawn = panel.imshow(image, cmap="gray_r", vmin=0.0, vmax=top, extent=(0, width, 0, depth))
        panel.set_title(name)
        panel.set_xticks([])
        panel.set_yticks([])
    extend = "max" if images.max() > top else "neither"
    figure.colorbar(drawn, ax=panels, label=f"SUV (window 0 to {top:g})", extend=extend, pad=0.01)
    save_png(figure, path, DPI)


def _curve(panel: Axes, rows: Rows, column: str, label: str, **style: object) -> None:
    """A column against the step; rows without a value are left out."""
    points = [(int(row["step"]), float(row[column])) for row in rows if row.get(column)]
    panel.plot(*np.array(points).reshape(-1, 2).T, label=label, **style)
