"""Timing of alternatives in alternation, so that other load on the machine affects all of them alike."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Timing:
    """Seconds of each repetition: on the clock, and of processor time summed over the threads of this process."""

    wall: list[float]
    cpu: list[float]

    def ratio_to(self, other: "Timing") -> float:
        """Speed relative to `other`, more than 1 if faster: the median of the rounds' ratios."""
        return median(theirs / ours for theirs, ours in zip(other.wall, self.wall, strict=True))

    def cpu_ratio_to(self, other: "Timing") -> float:
        """`ratio_to` in processor time."""
        return median(theirs / ours for theirs, ours in zip(other.cpu, self.cpu, strict=True))

    def as_dict(self) -> dict[str, float]:
        """Median and spread, in seconds."""
        return {
            "seconds": median(self.wall),
            "fastest": min(self.wall),
            "slowest": max(self.wall),
            "cpu_seconds": median(self.cpu),
        }

    def text(self) -> str:
        """Median and range for a table."""
        return f"{median(self.wall):.2f} ({min(self.wall):.2f} to {max(self.wall):.2f})"


def alternate(variants: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Timing]:
    """Call all variants in turn, `rounds` times after one round that is not counted."""
    timings = {name: Timing([], []) for name in variants}
    for number in range(rounds + 1):
        for name, call in variants.items():
            wall, cpu = time.perf_counter(), time.process_time()
            call()
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            if number > 0:
                timings[name].wall.append(wall)
                timings[name].cpu.append(cpu)
    return timings
