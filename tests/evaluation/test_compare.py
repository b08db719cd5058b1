"""evaluation/compare.py on a virtual trial: tables, pages, ranks, runs that go on, and mistakes."""

import csv
import json
import re
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from evaluation import measuring
from evaluation.compare import main
from evaluation.compared_scans import Arrays, ComparedScan, open_examination
from evaluation.filters import FILTERS, tuning_scores
from evaluation.kept_results import KeptResults
from evaluation.measures import measure
from evaluation.measuring import Comparison, tune_filters
from guided_diffusion.errors import InputError
from guided_diffusion.inference.subjects import find_subjects
from guided_diffusion.pet.trial_manifest import read_cases
from tests.evaluation_trial import VOXEL_MM, activity, save, write_results, write_trial
from tests.mpi import needs_mpiexec, succeed


@pytest.fixture
def folders(tmp_path):
    write_trial(tmp_path / "test", "test")
    write_trial(tmp_path / "validation", "validation", subjects=1, seed=1)
    write_results(tmp_path / "test", tmp_path / "results")
    return tmp_path


def arguments(folders, *more, method="ours=results", out="out"):
    name, _, place = method.partition("=")
    given = ["--trial", folders / "test", "--validation", folders / "validation", "--out", folders / out]
    return [*map(str, given), "--method", f"{name}={folders / place}", *more]


@pytest.fixture
def compare(folders, monkeypatch):
    """The command, with few candidates for the filters that take long."""
    for name in ("nl_means", "total_variation"):
        monkeypatch.setitem(FILTERS, name, replace(FILTERS[name], candidates=(1.0, 3.0)))
    return lambda *more, **how: main(arguments(folders, *more, **how))


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def numbers(folders, out="out"):
    """The tidy table: subject, dose, method, metric, region -> value."""
    names = ("subject", "dose", "method", "metric", "region")
    return {tuple(row[name] for name in names): float(row["value"]) for row in table(folders / out / "numbers.csv")}


def test_a_perfect_denoiser_does_not_beat_half_the_dose_against_the_noisy_reference(tmp_path):
    """As README derives: both errors are the variance of the normal dose's noise."""
    write_trial(tmp_path / "test", "test", subjects=1, doses=(0.5,))
    (case,) = read_cases(tmp_path / "test")
    examination = open_examination(ComparedScan.of_case(case))
    perfect, low = (
        {one.metric: one.value for one in measure(examination, image) if one.region == "volume"}
        for image in (activity(), examination.low_dose.data)
    )
    assert perfect["psnr_normal"] - low["psnr_normal"] == pytest.approx(0, abs=0.15)
    assert perfect["psnr_truth"] - low["psnr_truth"] > 3


def test_tables(compare, folders, capsys):
    compare()
    rows = table(folders / "out" / "numbers.csv")
    assert list(rows[0]) == ["subject", "tracer", "scanner", "dose", "method", "metric", "region", "value"]
    found = numbers(folders)
    assert len(found) == len(rows)  # no number twice
    assert {(key[0], key[1], key[2]) for key in found} == {
        (subject, dose, method)
        for subject in ("sub-0000", "sub-0001")
        for dose in ("1.0", "0.05")
        for method in ("low_dose", *FILTERS, "ours")
    }
    assert {(row["subject"], row["tracer"], row["scanner"]) for row in rows} == {
        ("sub-0000", "fdg", "mct"), ("sub-0001", "psma", "mct"),
    }  # fmt: skip
    psnrs = [found[subject, "0.05", "ours", "psnr_normal", "volume"] for subject in ("sub-0000", "sub-0001")]
    case = read_cases(folders / "test")[1]
    ours = gaussian_filter(load(case.low_dose), 1)  # as write_results made it
    error = np.mean((np.clip(load(case.normal_dose), 0, 16) - np.clip(ours, 0, 16)) ** 2, dtype=float)
    assert psnrs[0] == pytest.approx(10 * np.log10(256 / error), abs=1e-4)
    (line,) = [
        row for row in table(folders / "out" / "summary.csv")
        if (row["group"], row["dose"], row["method"], row["metric"]) == ("all subjects", "0.05", "ours", "psnr_normal")
    ]  # fmt: skip
    assert float(line["mean"]) == pytest.approx(np.mean(psnrs))
    assert line["subjects"] == "2"
    tuned = {(row["dose"], row["filter"]): float(row["value"]) for row in table(folders / "out" / "filters.csv")}
    assert 0 < tuned["0.05", "gaussian"] <= 2 * VOXEL_MM
    text = (folders / "out" / "table.md").read_text()
    assert text == capsys.readouterr().out
    assert f"| 1/20 | ours | {np.mean(psnrs):.2f} [" in text
    assert "| 1 | low_dose | – | – |" in text
    assert "against ours over the subjects" in text
    gains = [
        psnr - found[subject, "0.05", "low_dose", "psnr_normal", "volume"]
        for psnr, subject in zip(psnrs, ("sub-0000", "sub-0001"), strict=True)
    ]
    assert f"| ours | 1/20 | 5 dB or more over the low dose | {np.mean(gains):.2f} [" in text
    assert (folders / "out" / "against_dose.png").read_bytes().startswith(b"\x89PNG")
    assert (folders / "out" / "bland_altman.png").read_bytes().startswith(b"\x89PNG")


