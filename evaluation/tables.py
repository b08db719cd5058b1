"""Tables of a comparison: means with intervals and marks of significance, as Markdown and as LaTeX."""

import math
from collections.abc import Sequence

from evaluation.compared_scans import dose_text
from evaluation.confidence import Interval
from evaluation.measures import LESIONS, METRICS
from evaluation.summary import EVERYONE, Summary

COLUMNS = (
    ("psnr_normal", "volume"),
    ("ssim_normal", "volume"),
    ("nrmse_normal", "volume"),
    ("suv_mean_bias_normal", "liver"),
    ("suv_mean_bias_normal", "lung"),
    ("suv_peak_bias_normal", LESIONS),
    ("suv_peak_bias_truth", LESIONS),
    ("lesion_cnr", LESIONS),
    ("cov", "liver"),
    ("foci_lost_normal", "volume"),
    ("foci_invented_normal", "volume"),
    ("psnr_truth", "volume"),
    ("ssim_truth", "volume"),
    ("realisation_variance", "body"),
    ("uncertainty_variance", "body"),
    ("spread_over_error_normal", "body"),
    ("coverage_95_normal", "body"),
    ("cov", "uniform_spheres"),
    ("suv_mean_bias_low_dose", "uniform_spheres"),
    ("foci_lost_low_dose", "volume"),
    ("foci_invented_low_dose", "volume"),
)
"""Numbers that the printed tables show where they were measured; summary.csv has all."""

LEVELS = ((0.001, "***"), (0.01, "**"), (0.05, "*"))
_ESCAPES = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"} | {
    special: f"\\{special}" for special in "&%$#_{}"
}


def format_markdown(summaries: Sequence[Summary], against: str | None) -> str:
    """A table per group of subjects: dose and method in rows, mean, 95 % interval and mark in cells."""
    parts = []
    for group in dict.fromkeys(one.group for one in summaries):
        head, rows = _cells(summaries, group)
        lines = [f"## {group[0].upper()}{group[1:]}", "", *table_head(head)]
        lines += [table_line(row) for row in rows]
        if against is not None and group == EVERYONE:
            lines += ["", _legend(against)]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def format_latex(summaries: Sequence[Summary], against: str | None) -> str:
    """The table of all subjects as a tabular that needs no package."""
    head, rows = _cells(summaries, EVERYONE)
    lines = [r"\begin{tabular}{ll" + "r" * (len(head) - 2) + "}", r"\hline"]
    lines += [" & ".join(map(_escaped, head)) + r" \\", r"\hline"]
    lines += [" & ".join(map(_escaped, row)) + r" \\" for row in rows]
    lines += [r"\hline", r"\end{tabular}"]
    if against is not None:
        lines.append(f"% {_legend(against)}")
    return "\n".join(lines) + "\n"


def table_head(titles: Sequence[str]) -> list[str]:
    """The first two lines of a Markdown table."""
    return [f"| {' | '.join(titles)} |", "|" + "---|" * len(titles)]


def table_line(cells: Sequence[str]) -> str:
    """A further line; a bar in a cell is escaped."""
    escaped = [cell.replace("|", "\\|") for cell in cells]
    return f"| {' | '.join(escaped)} |"


def title_of(method: str) -> str:
    """A method's name as titles and legends show it."""
    return method.replace("_", " ")


def interval_text(interval: Interval, decimals: int) -> str:
    """A mean with its interval in brackets, where there is one."""
    text = f"{interval.mean:.{decimals}f}"
    if math.isnan(interval.low):
        return text
    return f"{text} [{interval.low:.{decimals}f}, {interval.high:.{decimals}f}]"


def mark_of(p_corrected: float | None) -> str:
    """One to three stars for a corrected p under 0.05, 0.01, 0.001."""
    if p_corrected is None:
        return ""
    return next((mark for level, mark in LEVELS if p_corrected < level), "")


def heading_of(metric: str, region: str) -> str:
    """A column's title."""
    heading = METRICS[metric].heading
    is_said = region == "volume" or (region == LESIONS and heading.startswith("lesion"))
    return heading if is_said else f"{region.replace('_', ' ')}: {heading}"


def _cells(summaries: Sequence[Summary], group: str) -> tuple[list[str], list[list[str]]]:
    """The head of a group's table and its rows of cells; a dash where nothing was measured."""
    own = [one for one in summaries if one.group == group and (one.metric, one.region) in COLUMNS]
    columns = [column for column in COLUMNS if any((one.metric, one.region) == column for one in own)]
    table: dict[tuple[float | None, str], dict[tuple[str, str], str]] = {}
    for one in own:
        text = interval_text(one.interval, METRICS[one.metric].decimals) + mark_of(one.p_corrected)
        table.setdefault((one.dose, one.method), {})[one.metric, one.region] = text
    rows = [
        [dose_text(dose), method, *(cells.get(column, "–") for column in columns)]
        for (dose, method), cells in table.items()
    ]
    return ["dose", "method", *(heading_of(*column) for column in columns)], rows


def _legend(against: str) -> str:
    return (
        f"Marks: paired Wilcoxon signed-rank test against {against} over the subjects, corrected by Benjamini and"
        " Hochberg over this table: * p < 0.05, ** p < 0.01, *** p < 0.001."
    )


def _escaped(cell: str) -> str:
    return "".join(_ESCAPES.get(character, character) for character in cell).replace("–", "--")
