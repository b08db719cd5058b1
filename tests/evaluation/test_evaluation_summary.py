"""Summaries, tests, tables, targets and plots of rows whose outcome is known."""

import math

import matplotlib.image
import pytest

from evaluation.challenge_table import format_challenge
from evaluation.comparison_plots import agreement, peak_pairs, save_bland_altman, save_dose_plots
from evaluation.measures import LESIONS
from evaluation.measuring import Row
from evaluation.summary import EVERYONE, as_line, summarise, with_tests
from evaluation.tables import format_latex, format_markdown, mark_of
from evaluation.targets import format_targets

PSNR, BIAS = ("psnr_normal", "volume"), ("suv_peak_bias_normal", LESIONS)


def row(subject, dose, value, method="ours", number=PSNR, tracer="fdg", scanner="mct"):
    return Row(subject, tracer, scanner, dose, method, *number, value)


def lesion(subject, bias, name="lesion_01", method="ours"):
    return row(subject, 0.05, bias, method, ("suv_peak_bias_normal", name))


def found(summaries, group, number, method="ours"):
    (summary,) = [s for s in summaries if (s.group, (s.metric, s.region), s.method) == (group, number, method)]
    return summary


def test_means_and_extremes_by_group():
    rows = [row(name, 0.05, psnr, tracer=tracer) for name, tracer, psnr in
            (("a", "fdg", 40.0), ("b", "fdg", 42.0), ("c", "psma", 50.0))]  # fmt: skip
    rows += [lesion("a", -10.0), lesion("a", -20.0, "lesion_02"), lesion("b", 0.0)]
    summaries = summarise(rows)
    everyone = as_line(found(summaries, EVERYONE, PSNR))
    assert (everyone["mean"], everyone["lowest_subject"], everyone["highest_subject"]) == (44, 40, 50)
    assert everyone["subjects"] == 3
    assert everyone["p_corrected"] == ""
    assert found(summaries, "tracer fdg", PSNR).interval.mean == 41
    alone = as_line(found(summaries, "tracer psma", PSNR))
    assert (alone["subjects"], alone["ci_low"]) == (1, "")
    lesions = as_line(found(summaries, EVERYONE, BIAS))
    assert (lesions["mean"], lesions["lowest_subject"], lesions["highest_subject"]) == (-10, -15, 0)
    assert list(dict.fromkeys(s.group for s in summaries)) == [EVERYONE, "tracer fdg", "tracer psma", "scanner mct"]


def test_the_test_is_paired_by_subject_and_corrected():
    """Eight differences of one sign: p = 2 / 2^8. Of two tests the larger p stays, the smaller doubles at the most."""
    rows = []
    for number in range(8):
        rows += [row(f"s{number}", 0.05, 40.0 + number, "ours"), row(f"s{number}", 0.05, 39.0 + 0.9 * number, "worse")]
        rows.append(row(f"s{number}", 0.05, 40.0 + number + (1.5 + number) * (-1) ** number, "alike"))
    summaries = with_tests(summarise(rows), "ours", [PSNR])
    assert found(summaries, EVERYONE, PSNR).p_corrected is None
    assert found(summaries, EVERYONE, PSNR, "worse").p_corrected == pytest.approx(2 * 2 / 2**8)
    assert found(summaries, EVERYONE, PSNR, "alike").p_corrected > 0.5
    assert found(summaries, "tracer fdg", PSNR, "worse").p_corrected is None
    assert [mark_of(p) for p in (None, 0.05, 0.049, 0.0099, 0.0009)] == ["", "", "*", "**", "***"]
    text = format_markdown(summaries, "ours")
    assert "]* |" in text.split("| worse |")[1].splitlines()[0]
    assert "*" not in text.split("| alike |")[1].splitlines()[0]
    assert "test against ours over the subjects" in text


def test_a_bias_is_tested_by_its_distance_from_zero():
    """-5 and +5 % are equally good, however different."""
    rows = [lesion(f"s{n}", 5.0 + 0.1 * n, method="ours") for n in range(6)]
    rows += [lesion(f"s{n}", -5.0 - 0.1 * n, method="other") for n in range(6)]
    assert found(with_tests(summarise(rows), "ours", [BIAS]), EVERYONE, BIAS, "other").p_corrected == 1


@pytest.mark.parametrize(
    ("dose", "number", "value", "base", "reached"),
    [
        (0.05, PSNR, 45.0, ("low_dose", 40.0), True),
        (0.05, PSNR, 44.9, ("low_dose", 40.0), False),
        (0.05, PSNR, 41.4, ("gaussian", 40.0), False),
        (0.05, ("ssim_normal", "volume"), 0.951, ("nl_means", 0.95), True),
        (0.5, ("psnr_truth", "volume"), 39.9, ("low_dose", 40.0), False),
        (1.0, ("psnr_truth", "volume"), 40.0, ("low_dose", 40.0), True),
        (0.01, PSNR, 39.9, ("gaussian", 40.0), False),
        (0.25, ("suv_mean_bias_normal", "liver"), -2.1, None, False),
        (0.25, ("suv_mean_bias_normal", "lung"), 1.9, None, True),
    ],
)
def test_targets(dose, number, value, base, reached):
    rows = [row("a", dose, value, number=number)]
    if base is not None:
        rows.append(row("a", dose, base[1], base[0], number))
    (line,) = format_targets(rows, ["ours"]).splitlines()[4:]
    assert line.startswith("| ours | ")
    assert line.endswith("| yes |" if reached else "| **no** |")