def load(path):
    return nib.load(path).get_fdata(dtype=np.float32)


def test_only_some_doses(compare, folders):
    compare("--doses", "1/20")
    assert {row["dose"] for row in table(folders / "out" / "numbers.csv")} == {"0.05"}


def test_without_validation_there_are_no_filters(folders):
    trial = ["--trial", folders / "test", "--out", folders / "out", "--method", f"ours={folders / 'results'}"]
    main(list(map(str, trial)))
    assert {row["method"] for row in table(folders / "out" / "numbers.csv")} == {"low_dose", "ours"}
    assert not (folders / "out" / "filters.csv").exists()


def test_what_is_measured_is_not_measured_again(compare, folders, monkeypatch):
    compare()
    before = (folders / "out" / "numbers.csv").read_bytes()
    measured = []
    monkeypatch.setattr(measuring, "measure", lambda *given: measured.append(given) or measure(*given))
    monkeypatch.setattr(measuring, "tuning_scores", lambda *_: pytest.fail("tuned again"))
    (folders / "out" / "numbers.csv").unlink()
    compare()
    assert not measured
    assert (folders / "out" / "numbers.csv").read_bytes() == before
    changed = folders / "results" / "sub-0001" / "low_dose_1-20" / "denoised.nii.gz"
    save(changed, load(changed) + np.float32(0.1))
    liver = numbers(folders)["sub-0001", "0.05", "ours", "suv_mean", "liver"]
    compare()
    assert len(measured) == 1
    assert numbers(folders)["sub-0001", "0.05", "ours", "suv_mean", "liver"] - liver == pytest.approx(0.1, abs=1e-4)
    # Patches that are stated since, of which the seams are a number too.
    slices = load(changed).shape[2]
    plan = {"length": slices, "patch_size": slices // 2 + 1, "overlap": 2, "starts": [0, slices - slices // 2 - 1]}
    manifest = {"plan": plan, "model_grid": {"shape": load(changed).shape}}
    (changed.parent / "run.json").write_text(json.dumps(manifest))
    seams = ("sub-0001", "0.05", "ours", "seam_index_normal", "volume")
    assert seams not in numbers(folders)
    compare()
    assert len(measured) == 2
    assert seams in numbers(folders)
    for kept in (folders / "out" / "measured").iterdir():
        kept.write_text(kept.read_text().replace("liver", "lever"))  # damaged
    monkeypatch.setattr(measuring, "tuning_scores", tuning_scores)
    compare()
    assert len(measured) == 2 + 2 * 2 * (2 + len(FILTERS))


def test_filters_are_tuned_anew_for_arrays_of_another_voxel_size(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    places = [tmp_path / f"{name}.npz" for name in ("low", "normal")]
    for path, noise in zip(places, (0.5, 0.1), strict=True):
        np.savez(
            path, arr_0=(gaussian_filter(rng.uniform(0, 20, (24, 24, 24)), 2) + noise * rng.normal(size=(24, 24, 24)))
        )
    monkeypatch.setattr(measuring, "FILTERS", {"gaussian": FILTERS["gaussian"]})
    scan = ComparedScan("low", "low", *places)

    def sigma(voxel_mm, folder):
        arrays = Arrays(voxel_mm=(voxel_mm,) * 3)
        comparison = Comparison((), (), [replace(scan, arrays=arrays)], KeptResults(tmp_path / folder))
        return tune_filters(comparison, lambda: None)[0][None]["gaussian"]

    fine, coarse = sigma(1.65, "one"), sigma(5.0, "one")
    assert fine < coarse == sigma(5.0, "other")


@needs_mpiexec
def test_ranks_give_the_same_bytes(folders):
    main(arguments(folders, "--doses", "1/20"))
    succeed("evaluation/compare.py", *arguments(folders, "--doses", "1/20", out="ranks"), ranks=2)
    for name in ("numbers.csv", "summary.csv", "filters.csv", "table.md", "table.tex", "against_dose.png"):
        assert (folders / "ranks" / name).read_bytes() == (folders / "out" / name).read_bytes(), name


def test_realisations_of_a_method(compare, folders):
    """Their mean is measured as an image, and their spread besides."""
    rng = np.random.default_rng(5)
    for seed in range(4):
        noisy = lambda low: gaussian_filter(low, 1) + 0.3 * rng.standard_normal(low.shape).astype(np.float32)  # noqa: E731
        write_results(folders / "test", folders / "seeds" / str(seed), noisy)
    compare("--doses", "1/20", "--realisations", f"mean_of_4={folders / 'seeds'}")
    found = numbers(folders)
    case = read_cases(folders / "test")[1]
    images = [load(folders / "seeds" / str(seed) / case.name / "denoised.nii.gz") for seed in range(4)]
    error = np.mean((np.clip(load(case.normal_dose), 0, 16) - np.clip(np.mean(images, axis=0), 0, 16)) ** 2)
    psnr = found[case.subject, "0.05", "mean_of_4", "psnr_normal", "volume"]
    assert psnr == pytest.approx(10 * np.log10(256 / error), abs=1e-3)
    crps = [key for key in found if key[3].startswith("crps")]
    assert {key[2] for key in crps} == {"mean_of_4"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--doses", "1/20,1/4"], r"test: no scan at dose 1/4; simulate it"),
        (["--doses", "x"], "--doses 'x': give a comma list of fractions"),
        (["--method", "gaussian=x"], "the name 'gaussian' is taken"),
        (["--method", "results"], "write NAME=DIR"),
        (["--realisations", "ours=x"], "holds 0 folders"),
        (
            ["--against", "theirs"],
            "--against 'theirs': no such image; choose from low_dose, gaussian, nl_means, total_variation, ours",
        ),
        (["--low_dose", "x"], "give either --trial or --low_dose"),
    ],
)
def test_bad_flags_get_one_line(compare, folders, arguments, message):
    with pytest.raises(InputError, match=message):
        compare(*arguments)
    assert not (folders / "out" / "table.md").exists()


def test_results_that_are_missing_or_of_another_scan(compare, folders):
    with pytest.raises(InputError, match=r"elsewhere/sub-0000/low_dose_1: holds no image of this scan"):
        compare(method="ours=elsewhere")
    save(folders / "results" / "sub-0001" / "low_dose_1-20" / "denoised.nii.gz", np.full((32, 32, 31), 2, np.float32))
    with pytest.raises(InputError, match=r"sub-0001/low_dose_1-20/denoised.nii.gz: lies on another grid"):
        compare("--doses", "1/20")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("sub-0000/truth.nii.gz", "../../truth.nii.gz", "lies outside the data set"),
        ("sub-0000/truth.nii.gz", "sub-0000/none.nii.gz", "'sub-0000/none.nii.gz' is not there"),
        ("0.05", "few", "dose 'few' is no number above 0 to 1"),
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
    assert titles == ["low dose", *(name.replace("_", " ") for name in FILTERS), "<b>", "normal dose"]
    assert "<b>" not in re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    found = numbers(folders)
    here = ("sub-0001", "0.05", "<b>")
    assert f"<td>{found[*here, 'psnr_normal', 'volume']:.2f}</td>" in text
    peak, bias = (found[*here, metric, "lesion_01"] for metric in ("suv_peak", "suv_peak_bias_normal"))
    assert f"{peak:.2f} ({bias:+.1f} %)" in text
    # the middle of the lesion [4:10, 20:26, 20:26], whose axes run right, front, head: back, left, head
    place = [int(n) for n in re.search(r'data-place="(\d+),(\d+),(\d+)"', text).groups()]
    assert np.abs(np.subtract(place, (31 - 22.5, 31 - 6.5, 22.5))).max() <= 0.5
    assert text.count('alt="PSNR, normal dose (dB) against dose fraction') == 1
    assert not re.search(r"\b20\d\d-\d\d-\d\d", text)


def test_a_page_about_a_subject_that_is_not_compared(compare):
    with pytest.raises(InputError, match="--report 'sub-0007': no such subject"):
        compare("--report", "sub-0000,sub-0007")
