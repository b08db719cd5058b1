"""Colours of the page: contrast by WCAG 2.2, 1.4.3 and 1.4.11."""

import re
from importlib.resources import files

import pytest

STYLE = (files("guided_diffusion.report") / "static" / "style.css").read_text(encoding="utf-8")
DRAWING = (files("guided_diffusion.report") / "static" / "drawing.js").read_text(encoding="utf-8")
COLOURS = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", STYLE))
SIDES = re.search(r'SIDE_COLOUR = "(#\w+)"', DRAWING)[1]
CROSS = re.search(r'CROSS_COLOUR = "(#\w+)"', DRAWING)[1]


def luminance(colour):
    """Relative luminance of #rrggbb."""
    shares = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def test_the_formula():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.01)


@pytest.mark.parametrize("ground", ["ground", "soft", "warning-ground"])
@pytest.mark.parametrize("text", ["ink", "muted", "link", "warning"])
def test_text_can_be_read(text, ground):
    assert contrast(COLOURS[text], COLOURS[ground]) >= 4.5


def test_marks_and_borders_of_controls_can_be_seen():
    assert contrast(SIDES, "#ffffff") >= 4.5
    assert contrast(CROSS, "#ffffff") >= 3
    (border,) = set(re.findall(r"border: 1px solid (#\w{6})", STYLE))
    assert contrast(border, COLOURS["ground"]) >= 3
    assert contrast("#ffffff", COLOURS["link"]) >= 4.5  # a pressed button
