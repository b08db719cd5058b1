"""evaluation/compare.py: biases and margins that are known, the tables, and mistakes."""

import csv
import json
import re
import sys

import numpy as np
import pytest

from evaluation.case_scores import measure_case, open_case
from evaluation.compare import main
from guided_diffusion.errors import InputError
from guided_diffusion.inference.subjects import find_subjects
from guided_diffusion.pet.trial_manifest import read_cases
from tests.evaluation_trial import LESION, LIVER, LUNG, VOXEL_MM, activity, save, write_results, write_trial

PARAMETERS = {"gaussian": 0.0, "nl_means": 1.0}


@pytest.fixture
def folders(tmp_path):
    write_trial(tmp_path / "test", "test")
    write_trial(tmp_path / "validation", "validation", seed=1)
    write_results(tmp_path / "test", tmp_path / "results")
    return tmp_path


@pytest.fixture
def compare(folders, monkeypatch):
    def compare(*more, method="ours=results"):
        name, _, place = method.partition("=")
        arguments = ["--trial", folders / "test", "--validation", folders / "validation", "--out", folders / "out"]
        arguments += ["--method", f"{name}={folders / place}", *more]
        monkeypatch.setattr(sys, "argv", ["compare.py", *map(str, arguments)])
        main()

    return compare


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def biased(image):
    """Liver 5 % too high, lung 3 % too low, lesion 10 % too low."""
    wrong = image.copy()
    wrong[LIVER] *= 1.05
    wrong[LUNG] *= 0.97
    wrong[LESION] *= 0.9
    return wrong


def measured(folders, dose, image_of):
    """Rows by method and lesion rows by method of the first subject at a dose; the method returns `image_of(exam)`."""
    case = next(case for case in read_cases(folders / "test") if case.dose == dose)
    examination = open_case(case)
    save(folders / "made" / case.name / "denoised.nii.gz", image_of(examination))
    rows, lesions = measure_case(examination, {"ours": folders / "made"}, PARAMETERS)
    return {row["method"]: row for row in rows}, [row for row in lesions if row["method"] == "ours"]


def test_known_biases_against_the_normal_dose(folders):
    rows, lesions = measured(folders, 0.05, lambda exam: biased(exam.normal_dose))
    assert rows["ours"]["liver_bias_normal"] == pytest.approx(5, abs=1e-3)
    assert rows["ours"]["lung_bias_normal"] == pytest.approx(-3, abs=1e-3)
    assert [lesion["label"] for lesion in lesions] == [100]  # the other one is under 10 mm
    assert lesions[0]["lesion_bias_normal"] == pytest.approx(-10, abs=1e-3)
    assert lesions[0]["diameter_mm"] == pytest.approx(24 * (6 / np.pi) ** (1 / 3))


def test_known_biases_against_the_truth(folders):
    rows, lesions = measured(folders, 0.05, lambda exam: biased(exam.truth))
    assert rows["ours"]["liver_bias_truth"] == pytest.approx(5, abs=1e-3)
    assert rows["ours"]["lung_bias_truth"] == pytest.approx(-3, abs=1e-3)
    assert lesions[0]["lesion_bias_truth"] == pytest.approx(-10, abs=1e-3)


def test_psnr_and_margins(folders):
    seen = []

    def offset(examination):
        seen.extend(np.clip(image, 0, 16) for image in (examination.normal_dose, examination.low_dose.data))
        return np.clip(examination.normal_dose, 0, 15) + 0.1

    rows, _ = measured(folders, 0.05, offset)
    ours, low, filters = rows["ours"], rows["low_dose"], [rows["gaussian"], rows["nl_means"]]
    assert ours["psnr_normal"] == pytest.approx(20 * np.log10(16 / 0.1), abs=0.1)
    assert low["psnr_normal"] == pytest.approx(10 * np.log10(16**2 / np.mean((seen[0] - seen[1]) ** 2)))
    assert ours["psnr_normal_over_low_dose"] == ours["psnr_normal"] - low["psnr_normal"]
    assert ours["psnr_normal_over_filters"] == ours["psnr_normal"] - max(row["psnr_normal"] for row in filters)
    assert ours["ssim_normal_over_filters"] == ours["ssim_normal"] - max(row["ssim_normal"] for row in filters)
    assert rows["gaussian"]["psnr_normal"] == low["psnr_normal"]  # sigma 0 changes nothing
    assert low["psnr_normal_over_low_dose"] == 0


def test_a_perfect_denoiser_does_not_beat_half_the_dose_against_the_noisy_reference(tmp_path):
    """As README derives: both errors are the variance of the normal dose's noise."""
    write_trial(tmp_path / "test", "test", subjects=1, doses=(0.5,))
    rows, _ = measured(tmp_path, 0.5, lambda _: activity())
    assert rows["ours"]["psnr_normal_over_low_dose"] == pytest.approx(0, abs=0.15)
    assert rows["ours"]["psnr_truth_over_low_dose"] > 3


def test_the_normal_dose_is_compared_with_the_truth_alone(folders):
    rows, _ = measured(folders, 1.0, lambda exam: exam.truth)
    assert np.isnan(rows["ours"]["psnr_normal"])
    assert np.isnan(rows["low_dose"]["psnr_normal_over_filters"])
    assert rows["ours"]["psnr_truth"] == 100
    assert rows["low_dose"]["psnr_truth"] == pytest.approx(20 * np.log10(16 / 0.2), abs=0.5)
    assert rows["ours"]["liver_bias_normal"] == pytest.approx(0, abs=0.5)


