"""Coronal maximum intensity projections side by side, displayed as usual in nuclear medicine."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from guided_diffusion.errors import InputError
from guided_diffusion.report.picture_files import save_png
from guided_diffusion.report.projections import coronal

SUV_WINDOW = (0.0, 10.0)
BODY_HEIGHT_INCHES = 6.0
DPI = 150


def save_coronal_mips(
    path: Path,
    volumes: Mapping[str, np.ndarray],
    voxel_size: Sequence[float],
    window: tuple[float, float] = SUV_WINDOW,
) -> None:
    """Write a PNG of the coronal MIPs of `volumes` (title -> [X, Y, Z] in SUV, axes as in `report.projections`).

    All share one SUV window in inverted grey (dark is hot), which the colour bar states; `voxel_size` in mm along
    X, Y, Z sets the aspect ratio. A MIP of a real head shows a face: crop real volumes at the neck before they come
    here. Raises InputError where shapes differ.
    """
    shapes = {title: volume.shape for title, volume in volumes.items()}
    if len(set(shapes.values())) != 1:
        raise InputError(f"volumes of one picture must have one shape, these differ: {shapes}")
    mips = {title: coronal(volume) for title, volume in volumes.items()}

    _, y_size, z_size = voxel_size
    rows, columns = next(iter(mips.values())).shape
    width_mm, height_mm = columns * y_size, rows * z_size
    panel_width = BODY_HEIGHT_INCHES * width_mm / height_mm
    figure = Figure(figsize=(len(mips) * (panel_width + 0.2) + 1.0, BODY_HEIGHT_INCHES + 0.6), layout="constrained")
    panels = figure.subplots(1, len(mips), squeeze=False)[0]
    for panel, (title, mip) in zip(panels, mips.items(), strict=True):
        image = panel.imshow(mip, cmap="gray_r", vmin=window[0], vmax=window[1], extent=(0, width_mm, 0, height_mm))
        panel.set_title(title)
        panel.set_xticks([])
        panel.set_yticks([])
        for side, position in (("R", 0.03), ("L", 0.97)):
            panel.text(position, 0.98, side, transform=panel.transAxes, ha="center", va="top", color="tab:blue")
    hottest = max(mip.max() for mip in mips.values())
    figure.colorbar(
        image,
        ax=panels,
        label=f"SUV (window {window[0]:g} to {window[1]:g})",
        extend="max" if hottest > window[1] else "neither",
        aspect=40,
        pad=0.01,
    )
    save_png(figure, path, DPI)
