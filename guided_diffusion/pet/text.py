"""Text from files and flags: made safe to print, and read as a number."""

import math
from collections.abc import Iterable
from numbers import Integral

LONGEST_PRINTED = 64  # characters


def printable(value: object) -> str:
    """Text out of a file for a message: one line, plain ASCII, no control characters, not long."""
    text = "".join(c if " " <= c <= "~" else "?" for c in str(value))
    return text if len(text) <= LONGEST_PRINTED else text[: LONGEST_PRINTED - 3] + "..."


def times(sizes: Iterable[float]) -> str:
    """Sizes as text, such as 96 x 144 x 96; fractions with four digits."""
    return " x ".join(str(size) if isinstance(size, Integral) else f"{size:.4g}" for size in sizes)


def number_of(text: str) -> float:
    """The number of a text such as 1/20 or 0.05; NaN, which lies within no limits, for another text."""
    numerator, slash, denominator = text.partition("/")
    try:
        number = float(numerator) / (float(denominator) if slash else 1)
    except (ValueError, ZeroDivisionError):
        return math.nan
    return number if math.isfinite(number) else math.nan


def number_of_cell(text: str) -> float:
    """The number of a table's cell as a spreadsheet may have saved it: 0.05, 0,05 or 1/20; NaN for another text."""
    return number_of(text.replace(",", "."))
