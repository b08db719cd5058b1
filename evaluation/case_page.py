"""The HTML page on one scan of a comparison: all images side by side, their numbers, and plots against dose."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from evaluation.compared_scans import ComparedScan, dose_text, open_examination
from evaluation.comparison_plots import label_doses
from evaluation.measures import LESIONS, METRICS, Examination, pooled_region
from evaluation.measuring import Compared, Row
from evaluation.tables import COLUMNS, heading_of, title_of
from guided_diffusion.pet.orientation import turned
from guided_diffusion.report import images as shown_images
from guided_diffusion.report.images import Image
from guided_diffusion.report.page import write_page
from guided_diffusion.report.pictures import svg_address

NORMAL_DOSE = "normal dose"
PLOTS = (("psnr_normal", "volume"), ("suv_peak_bias_normal", LESIONS))


def page_names(scans: Sequence[ComparedScan]) -> list[str]:
    """The file name of each scan's page: its subject and dose, and its own name where several share these."""
    names = []
    for scan in scans:
        dose = "" if scan.dose is None else f"_{dose_text(scan.dose).replace('/', '-')}"
        names.append(f"report_{scan.subject.replace('/', '_')}{dose}")
    return [
        f"{name}.html" if names.count(name) == 1 else f"{name}_{scan.name.replace('/', '_')}.html"
        for name, scan in zip(names, scans, strict=True)
    ]


def write_case_page(path: Path, scan: ComparedScan, compared: Compared) -> None:
    """Write the page on one scan."""
    examination = open_examination(scan)
    shown = compared.images_of(scan, examination)
    if examination.normal_dose is not None:
        shown[NORMAL_DOSE] = examination.normal_dose
    low_dose = examination.low_dose
    images = shown_images.upright([Image(title_of(name), replace(low_dose, data=data)) for name, data in shown.items()])
    layout = shown_images.viewer(images)
    texts = layout.pop("texts")
    own = [row for row in compared.rows if row.subject == scan.subject]
    here = compared.rows_of(scan)
    columns = [column for column in COLUMNS if any((row.metric, row.region) == column for row in here)]
    dose = None if scan.dose is None else dose_text(scan.dose)
    alike = [one for one in compared.comparison.scans if (one.subject, one.dose) == (scan.subject, scan.dose)]
    called = f" ({scan.name})" if len(alike) > 1 else ""
    known = {"tracer": scan.tracer, "scanner": scan.scanner, "dose": dose}
    against = [] if examination.normal_dose is None else [(image, images[-1]) for image in images[:-1]]
    content = {
        "title": f"Comparison: {scan.subject}" + ("" if dose is None else f" at {dose} of the dose") + called,
        "about": [(name, value) for name, value in known.items() if value],
        "neck_mm": 0.0,
        "projections": shown_images.projection_rows(images, against),
        "rotation": shown_images.rotation(images),
        "layout": layout,
        "texts": texts,
        "columns": [heading_of(*column) for column in columns],
        "numbers": _numbers(here, columns),
        "methods": [title_of(name) for name in compared.comparison.names()],
        "lesions": _lesions(here, examination, layout),
        "plots": _plots(own),
    }
    write_page(path, "comparison.html", content)


def _numbers(rows: Sequence[Row], columns: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """A row per image: its numbers as text, a dash where there is nothing to measure."""
    table: dict[str, dict[tuple[str, str], str]] = {}
    for row in rows:
        text = f"{row.value:.{METRICS[row.metric].decimals}f}"
        table.setdefault(row.method, {})[row.metric, row.region] = text
    return [
        {"method": title_of(method), "cells": [cells.get(column, "–") for column in columns]}
        for method, cells in table.items()
    ]


def _lesions(rows: Sequence[Row], examination: Examination, layout: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row per lesion: where it is, its size, and SUVpeak in every image with the bias against the normal dose."""
    values = {(row.method, row.metric, row.region): row.value for row in rows}
    methods = dict.fromkeys(row.method for row in rows)
    table = []
    for name, voxels in examination.lesions.items():
        upright = turned(replace(examination.low_dose, data=voxels.astype(np.float32)))
        centre = np.argwhere(upright.data > 0).mean(axis=0).round().astype(int)
        diameter = (6000 / np.pi * voxels.sum() * examination.low_dose.voxel_ml) ** (1 / 3)
        cells = []
        for method in methods:
            bias = values.get((method, "suv_peak_bias_normal", name))
            peak = f"{values[method, 'suv_peak', name]:.2f}"
            cells.append(peak if bias is None else f"{peak} ({bias:+.1f} %)")
        place = shown_images.where(centre, upright.affine, layout)
        table.append({**place, "diameter_mm": diameter, "cells": cells})
    return table


def _plots(rows: Sequence[Row]) -> list[dict[str, str]]:
    """Numbers of the subject against dose, a line per image; the text of each names the range."""
    plots = []
    for metric, region in PLOTS:
        label = METRICS[metric].heading if region == "volume" else f"mean of the lesions: {METRICS[metric].heading}"
        lines = _lines([row for row in rows if row.metric == metric and pooled_region(row.region) == region])
        if lines:
            figure = _draw(lines, label)
            names = ", ".join(title_of(method) for method in lines)
            plots.append({"src": svg_address(figure), "alt": f"{label} against dose fraction for {names}"})
    return plots


def _lines(rows: Sequence[Row]) -> dict[str, list[tuple[float, float]]]:
    """Per image the known doses with the mean of the values there."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for method in dict.fromkeys(row.method for row in rows):
        own = [row for row in rows if row.method == method and row.dose is not None]
        doses = sorted({row.dose for row in own})
        if doses:
            lines[method] = [(dose, float(np.mean([row.value for row in own if row.dose == dose]))) for dose in doses]
    return lines


def _draw(lines: Mapping[str, Sequence[tuple[float, float]]], label: str) -> Figure:
    figure = Figure(figsize=(6.0, 3.6), layout="constrained")
    panel = figure.subplots()
    for method, points in lines.items():
        panel.plot(*zip(*points, strict=True), marker="o", label=title_of(method))
    doses = sorted({dose for points in lines.values() for dose, _ in points})
    label_doses(panel, doses, label)
    panel.legend(fontsize="small")
    return figure
