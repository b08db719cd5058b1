"""The tables of the simulation, read once."""

import csv
from collections.abc import Mapping
from functools import cache
from importlib import resources


@cache
def rows(name: str) -> tuple[Mapping[str, str], ...]:
    """The rows of tables/NAME.csv in the file's order, each by column."""
    with resources.files(__package__).joinpath("tables", f"{name}.csv").open(newline="") as file:
        return tuple(csv.DictReader(file))
