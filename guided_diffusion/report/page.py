"""Renders reports from templates; all text from outside is escaped, and nothing is loaded from a network."""

from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from guided_diffusion.files import atomic_write

SCRIPTS = ("volumes.js", "drawing.js", "viewer.js", "controls.js", "rotation.js", "start.js")


def write_page(path: Path, template: str, content: dict[str, Any]) -> None:
    """Render one of the package's templates with `content` into an HTML file.

    Raises InputError if it cannot be written.
    """
    text = _environment().get_template(template).render(content)
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("guided_diffusion.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["style"] = _static("style.css")
    environment.globals["scripts"] = [_static(name) for name in SCRIPTS]
    environment.filters["signed"] = lambda value, decimals=1: f"{value:+.{decimals}f}"
    environment.filters["fixed"] = lambda value, decimals=1: f"{value:.{decimals}f}"
    return environment


def _static(name: str) -> Markup:
    """A style or script of the package, which is ours and goes into the page as it is."""
    return Markup((files("guided_diffusion.report") / "static" / name).read_text(encoding="utf-8"))
