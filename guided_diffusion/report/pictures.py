"""Images as `data:` addresses, which embed them in a report, and the display windows for them."""

import base64
import io

import matplotlib.image
import numpy as np
from matplotlib.figure import Figure

SUV_WINDOW = (0.0, 7.0)
GREY, DIVERGING = "gray_r", "RdBu_r"
_NICE = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0, 10.0)
_WINDOW_QUANTILE = 0.999


def png_address(image: np.ndarray, window: tuple[float, float], colours: str = GREY) -> str:
    """A PNG of an image [rows, columns] in a window of its values, as a `data:` address."""
    file = io.BytesIO()
    matplotlib.image.imsave(file, image, vmin=window[0], vmax=window[1], cmap=colours, format="png")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def svg_address(figure: Figure) -> str:
    """A drawing as a `data:` address, without the date that Matplotlib would put in."""
    file = io.BytesIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return "data:image/svg+xml;base64," + base64.b64encode(file.getvalue()).decode()


def colour_bar(colours: str = GREY) -> str:
    """A bar from the lowest to the highest value of a window, left to right, as a `data:` address."""
    return png_address(np.linspace(0, 1, 256)[None], (0.0, 1.0), colours)


def round_top(values: np.ndarray) -> float:
    """A round number that 99.9 % of the values' magnitudes do not exceed."""
    top = max(float(np.quantile(np.abs(values), _WINDOW_QUANTILE)), 1e-3)
    decade = 10.0 ** np.floor(np.log10(top))
    return float(decade * next(step for step in _NICE if step * decade >= top * (1 - 1e-9)))
