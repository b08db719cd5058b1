"""The page about one scan of a virtual trial: all methods side by side, their numbers, and plots over the doses."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from evaluation.case_scores import COLUMNS, Examination, Row, images_of
from evaluation.summary import dose_text
from guided_diffusion.pet.orientation import turned
from guided_diffusion.report import images as shown_images
from guided_diffusion.report.images import Image
from guided_diffusion.report.page import write_page
from guided_diffusion.report.pictures import svg_address

NORMAL_DOSE = "normal dose"
SHOWN = tuple(name for name in COLUMNS if "_over_" not in name and not name.startswith("lesion"))
PLOTS = (("psnr_normal", "PSNR against the normal dose (dB)"), ("lesion_bias_normal", "mean bias of SUVpeak (%)"))


def write_case_page(
    path: Path,
    examination: Examination,
    methods: Mapping[str, Path],
    parameters: Mapping[str, float],
    rows: Sequence[Row],
    lesions: Sequence[Row],
) -> None:
    """Write the page about a case.

    methods, parameters: as of `images_of`. rows, lesions: of the whole comparison, as `measure_case` gives them.
    """
    case, scan = examination.case, examination.low_dose
    shown = images_of(examination, methods, parameters) | {NORMAL_DOSE: examination.normal_dose}
    images = shown_images.upright([Image(_title(name), replace(scan, data=data)) for name, data in shown.items()])
    layout = shown_images.viewer(images)
    texts = layout.pop("texts")
    own = [row for row in rows if row["subject"] == case.subject]
    own_lesions = [row for row in lesions if row["subject"] == case.subject]
    content = {
        "title": f"Comparison: {case.subject} at {dose_text(case.dose)} of the dose",
        "about": [("tracer", case.tracer), ("scanner", case.scanner), ("dose", dose_text(case.dose))],
        "neck_mm": 0.0,
        "projections": shown_images.projection_rows(images, [(image, images[-1]) for image in images[:-1]]),
        "rotation": shown_images.rotation(images),
        "layout": layout,
        "texts": texts,
        "columns": [COLUMNS[name][0] for name in SHOWN],
        "numbers": _numbers([row for row in own if row["dose"] == case.dose]),
        "methods": [_title(row["method"]) for row in own if row["dose"] == case.dose],
        "lesions": _lesions([row for row in own_lesions if row["dose"] == case.dose], examination, layout),
        "plots": _plots(own, own_lesions),
    }
    write_page(path, "comparison.html", content)


def _title(name: object) -> str:
    return str(name).replace("_", " ")


def _numbers(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """A row per method: its numbers as text, a dash where there is nothing to measure."""
    table = []
    for row in rows:
        cells = [_cell(row[name], COLUMNS[name][1]) for name in SHOWN]
        table.append({"method": _title(row["method"]), "cells": cells})
    return table


def _cell(value: object, decimals: int) -> str:
    return "–" if np.isnan(value) else f"{value:.{decimals}f}"


def _lesions(rows: Sequence[Row], examination: Examination, layout: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row per lesion: where it is, its size, and SUVpeak of every method with the bias against the normal dose."""
    labels = turned(replace(examination.low_dose, data=examination.labels))
    table = []
    for label in dict.fromkeys(row["label"] for row in rows):
        own = [row for row in rows if row["label"] == label]
        centre = np.argwhere(labels.data == label).mean(axis=0).round().astype(int)
        cells = [f"{row['suv_peak']:.2f} ({row['lesion_bias_normal']:+.1f} %)" for row in own]
        place = shown_images.where(centre, labels.affine, layout)
        table.append({**place, "diameter_mm": own[0]["diameter_mm"], "cells": cells})
    return table


def _plots(rows: Sequence[Row], lesions: Sequence[Row]) -> list[dict[str, str]]:
    """Numbers of the subject against dose, a line per method; the text of each names the range."""
    plots = []
    for column, label in PLOTS:
        table = lesions if column.startswith("lesion") else rows
        lines = _lines(table, column)
        if lines:
            figure = _draw(lines, label)
            names = ", ".join(_title(method) for method in lines)
            plots.append({"src": svg_address(figure), "alt": f"{label} against dose fraction for {names}"})
    return plots


def _lines(table: Sequence[Row], column: str) -> dict[str, list[tuple[float, float]]]:
    """Per method the doses with the mean of a column there; doses without a measurement are left out."""
    lines = {}
    for method in dict.fromkeys(row["method"] for row in table):
        own = [row for row in table if row["method"] == method and not np.isnan(row[column])]
        doses = sorted({row["dose"] for row in own})
        points = [(dose, float(np.mean([row[column] for row in own if row["dose"] == dose]))) for dose in doses]
        if points:
            lines[method] = points
    return lines


def _draw(lines: Mapping[str, Sequence[tuple[float, float]]], label: str) -> Figure:
    figure = Figure(figsize=(6.0, 3.6), layout="constrained")
    panel = figure.subplots()
    for method, points in lines.items():
        panel.plot(*zip(*points, strict=True), marker="o", label=_title(method))
    doses = sorted({dose for points in lines.values() for dose, _ in points})
    panel.set_xscale("log")
    panel.set_xticks(doses, [dose_text(dose) for dose in doses])
    panel.minorticks_off()
    panel.set_xlabel("dose fraction")
    panel.set_ylabel(label)
    panel.grid(alpha=0.3)
    panel.legend(fontsize="small")
    return figure
