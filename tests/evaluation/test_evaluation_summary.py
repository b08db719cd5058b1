"""evaluation/summary.py: groups, intervals and targets from rows whose outcome is known."""

import math

import pytest

from evaluation.case_scores import COLUMNS
from evaluation.summary import format_markdown, format_targets, summarise


def row(subject, dose, method="ours", tracer="fdg", **numbers):
    columns = dict.fromkeys(COLUMNS, math.nan) | numbers
    return {"subject": subject, "tracer": tracer, "scanner": "mct", "dose": dose, "method": method} | columns


def lesion(subject, bias):
    return row(subject, 0.05, lesion_bias_normal=bias)


def found(summaries, group, column):
    (summary,) = [s for s in summaries if (s.group, s.column) == (group, column)]
    return summary


def test_means_and_extremes_by_group():
    rows = [row(name, 0.05, tracer=tracer, psnr_normal=psnr) for name, tracer, psnr in
            (("a", "fdg", 40.0), ("b", "fdg", 42.0), ("c", "psma", 50.0))]  # fmt: skip
    lesions = [lesion("a", -10.0), lesion("a", -20.0), lesion("b", 0.0)]
    summaries = summarise(rows, lesions)
    everyone = found(summaries, "all subjects", "psnr_normal")
    assert (everyone.interval.mean, everyone.lowest, everyone.highest) == (44, 40, 50)
    assert found(summaries, "tracer fdg", "psnr_normal").interval.mean == 41
    assert found(summaries, "tracer psma", "psnr_normal").interval.subjects == 1
    lesions_of_all = found(summaries, "all subjects", "lesion_bias_normal")
    assert (lesions_of_all.interval.mean, lesions_of_all.lowest, lesions_of_all.highest) == (-10, -15, 0)
    assert lesions_of_all.interval.subjects == 2
    assert math.isnan(found(summaries, "all subjects", "liver_bias_normal").interval.mean)


@pytest.mark.parametrize(
    ("dose", "column", "value", "reached"),
    [
        (0.05, "psnr_normal_over_low_dose", 5.0, True),
        (0.05, "psnr_normal_over_low_dose", 4.9, False),
        (0.05, "psnr_normal_over_filters", 1.4, False),
        (0.05, "ssim_normal_over_filters", 0.001, True),
        (0.5, "psnr_truth_over_low_dose", -0.1, False),
        (1.0, "psnr_truth_over_low_dose", 0.0, True),
        (0.01, "psnr_normal_over_filters", -0.1, False),
        (0.25, "liver_bias_normal", -2.1, False),
        (0.25, "lung_bias_normal", 1.9, True),
    ],
)
def test_targets(dose, column, value, reached):
    text = format_targets(summarise([row("a", dose, **{column: value})], []), ["ours"])
    (line,) = text.splitlines()[4:]
    assert line.startswith("| ours | ")
    assert line.endswith("| yes |" if reached else "| **no** |")


def test_a_target_of_another_dose_is_not_asked_for():
    summaries = summarise([row("a", 0.25, psnr_normal_over_low_dose=1.0)], [])
    assert len(format_targets(summaries, ["ours"]).splitlines()) == 4


def test_the_lesion_target_is_on_all_lesions():
    summaries = summarise([row("a", 0.05), row("b", 0.05)], [lesion("a", -12.0), lesion("b", -6.0)])
    assert "| lesion SUVpeak within 10 % | -9.0 [-12.0, -6.0] | -12.0, -6.0 | yes |" in format_targets(
        summaries, ["ours"]
    )


def test_markdown_cells():
    rows = [row("a", 0.05, psnr_normal=40.0), row("b", 0.05, psnr_normal=42.0)]
    text = format_markdown(summarise(rows, []))
    assert "## All subjects" in text
    assert "| 1/20 | ours | 41.00 [40.00, 42.00] | – |" in text
