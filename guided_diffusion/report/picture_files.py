"""Pictures as PNG files."""

from pathlib import Path
from typing import TYPE_CHECKING

from guided_diffusion.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save_png(figure: "Figure", path: Path, dpi: int) -> None:
    """Write a drawing as a PNG of so many dots per inch, whatever the file is called."""
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=dpi)