def test_the_best_filter_is_that_of_the_subject():
    rows = [row("a", 0.05, 42.0), row("a", 0.05, 40.0, "gaussian"), row("a", 0.05, 41.0, "nl_means")]
    rows += [row("b", 0.05, 42.0), row("b", 0.05, 39.0, "gaussian"), row("b", 0.05, 38.0, "nl_means")]
    assert "1.5 dB or more over the best filter | 2.00 [1.00, 3.00] | 1.00, 3.00 | yes |" in format_targets(
        rows, ["ours"]
    )


def test_a_subjects_scans_are_compared_one_by_one():
    rows = [row("a", 0.05, 46.0), row("a", 0.05, 40.0, "low_dose")]
    rows += [row("a", 0.05, 38.0), row("a", 0.05, 37.0, "low_dose")]
    assert "5 dB or more over the low dose | 3.50 | 3.50, 3.50 | **no** |" in format_targets(rows, ["ours"])


def test_targets_of_which_nothing_is_known():
    assert format_targets([row("a", None, 40.0)], ["ours"]) == ""


def test_tables():
    rows = [row("a", 0.05, 40.0, "a_b"), row("b", 0.05, 42.0, "a_b"), row("a", None, 1.0, "a_b")]
    summaries = summarise(rows)
    text = format_markdown(summaries, None)
    assert "## All subjects" in text
    assert "| dose | method | PSNR, normal dose (dB) |" in text
    assert "| 1/20 | a_b | 41.00 [40.00, 42.00] |" in text
    assert "| – | a_b | 1.00 |" in text
    latex = format_latex(summaries, None)
    assert r"1/20 & a\_b & 41.00 [40.00, 42.00] \\" in latex
    assert r"-- & a\_b & 1.00 \\" in latex


def peak(subject, value, bias, method, dose):
    of = {"method": method}
    return [row(subject, dose, value, number=("suv_peak", "lesion_01"), **of),
            row(subject, dose, bias, number=("suv_peak_bias_normal", "lesion_01"), **of)]  # fmt: skip


def test_plots(tmp_path):
    by_scan = [peak("a", 5.0, 25.0, "ours", 0.05), peak("b", 8.0, -20.0, "ours", 0.25)]
    rows = [row for own in by_scan for row in own]
    pairs = peak_pairs(by_scan)
    assert pairs == {"ours": [(0.05, 5.0, 4.0), (0.25, 8.0, 10.0)]}
    means, differences = zip(*agreement(pairs["ours"]), strict=True)
    assert means == (4.5, 9)
    assert differences == pytest.approx((100 / 4.5, -200 / 9))
    assert save_bland_altman(tmp_path / "pairs.png", by_scan)
    assert save_dose_plots(tmp_path / "doses.png", summarise(rows))
    for name in ("pairs.png", "doses.png"):
        assert matplotlib.image.imread(tmp_path / name).std() > 0.05
    assert not save_bland_altman(tmp_path / "none.png", [[row("a", 0.05, 40.0)]])
    assert not save_dose_plots(tmp_path / "none.png", summarise([row("a", None, 40.0)]))
    assert not (tmp_path / "none.png").exists()
    assert math.isnan(summarise([row("a", 0.05, 40.0)])[0].interval.low)


def test_scans_of_one_subject_at_one_dose_are_points_of_their_own():
    by_scan = [peak("a", 10.0, 25.0, "ours", 0.05), peak("a", 2.0, 0.0, "ours", 0.05)]
    assert peak_pairs(by_scan) == {"ours": [(0.05, 10.0, 8.0), (0.05, 2.0, 2.0)]}


def test_lesions_without_a_mean_above_zero_are_left_out(tmp_path):
    """A bias of -100 % does not tell the normal dose's SUVpeak; a mean of 0 has no place on the logarithmic axis."""
    odd = [peak("a", 0.0, -100.0, "ours", 0.05), peak("b", -4.0, -200.0, "ours", 0.05)]
    assert peak_pairs([*odd, peak("c", 5.0, 25.0, "ours", 0.05)]) == {"ours": [(0.05, 5.0, 4.0)]}
    assert not save_bland_altman(tmp_path / "none.png", odd)


def test_the_table_of_the_challenges_score():
    number = ("nrmse_normal", "volume")
    rows = [row("a", 0.05, 20, "low_dose", number), row("a", 0.05, 5, "a|b", number)]
    table = format_challenge(rows)
    assert "| method | score | image | organs | lesions | 1/20 |" in table
    assert "| a\\|b | – | 75.0 | – | – | 75.0 |" in table
    assert format_challenge([row("a", 0.5, 20, "low_dose", number)]) == ""
