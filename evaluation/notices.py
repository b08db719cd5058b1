"""Notices of scripts that keep no log."""

import sys
from collections.abc import Iterable

from guided_diffusion.errors import one_line


def print_notices(notices: Iterable[str]) -> None:
    """A line each, on stderr."""
    for notice in notices:
        print(f"notice: {one_line(notice)}", file=sys.stderr)
