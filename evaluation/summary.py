"""From numbers per subject to a table: means over subjects with confidence intervals, and the targets of a trial."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from evaluation.case_scores import COLUMNS, Row
from evaluation.confidence import Interval, bootstrap_mean


@dataclass(frozen=True)
class Summary:
    """One number of one method at one dose: the interval, and the lowest and highest mean of a subject."""

    group: str
    dose: float
    method: str
    column: str
    interval: Interval
    lowest: float
    highest: float


@dataclass(frozen=True)
class Target:
    """A number that a method should reach on average over the subjects at a dose, None for every dose."""

    text: str
    dose: float | None
    column: str
    reached: Callable[[float], bool]


TARGETS = (
    Target("5 dB or more over the low dose", 1 / 20, "psnr_normal_over_low_dose", lambda mean: mean >= 5),
    Target("1.5 dB or more over the best filter", 1 / 20, "psnr_normal_over_filters", lambda mean: mean >= 1.5),
    Target("SSIM above the best filter's", 1 / 20, "ssim_normal_over_filters", lambda mean: mean > 0),
    Target("PSNR not below the input's, against the truth", 1 / 2, "psnr_truth_over_low_dose", lambda mean: mean >= 0),
    Target("PSNR not below the input's", 1 / 2, "psnr_normal_over_low_dose", lambda mean: mean >= 0),
    Target("PSNR not below the input's, against the truth", 1.0, "psnr_truth_over_low_dose", lambda mean: mean >= 0),
    Target("PSNR above the best filter's", 1 / 100, "psnr_normal_over_filters", lambda mean: mean > 0),
    Target("liver SUVmean within 2 %", None, "liver_bias_normal", lambda mean: abs(mean) <= 2),
    Target("lung SUVmean within 2 %", None, "lung_bias_normal", lambda mean: abs(mean) <= 2),
    Target("lesion SUVpeak within 10 %", None, "lesion_bias_normal", lambda mean: abs(mean) <= 10),
)


def summarise(rows: Sequence[Row], lesions: Sequence[Row]) -> list[Summary]:
    """Every column for all subjects and by tracer and scanner, at each dose, for each method."""
    summaries = []
    for group, chosen in _groups(rows):
        for dose in sorted({row["dose"] for row in rows}, reverse=True):
            for method in dict.fromkeys(row["method"] for row in rows):
                own, own_lesions = (
                    [row for row in table if chosen(row) and row["dose"] == dose and row["method"] == method]
                    for table in (rows, lesions)
                )
                if own:
                    summaries += [_summary(group, dose, method, column, own, own_lesions) for column in COLUMNS]
    return summaries


def _groups(rows: Sequence[Row]) -> Iterable[tuple[str, Callable[[Row], bool]]]:
    yield "all subjects", lambda row: True  # noqa: ARG005
    for kind in ("tracer", "scanner"):
        for value in dict.fromkeys(row[kind] for row in rows):
            yield f"{kind} {value}", lambda row, kind=kind, value=value: row[kind] == value


def _summary(group: str, dose: float, method: str, column: str, rows: list[Row], lesions: list[Row]) -> Summary:
    table = lesions if column.startswith("lesion") else rows
    by_subject: dict[object, list[float]] = {}
    for row in table:
        if not math.isnan(row[column]):
            by_subject.setdefault(row["subject"], []).append(row[column])
    means = [sum(values) / len(values) for values in by_subject.values()] or [math.nan]
    return Summary(group, dose, method, column, bootstrap_mean(list(by_subject.values())), min(means), max(means))


def as_row(summary: Summary) -> Row:
    """A line of summary.csv."""
    interval = summary.interval
    return {
        "group": summary.group, "dose": summary.dose, "method": summary.method, "column": summary.column,
        "mean": interval.mean, "ci_low": interval.low, "ci_high": interval.high, "subjects": interval.subjects,
        "lowest_subject": summary.lowest, "highest_subject": summary.highest,
    }  # fmt: skip


def dose_text(dose: float) -> str:
    """1/20 for 0.05."""
    return str(Fraction(dose).limit_denominator(1000))


def format_markdown(summaries: Sequence[Summary]) -> str:
    """A table per group of subjects: dose and method in rows, mean and 95 % interval in cells."""
    parts = []
    for group in dict.fromkeys(summary.group for summary in summaries):
        own = [summary for summary in summaries if summary.group == group]
        lines = [f"## {group[0].upper()}{group[1:]}", ""]
        lines += _table_head(["dose", "method", *(title for title, _ in COLUMNS.values())])
        cells: dict[tuple[float, str], list[str]] = {}
        for summary in own:
            cells.setdefault((summary.dose, summary.method), []).append(_cell(summary))
        lines += [f"| {dose_text(dose)} | {method} | {' | '.join(row)} |" for (dose, method), row in cells.items()]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def format_targets(summaries: Sequence[Summary], methods: Iterable[str]) -> str:
    """Markdown table of the targets that each method reaches on average over all subjects, and of those it misses."""
    lines = ["## Targets", "", *_table_head(["method", "dose", "target", "measured", "subjects from, to", "reached"])]
    for method in methods:
        for target in TARGETS:
            for summary in summaries:
                about = (summary.group, summary.method, summary.column)
                if about != ("all subjects", method, target.column) or target.dose not in (None, summary.dose):
                    continue
                if math.isnan(summary.interval.mean):
                    continue
                decimals = COLUMNS[summary.column][1]
                extremes = f"{summary.lowest:.{decimals}f}, {summary.highest:.{decimals}f}"
                reached = "yes" if target.reached(summary.interval.mean) else "**no**"
                cells = [method, dose_text(summary.dose), target.text, _cell(summary), extremes, reached]
                lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _table_head(titles: list[str]) -> list[str]:
    return [f"| {' | '.join(titles)} |", "|" + "---|" * len(titles)]


def _cell(summary: Summary) -> str:
    interval, decimals = summary.interval, COLUMNS[summary.column][1]
    if math.isnan(interval.mean):
        return "–"
    text = f"{interval.mean:.{decimals}f}"
    if math.isnan(interval.low):
        return text
    return f"{text} [{interval.low:.{decimals}f}, {interval.high:.{decimals}f}]"
