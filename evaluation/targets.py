"""Targets for a method on a virtual trial, and which of them it reaches on average over the subjects."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from evaluation.compared_scans import dose_text
from evaluation.confidence import Interval, bootstrap_mean
from evaluation.filters import FILTERS
from evaluation.measures import LESIONS, METRICS, pooled_region
from evaluation.measuring import LOW_DOSE, Row
from evaluation.tables import interval_text, table_head, table_line

FILTER = "the best filter on the subject"


@dataclass(frozen=True)
class Target:
    """A value that a method should reach on average over the subjects at a dose, None for every dose.

    over: whose value is subtracted first, within each subject: the low dose's, or that of the subject's best filter.
    """

    text: str
    dose: float | None
    metric: str
    region: str
    over: str | None
    reached: Callable[[float], bool]


TARGETS = (
    Target("5 dB or more over the low dose", 1 / 20, "psnr_normal", "volume", LOW_DOSE, lambda mean: mean >= 5),
    Target("1.5 dB or more over the best filter", 1 / 20, "psnr_normal", "volume", FILTER, lambda mean: mean >= 1.5),
    Target("SSIM above the best filter's", 1 / 20, "ssim_normal", "volume", FILTER, lambda mean: mean > 0),
    Target(
        "PSNR not below the input's, against the truth", 1 / 2, "psnr_truth", "volume", LOW_DOSE, lambda mean: mean >= 0
    ),
    Target("PSNR not below the input's", 1 / 2, "psnr_normal", "volume", LOW_DOSE, lambda mean: mean >= 0),
    Target(
        "PSNR not below the input's, against the truth", 1.0, "psnr_truth", "volume", LOW_DOSE, lambda mean: mean >= 0
    ),
    Target("PSNR above the best filter's", 1 / 100, "psnr_normal", "volume", FILTER, lambda mean: mean > 0),
    Target("liver SUVmean within 2 %", None, "suv_mean_bias_normal", "liver", None, lambda mean: abs(mean) <= 2),
    Target("lung SUVmean within 2 %", None, "suv_mean_bias_normal", "lung", None, lambda mean: abs(mean) <= 2),
    Target("lesion SUVpeak within 10 %", None, "suv_peak_bias_normal", LESIONS, None, lambda mean: abs(mean) <= 10),
)


def format_targets(rows: Sequence[Row], methods: Iterable[str]) -> str:
    """Markdown table of the targets that each method reaches on average over all subjects, and of those it misses.

    "" if none of their metrics was measured.
    """
    lines = []
    numbers = _Numbers(rows)
    for method in methods:
        for target in TARGETS:
            for dose in numbers.doses if target.dose is None else [target.dose]:
                by_subject = dict(numbers.of(target, method, dose))
                if by_subject:
                    lines.append(_line(target, method, dose, by_subject))
    if not lines:
        return ""
    head = ["## Targets", "", *table_head(["method", "dose", "target", "measured", "subjects from, to", "reached"])]
    return "\n".join([*head, *lines]) + "\n"


class _Numbers:
    """The values of the targets' numbers, by subject."""

    def __init__(self, rows: Sequence[Row]):
        wanted = {(target.metric, target.region) for target in TARGETS}
        self.doses = sorted({row.dose for row in rows if row.dose is not None}, reverse=True)
        self._values: dict[tuple, dict[str, list[float]]] = {}
        for row in rows:
            region = pooled_region(row.region)
            if (row.metric, region) in wanted:
                place = (row.metric, region, row.method, row.dose)
                self._values.setdefault(place, {}).setdefault(row.subject, []).append(row.value)

    def of(self, target: Target, method: str, dose: float) -> Iterator[tuple[str, list[float]]]:
        """Each subject with its values, where the target is over the low dose or the best filter less those of the same
        scan.
        """

        def values(name: str) -> dict[str, list[float]]:
            return self._values.get((target.metric, target.region, name, dose), {})

        for subject, own in values(method).items():
            if target.over is None:
                yield subject, own
                continue
            names = [LOW_DOSE] if target.over == LOW_DOSE else list(FILTERS)
            others = [values(name)[subject] for name in names if subject in values(name)]
            if others:
                yield subject, [value - max(best) for value, *best in zip(own, *others, strict=True)]


def _line(target: Target, method: str, dose: float, by_subject: dict[str, list[float]]) -> str:
    interval: Interval = bootstrap_mean(list(by_subject.values()))
    means = [sum(values) / len(values) for values in by_subject.values()]
    decimals = METRICS[target.metric].decimals
    extremes = f"{min(means):.{decimals}f}, {max(means):.{decimals}f}"
    reached = "yes" if target.reached(interval.mean) else "**no**"
    cells = [method, dose_text(dose), target.text, interval_text(interval, decimals), extremes, reached]
    return table_line(cells)
