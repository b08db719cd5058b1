"""Plots of a comparison: numbers against dose with intervals, and Bland-Altman plots of lesions' SUVpeak."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from evaluation.compared_scans import dose_text
from evaluation.measures import LESIONS, pooled_region
from evaluation.measuring import LOW_DOSE, Row
from evaluation.summary import EVERYONE, Summary
from evaluation.tables import heading_of, title_of
from guided_diffusion.report.picture_files import save_png

AGAINST_DOSE = (("psnr_normal", "volume"), ("suv_peak_bias_normal", LESIONS), ("lesion_cnr", LESIONS))
LIMITS = 1.96  # standard deviations: limits of agreement (Bland and Altman 1986)
MARKERS = "osD^vP*X<>hdp"
COLOURS = ("black", *(f"C{number}" for number in range(10)), "navy", "darkgreen")  # the first is the low dose's
COLUMNS, DPI = 4, 130


def save_dose_plots(path: Path, summaries: Sequence[Summary]) -> bool:
    """Write a panel per number, a line per method with 95 % intervals, over the doses of all subjects.

    Returns whether there was anything to show.
    """
    panels = {number: _lines(summaries, number) for number in AGAINST_DOSE}
    panels = {number: lines for number, lines in panels.items() if lines}
    if not panels:
        return False
    figure = Figure(figsize=(4.6 * len(panels), 4.4), layout="constrained")
    for axes, (number, lines) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        draw_against_dose(axes, lines, heading_of(*number))
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 6), frameon=False)
    save_png(figure, path, DPI)
    return True


def _lines(summaries: Sequence[Summary], number: tuple[str, str]) -> dict[str, list[Summary]]:
    """Per method its summaries at all doses, the highest dose first."""
    lines: dict[str, list[Summary]] = {}
    for one in summaries:
        if one.group == EVERYONE and (one.metric, one.region) == number and one.dose is not None:
            lines.setdefault(one.method, []).append(one)
    return lines


def draw_against_dose(axes: Axes, lines: Mapping[str, Sequence[Summary]], title: str) -> None:
    """A line per method: means with intervals as bars, side by side where doses coincide."""
    doses = sorted({one.dose for line in lines.values() for one in line})
    for number, (method, line) in enumerate(lines.items()):
        shift = 1.03 ** (number - (len(lines) - 1) / 2)  # of the logarithmic axis, so that bars do not hide each other
        means = np.array([one.interval.mean for one in line])
        bars = [[_length(one.interval.mean, one.interval.low) for one in line],
                [_length(one.interval.mean, one.interval.high) for one in line]]  # fmt: skip
        axes.errorbar([one.dose * shift for one in line], means, bars, label=title_of(method), capsize=2, lw=1.3,
                      marker=MARKERS[number % len(MARKERS)], ms=5, color=COLOURS[number % len(COLOURS)])  # fmt: skip
    label_doses(axes, doses, title)


def label_doses(axes: Axes, doses: Sequence[float], title: str) -> None:
    """Give a panel the doses as its logarithmic x axis, and a title on the y axis."""
    axes.set_xscale("log")
    axes.set_xticks(doses, [dose_text(dose) for dose in doses])
    axes.minorticks_off()
    axes.set_xlabel("dose fraction")
    axes.set_ylabel(title)
    axes.grid(alpha=0.3)


def _length(mean: float, limit: float) -> float:
    return 0.0 if math.isnan(limit) else abs(limit - mean)


def save_bland_altman(path: Path, by_scan: Sequence[Sequence[Row]]) -> bool:
    """Write a panel per method: the difference of a lesion's SUVpeak from the normal dose's over the mean of the two.

    by_scan: the rows of each scan. Lines are the mean difference and the limits of agreement over all lesions and
    doses. Returns whether there was anything to show.
    """
    pairs = peak_pairs(by_scan)
    if not pairs:
        return False
    lines = math.ceil(len(pairs) / COLUMNS)
    columns = math.ceil(len(pairs) / lines)
    figure = Figure(figsize=(3.4 * columns, 2.8 * lines + 0.9), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
    doses = sorted({dose for own in pairs.values() for dose, _, _ in own}, key=lambda dose: dose or 0)
    for axes, (method, own) in zip(panels.flat, pairs.items(), strict=False):
        draw_bland_altman(axes, own, doses)
        axes.set_title(title_of(method), fontsize=11)
    for axes in panels.flat[len(pairs) :]:
        axes.set_visible(False)
    figure.supxlabel("mean of SUVpeak and that of the normal dose", fontsize=11)
    figure.supylabel("difference (%)", fontsize=11)
    handles, labels = panels.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False, title="dose fraction")
    save_png(figure, path, DPI)
    return True


def peak_pairs(by_scan: Sequence[Sequence[Row]]) -> dict[str, list[tuple[float | None, float, float]]]:
    """Per method each lesion's dose, SUVpeak and SUVpeak in the normal dose, from the rows of each scan.

    Left out are pairs without a place on the plot's logarithmic axis: of a normal dose, or of a mean, that is not
    above 0.
    """
    pairs: dict[str, list[tuple[float | None, float, float]]] = {}
    for rows in by_scan:  # rows do not name their scan, of which a subject may have several at one dose
        peaks = {(row.method, row.region): row.value for row in rows if row.metric == "suv_peak"}
        for row in rows:
            if row.metric == "suv_peak_bias_normal" and pooled_region(row.region) == LESIONS and row.value != -100:
                peak = peaks[row.method, row.region]
                reference = peak / (1 + row.value / 100)
                if reference > 0 and peak + reference > 0:
                    pairs.setdefault(row.method, []).append((row.dose, peak, reference))
    if set(pairs) == {LOW_DOSE}:
        return {}
    return pairs


def draw_bland_altman(axes: Axes, pairs: Sequence[tuple[float | None, float, float]], doses: Sequence) -> None:
    """Points of the lesions, coloured by dose, and the lines."""
    differences = agreement(pairs)
    for number, dose in enumerate(doses):
        own = [(mean, difference) for (at, _, _), (mean, difference) in zip(pairs, differences, strict=True)
               if at == dose]  # fmt: skip
        axes.scatter(*np.array(own or [(np.nan, np.nan)]).T, s=9, color=f"C{number}", label=dose_text(dose), alpha=0.7)
    values = np.array([difference for _, difference in differences])
    deviation = values.std(ddof=1) if len(values) > 1 else 0.0
    axes.axhline(values.mean(), color="black", lw=1)
    for sign in (-1, 1):
        axes.axhline(values.mean() + sign * LIMITS * deviation, color="black", lw=0.8, ls="--")
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(labelbottom=True)
    axes.grid(alpha=0.3)


def agreement(pairs: Sequence[tuple[float | None, float, float]]) -> list[tuple[float, float]]:
    """Of each (dose, value, reference): the mean of the two, and their difference in per cent of that mean."""
    return [((value + reference) / 2, 200 * (value - reference) / (value + reference)) for _, value, reference in pairs]
