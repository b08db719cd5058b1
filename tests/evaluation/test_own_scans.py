"""evaluation/compare.py on a user's own folders: the published layout, NIfTI, DICOM, with and without normal doses."""

import csv
import json

import nibabel as nib
import numpy as np
import pytest

from evaluation.compare import main
from evaluation.compared_scans import (
    Arrays,
    ComparedScan,
    UserFolders,
    image_on_grid_of,
    labels_on_grid_of,
    load_image,
    open_examination,
    scans_of_folders,
)
from evaluation.measures.image_fidelity import clip_suv, psnr
from evaluation.method_results import ComparedMethod, result_file
from guided_diffusion.errors import InputError
from guided_diffusion.pet.fingerprint import fingerprint
from guided_diffusion.pet.grid import Volume
from guided_diffusion.pet.orientation import turned
from guided_diffusion.pet.volume import load_volume
from tests.dicom_series import write_series
from tests.own_scans import AFFINE, SHAPE, images_of_two, save_nifti


@pytest.fixture
def images():
    return images_of_two()


def save_npz(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, arr_0=data)


def compare(folder, *more, **folders):
    given = [f"--{name}={path}" for name, path in folders.items()]
    main([*given, "--out", str(folder / "out"), *map(str, more)])
    with (folder / "out" / "numbers.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {(row["subject"], row["method"], row["metric"], row["region"]): float(row["value"]) for row in rows}, rows


def expected(images, name, kind):
    return psnr(clip_suv(images[name]["normal"]), clip_suv(images[name][kind]))


def test_a_folder_of_volumes_enters_by_one_flag(images, tmp_path):
    for name, own in images.items():
        for kind, data in own.items():
            save_nifti(tmp_path / kind / f"{name}.nii.gz", data)
    found, rows = compare(
        tmp_path, "--method", f"ours={tmp_path / 'ours'}", low_dose=tmp_path / "low", normal_dose=tmp_path / "normal"
    )
    for name in images:
        assert found[name, "ours", "psnr_normal", "volume"] == pytest.approx(expected(images, name, "ours"), abs=1e-4)
        assert found[name, "low_dose", "psnr_normal", "volume"] == pytest.approx(
            expected(images, name, "low"), abs=1e-4
        )
    assert {(row["tracer"], row["scanner"], row["dose"]) for row in rows} == {("", "", "")}
    text = (tmp_path / "out" / "table.md").read_text()
    assert "## All subjects" in text
    assert "| – | ours |" in text


def test_the_published_layout(images, tmp_path):
    """Pairs in SUV, results as scripts/test.py writes them: normalised, in a folder per subject."""
    for name, own in images.items():
        save_npz(tmp_path / "pairs" / f"{name}.npz", np.stack([own["low"], own["normal"]]))
        save_npz(tmp_path / "ours" / name / "samples_16x18x20.npz", own["ours"] / 16)
    found, _ = compare(
        tmp_path, "--method", f"ours={tmp_path / 'ours'}", low_dose=tmp_path / "pairs", normal_dose=tmp_path / "pairs"
    )
    for name in images:
        assert found[name, "ours", "psnr_normal", "volume"] == pytest.approx(expected(images, name, "ours"), abs=1e-3)


def test_a_header_or_a_sidecar_that_changed_is_measured_again(images, tmp_path):
    """Of a result in two files the header's slope is halved, then a sidecar says that it is in activity."""
    own = images["anna"]
    save_nifti(tmp_path / "low.nii.gz", own["low"])
    save_nifti(tmp_path / "normal.nii.gz", own["normal"])
    (tmp_path / "ours").mkdir()

    def measured():
        given = ("--method", f"ours={tmp_path / 'ours'}")
        found, _ = compare(tmp_path, *given, low_dose=tmp_path / "low.nii.gz", normal_dose=tmp_path / "normal.nii.gz")
        return found["low", "ours", "psnr_normal", "volume"]

    def of_factor(factor):
        return psnr(clip_suv(own["normal"]), clip_suv(factor * own["ours"]))

    for factor in (1.0, 0.5):
        pair = nib.Nifti1Pair(factor * own["ours"], AFFINE)
        pair.set_data_dtype(np.int16)
        nib.save(pair, tmp_path / "ours" / "result.img")
        assert measured() == pytest.approx(of_factor(factor), abs=0.01)
    sidecar = {
        "Units": "kBq/mL", "PatientWeight": 70, "InjectedRadioactivity": 350, "InjectedRadioactivityUnits": "MBq",
        "ImageDecayCorrected": True, "ImageDecayCorrectionTime": 0, "InjectionStart": 0, "ScanStart": 0,
        "TimeZero": "10:00:00",
    }  # fmt: skip
    (tmp_path / "ours" / "result.json").write_text(json.dumps(sidecar))
    assert measured() == pytest.approx(of_factor(0.5 * 70 / 350), abs=0.01)


def test_normalised_arrays(images, tmp_path):
    own = images["anna"]
    save_npz(tmp_path / "anna.npz", np.clip(np.stack([own["low"], own["normal"]]), 0, 16) / 16)
    files = UserFolders(tmp_path / "anna.npz", tmp_path / "anna.npz", arrays=Arrays("normalised", (2.0, 2.0, 2.0)))
    ((scan,), _, _) = scans_of_folders(files)
    examination = open_examination(scan)
    np.testing.assert_allclose(examination.normal_dose, clip_suv(own["normal"]), atol=1e-5)
    assert examination.voxel_mm == (2, 2, 2)
    assert (scan.name, scan.subject) == ("", "anna")


def test_dicom_results(tmp_path):
    """A series as low dose, another on the same grid as what a method made of it."""
    rng = np.random.default_rng(4)
    stored = rng.integers(2000, 30000, (12, 10, 8))
    write_series(tmp_path / "low" / "anna", stored)
    write_series(tmp_path / "ours" / "anna", stored // 2)
    ((scan,), _, _) = scans_of_folders(UserFolders(tmp_path / "low"))
    examination = open_examination(scan)
    (image,) = ComparedMethod("ours", (tmp_path / "ours",)).images(scan, examination.low_dose)
    np.testing.assert_allclose(image, load_volume(tmp_path / "ours" / "anna").data)
    assert image.mean() == pytest.approx(examination.low_dose.data.mean() / 2, rel=1e-3)


@pytest.mark.parametrize(("series", "flag"), [(("a", "b"), "--series"), (("a",), "--weight_kg")])
def test_flags_that_the_comparison_lacks_are_not_all_the_advice(tmp_path, series, flag):
    for number, name in enumerate(series):
        write_series(tmp_path / name, np.full((4, 5, 6), 5000, np.int16), SeriesNumber=number, PatientWeight=None)
    message = rf"{flag}.* \(this command has no such flag: give the path of that series' folder, or make NIfTI in SUV"
    with pytest.raises(InputError, match=message):
        load_image(tmp_path, Arrays())


def test_without_normal_doses_only_what_needs_none_is_measured(images, tmp_path):
    for name, own in images.items():
        save_nifti(tmp_path / "low" / f"{name}.nii.gz", own["low"])
        save_nifti(tmp_path / "ours" / f"{name}.nii.gz", own["ours"])
    given = ("--method", f"ours={tmp_path / 'ours'}", "--report", "anna")
    found, _ = compare(tmp_path, *given, low_dose=tmp_path / "low")
    page = (tmp_path / "out" / "report_anna.html").read_text()
    assert "Comparison: anna" in page
    assert "normal dose</th>" not in page
    for name in images:  # a third of the noise is left
        before, after = (found[name, method, "cov", "uniform_spheres"] for method in ("low_dose", "ours"))
        assert after / before == pytest.approx(0.3, abs=0.1)
        assert found[name, "low_dose", "suv_mean_bias_low_dose", "uniform_spheres"] == 0
    assert not [key for key in found if key[2].endswith(("_normal", "_truth")) or key[2] == "psnr_published"]


def test_two_scans_of_a_subject_at_one_dose_have_a_page_each(images, tmp_path):
    for scan, own in zip(("rest", "stress"), images.values(), strict=True):
        for kind, data in own.items():
            save_nifti(tmp_path / kind / f"{scan}.nii.gz", data)
    (tmp_path / "about.csv").write_text("scan,subject\nrest,anna\nstress,anna\n")
    given = ("--method", f"ours={tmp_path / 'ours'}", "--report", "anna", "--subjects", tmp_path / "about.csv")
    compare(tmp_path, *given, low_dose=tmp_path / "low", normal_dose=tmp_path / "normal")
    pages = {path.name: path.read_text() for path in (tmp_path / "out").glob("*.html")}
    assert sorted(pages) == ["report_anna_rest.html", "report_anna_stress.html"]
    for page, scan, name in zip(sorted(pages), ("rest", "stress"), images, strict=True):
        assert f"Comparison: anna ({scan})" in pages[page]
        assert f"<td>{expected(images, name, 'ours'):.2f}</td>" in pages[page]


def notices(capsys):
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("notice: ")]


def test_what_is_left_out_is_told(images, tmp_path, capsys):
    for kind in ("low", "ours"):
        save_nifti(tmp_path / kind / "anna.nii.gz", images["anna"][kind])
    save_nifti(tmp_path / "low" / "anna_mask.nii.gz", np.ones(SHAPE, np.uint8))
    compare(tmp_path, "--method", f"ours={tmp_path / 'ours'}", low_dose=tmp_path / "low")
    (line,) = notices(capsys)
    assert line.startswith("notice: left out (")
    assert line.endswith(": anna_mask.nii.gz")


def test_results_of_another_image_are_told(images, tmp_path, capsys):
    """As where the scan was replaced since; not where run.json lists no such file, nor of a scan that is unchanged."""
    low = {name: tmp_path / "low" / f"{name}.nii.gz" for name in images}
    for name, own in images.items():
        save_nifti(low[name], own["low"])
        save_nifti(tmp_path / "ours" / name / "denoised.nii.gz", own["ours"])
        made_of = {"sha256_of_voxels_and_affine": fingerprint(load_volume(low[name]))}
        manifest = {"input": made_of, "files": ["denoised.nii.gz"]}
        (tmp_path / "ours" / name / "run.json").write_text(json.dumps(manifest))
        save_nifti(tmp_path / "theirs" / f"{name}.nii.gz", own["ours"])
    (tmp_path / "theirs" / "run.json").write_text(json.dumps({"input": made_of, "files": ["denoised.nii.gz"]}))
    methods = [f"--method={name}={tmp_path / name}" for name in ("ours", "theirs")]
    compare(tmp_path, *methods, low_dose=tmp_path / "low")
    assert notices(capsys) == []
    save_nifti(low["anna"], 1.5 * images["anna"]["low"])
    for _ in range(2):  # the second time from what was kept
        compare(tmp_path, *methods, low_dose=tmp_path / "low")
        (line,) = notices(capsys)
        assert f"notice: {low['anna']}: not the image that ours denoised, by run.json" in line


def test_realisations_that_repeat_each_other_are_told_and_hidden_folders_do_not_count(images, tmp_path, capsys):
    save_nifti(tmp_path / "low.nii.gz", images["anna"]["low"])
    for number, image in enumerate((images["anna"]["ours"], images["anna"]["normal"], images["anna"]["ours"])):
        save_nifti(tmp_path / "runs" / f"{number}" / "result.nii.gz", image)
    (tmp_path / "runs" / ".ipynb_checkpoints").mkdir()
    given = ("--realisations", f"ours={tmp_path / 'runs'}")
    compare(tmp_path, *given, low_dose=tmp_path / "low.nii.gz")
    (line,) = notices(capsys)
    assert "notice: ours: realisations are equal in 1 of 1 scans, so that their spread is too low; give" in line
    save_nifti(tmp_path / "runs" / "2" / "result.nii.gz", images["anna"]["low"])
    compare(tmp_path, *given, low_dose=tmp_path / "low.nii.gz")
    assert notices(capsys) == []


def test_what_a_run_does_not_write_does_not_stay_from_an_earlier_one(images, tmp_path):
    save_nifti(tmp_path / "low.nii.gz", images["anna"]["low"])
    save_nifti(tmp_path / "ours" / "result.nii.gz", images["anna"]["ours"])
    (tmp_path / "out").mkdir()
    for name in ("filters.csv", "against_dose.png", "bland_altman.png", "notes.txt"):
        (tmp_path / "out" / name).write_text("earlier")
    compare(tmp_path, "--method", f"ours={tmp_path / 'ours'}", low_dose=tmp_path / "low.nii.gz")
    files = {path.name for path in (tmp_path / "out").iterdir() if path.is_file()}
    assert files - {".lock"} == {"notes.txt", "numbers.csv", "summary.csv", "table.md", "table.tex"}


def test_results_that_are_missing_ambiguous_or_of_another_scan(images, tmp_path):
    low = tmp_path / "low" / "anna.nii.gz"
    save_nifti(low, images["anna"]["low"])
    scan, ours = ComparedScan("anna", "anna", low), tmp_path / "ours"
    with pytest.raises(InputError, match=r"ours/anna: holds no image of this scan; denoise it .* as anna.nii.gz"):
        result_file(ours, scan)
    save_nifti(ours / "anna.nii", images["anna"]["ours"])
    assert result_file(ours, scan) == ours / "anna.nii"
    save_nifti(ours / "anna" / "denoised.nii.gz", images["anna"]["ours"][:, :, 1:])
    with pytest.raises(InputError, match=r"ours/anna: may be denoised.nii.gz or anna.nii; leave one of them"):
        result_file(ours, scan)
    (ours / "anna.nii").unlink()
    with pytest.raises(InputError, match=r"anna/denoised.nii.gz: lies on another grid than the low dose"):
        list(ComparedMethod("ours", (ours,)).images(scan, load_volume(low)))


@pytest.mark.parametrize("codes", ["LPS", "SRA"])
def test_a_result_whose_axes_are_stored_in_another_order(images, tmp_path, codes):
    save_nifti(tmp_path / "low.nii.gz", images["anna"]["low"])
    scan = load_volume(tmp_path / "low.nii.gz")
    result = turned(Volume(images["anna"]["ours"], scan.affine), codes)
    nib.save(nib.Nifti1Image(result.data, result.affine), tmp_path / "ours.nii.gz")
    image = image_on_grid_of(scan, tmp_path / "ours.nii.gz", Arrays())
    np.testing.assert_array_equal(image, images["anna"]["ours"])
    labels = turned(Volume((images["anna"]["ours"] > 1).astype(np.uint8), scan.affine), codes)
    nib.save(nib.Nifti1Image(labels.data, labels.affine), tmp_path / "labels.nii.gz")
    np.testing.assert_array_equal(labels_on_grid_of(scan, tmp_path / "labels.nii.gz"), images["anna"]["ours"] > 1)


def test_both_kinds_of_scans_are_not_mixed(tmp_path):
    with pytest.raises(InputError, match="--validation and --doses are for a --trial"):
        compare(tmp_path, "--method=a=b", "--doses=1/4", low_dose=tmp_path)


@pytest.mark.parametrize(
    "flag", ["--normal_dose=a", "--subjects=a.csv", "--array_units=suv", "--voxel_mm=2,2,2"], ids=lambda flag: flag[2:]
)
def test_what_a_trial_says_itself_is_not_given(tmp_path, flag):
    with pytest.raises(InputError, match=rf"{flag.partition('=')[0]} is for own scans \(--low_dose\)"):
        compare(tmp_path, "--method=a=b", flag, trial=tmp_path)


def test_without_a_method(tmp_path):
    save_nifti(tmp_path / "low.nii.gz", np.full(SHAPE, 2, np.float32))
    with pytest.raises(InputError, match="no method: give --method NAME=DIR"):
        compare(tmp_path, low_dose=tmp_path / "low.nii.gz")