def test_tables(compare, folders, capsys):
    compare()
    rows, lesions = table(folders / "out" / "subjects.csv"), table(folders / "out" / "lesions.csv")
    assert len(rows) == 2 * 2 * 4  # subjects, doses, low dose + two filters + ours
    assert len(lesions) == 2 * 2 * 4
    gain = [float(r["psnr_normal_over_low_dose"]) for r in rows if (r["method"], r["dose"]) == ("ours", "0.05")]
    summary = table(folders / "out" / "summary.csv")
    (line,) = [
        row for row in summary
        if (row["group"], row["dose"], row["method"], row["column"])
        == ("all subjects", "0.05", "ours", "psnr_normal_over_low_dose")
    ]  # fmt: skip
    assert float(line["mean"]) == pytest.approx(np.mean(gain))
    assert line["subjects"] == "2"
    assert {row["group"] for row in summary} == {"all subjects", "tracer fdg", "tracer psma", "scanner mct"}
    tuned = {(row["dose"], row["filter"]): float(row["value"]) for row in table(folders / "out" / "filters.csv")}
    assert 0 < tuned["0.05", "gaussian"] <= 2 * VOXEL_MM
    text = (folders / "out" / "table.md").read_text()
    assert text == capsys.readouterr().out
    assert f"| ours | 1/20 | 5 dB or more over the low dose | {np.mean(gain):.2f} [" in text
    assert "| 1 | low_dose | – | – |" in text


def test_only_some_doses(compare, folders):
    compare("--doses", "1/20")
    assert {row["dose"] for row in table(folders / "out" / "subjects.csv")} == {"0.05"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--doses", "1/20,1/4"], r"test: no scan at dose 1/4; simulate it"),
        (["--doses", "x"], "--doses 'x': give a comma list of fractions"),
        (["--method", "gaussian=x"], "the name 'gaussian' is taken"),
        (["--method", "results"], "write NAME=DIR"),
    ],
)
def test_bad_flags_get_one_line(compare, folders, arguments, message):
    with pytest.raises(InputError, match=message):
        compare(*arguments)
    assert not (folders / "out" / "table.md").exists()


def test_results_that_are_missing_or_of_another_scan(compare, folders):
    with pytest.raises(InputError, match=r"elsewhere/sub-0000/low_dose_1/denoised.nii.gz: not there"):
        compare(method="ours=elsewhere")
    save(folders / "results" / "sub-0001" / "low_dose_1-20" / "denoised.nii.gz", np.full((32, 32, 31), 2, np.float32))
    with pytest.raises(InputError, match=r"sub-0001/low_dose_1-20/denoised.nii.gz: lies on another grid"):
        compare("--doses", "1/20")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("sub-0000/truth.nii.gz", "../../truth.nii.gz", "lies outside the data set"),
        ("sub-0000/truth.nii.gz", "sub-0000/none.nii.gz", "'sub-0000/none.nii.gz' is not there"),
        ("0.05", "few", "the dose 'few' is not a number"),
        ("tracer,", "", "no column 'tracer'"),
        (",test,", ",train,", "no subject has the split 'test'"),
    ],
)
def test_manifests_that_cannot_be_used(compare, folders, old, new, message):
    manifest = folders / "test" / "manifest.csv"
    manifest.write_text(manifest.read_text().replace(old, new))
    with pytest.raises(InputError, match=message):
        compare()


def test_scripts_test_finds_every_low_dose_of_a_trial(folders):
    subjects = find_subjects(str(folders / "test"), str(folders / "denoised"))
    assert [subject.path for subject in subjects][:2] == [
        str(folders / "test" / "sub-0000" / name) for name in ("low_dose_1.nii.gz", "low_dose_1-20.nii.gz")
    ]
    assert subjects[-1].folder == folders / "denoised" / "sub-0001" / "low_dose_1-20"


def test_a_page_per_scan_of_a_subject(folders, compare):
    (folders / "results").rename(folders / "<b>")
    compare("--report", "sub-0001", "--doses", "1/20,1", method="<b>=<b>")
    pages = sorted(path.name for path in (folders / "out").glob("*.html"))
    assert pages == ["report_sub-0001_1-20.html", "report_sub-0001_1.html"]
    text = (folders / "out" / pages[0]).read_text()
    layout = json.loads(re.search(r'id="layout">(.*?)</script>', text, re.DOTALL)[1])
    titles = [volume["title"] for volume in layout["volumes"]]
    assert titles == ["low dose", "gaussian", "nl means", "<b>", "normal dose"]
    assert "<b>" not in re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    (row,) = [row for row in table(folders / "out" / "subjects.csv")
              if (row["subject"], row["dose"], row["method"]) == ("sub-0001", "0.05", "<b>")]  # fmt: skip
    assert f"<td>{float(row['psnr_normal']):.2f}</td>" in text
    (lesion,) = [row for row in table(folders / "out" / "lesions.csv")
                 if (row["subject"], row["dose"], row["method"]) == ("sub-0001", "0.05", "<b>")]  # fmt: skip
    assert f"{float(lesion['suv_peak']):.2f} ({float(lesion['lesion_bias_normal']):+.1f} %)" in text
    # the middle of the lesion [4:10, 20:26, 20:26], whose axes run right, front, head: back, left, head
    place = [int(n) for n in re.search(r'data-place="(\d+),(\d+),(\d+)"', text).groups()]
    assert np.abs(np.subtract(place, (31 - 22.5, 31 - 6.5, 22.5))).max() <= 0.5
    assert text.count('alt="PSNR against the normal dose (dB) against dose fraction') == 1
    assert not re.search(r"\b20\d\d-\d\d-\d\d", text)


def test_a_page_about_a_subject_that_is_not_compared(compare):
    with pytest.raises(InputError, match="--report 'sub-0007': no such subject"):
        compare("--report", "sub-0000,sub-0007")
