"""A section of the benchmark: its numbers, and its table in Markdown."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Section:
    """One section: numbers for JSON under `name`, a table for README, and what a reader must know about both."""

    name: str
    title: str
    values: dict[str, Any]
    header: tuple[str, ...]
    rows: list[tuple[str, ...]]
    notes: str = ""

    def markdown(self) -> str:
        """The section as a Markdown table with its title and notes."""
        lines = [self.header, tuple("---" for _ in self.header), *self.rows]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return "\n\n".join(part for part in (f"**{self.title}**", table, self.notes) if part)
