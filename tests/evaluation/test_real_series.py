"""evaluation/real_series.py and its parts: uniform tissue, correlated noise, foci."""

import json
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from evaluation import real_series
from evaluation.real_series import check_error_bar, format_report, main, measure, save_mips
from guided_diffusion.errors import InputError
from guided_diffusion.pet.grid import Volume
from guided_diffusion.pet.orientation import turned
from guided_diffusion.pet.thinning import noise_sigmas, thin_by_noise
from guided_diffusion.pet.volume import load_volume, save_volume
from tests.mpi import needs_mpiexec, succeed

VOXEL_MM = (4.0, 5.0, 3.0)
AFFINE = np.diag([-4.0, -5.0, 3.0, 1.0])


@pytest.fixture
def noise():
    return np.random.default_rng(0).standard_normal((44, 40, 60))


def with_spot(centre, suv=6.0):
    """Tissue of SUV 1 with a spot of 12 mm and SUV `suv`."""
    image = np.ones((44, 40, 60), np.float32)
    places = np.stack(np.meshgrid(*(np.arange(n) for n in image.shape), indexing="ij"), axis=-1)
    image[np.linalg.norm((places - centre) * VOXEL_MM, axis=-1) < 6] = suv
    return image


@pytest.mark.parametrize("sigmas", [(0.6, 1.0, 1.4), (1.2, 0.8, 0.7)])
def test_the_correlation_of_noise_is_measured(noise, sigmas):
    image = 2 + 0.3 * gaussian_filter(noise, sigmas)
    centres = [(i, j, k) for i in (8, 20, 32) for j in (8, 20, 30) for k in (8, 20, 32, 44)]
    assert noise_sigmas(image, np.array(centres), VOXEL_MM) == pytest.approx(sigmas, rel=0.12)


def test_added_noise_has_the_variance_of_the_lower_dose(noise):
    image = np.full(noise.shape, 2, np.float32)
    image[:, :, 30:] = 4
    added = thin_by_noise(image, 1 / 4, 0.1, (1.0, 0.8, 1.2), VOXEL_MM, seed=1) - image
    for suv, part in ((2, np.s_[:, :, :20]), (4, np.s_[:, :, 40:])):
        assert added[part].std() == pytest.approx(np.sqrt(3) * 0.1 * suv, rel=0.08)
        assert abs(added[part].mean()) < 0.02 * suv
    centres = [(i, j, 10) for i in (8, 20, 32) for j in (8, 20, 30)]
    assert noise_sigmas(added, np.array(centres), VOXEL_MM) == pytest.approx((1.0, 0.8, 1.2), rel=0.15)
    assert thin_by_noise(image, 1 / 4, 2.0, (1, 1, 1), VOXEL_MM, seed=1).min() == 0


def report_of(before, after, psnr_after=35.0):
    report = measure(Volume(before, AFFINE), Volume(after, AFFINE))
    return report | {
        "thinned_to": "1/4",
        "thinned_psnr": {
            "before": 30.0,
            "after": psnr_after,
            "gaussian": 33.0,
            "gaussian_mm": 4.0,
            "noise": 5,
            "gaussian_noise": 5,
        },
    }


def test_measured_noise_and_means(noise):
    before = (with_spot((20, 20, 30)) + 0.1 * noise).astype(np.float32)
    after = (1.01 * with_spot((20, 20, 30)) + 0.05 * noise).astype(np.float32)
    report = report_of(before, after)
    for sphere in report["uniform_spheres"]:
        assert sphere["cov_after"] == pytest.approx(0.5 / 1.01 * sphere["cov_before"], rel=0.03)
        assert sphere["mean_after"] == pytest.approx(1.01 * sphere["mean_before"], rel=0.015)
    assert report["change_of_all_warm_spheres_percent"]["median"] == pytest.approx(1, abs=0.2)
    text = format_report(report)
    assert "**no**" not in text
    assert "30.00 to 35.00 dB" in text
    assert (
        "| the same over a Gaussian of equal noise (sigma 4.0 mm, COV 5.0 %, the model's 5.0 %) | +2.00 dB | yes |"
        in text
    )
    assert "no better" not in text


def test_every_failure_is_told():
    before, after = with_spot((20, 20, 30)), 1.05 * with_spot((20, 10, 30))
    before[::2] *= 1.1
    after[::2] *= 1.1
    text = format_report(report_of(before, after, psnr_after=29.0))
    assert text.count("**no**") == 6
    assert "On this series the model is no better than a Gaussian filter that leaves as much noise." in text
    # 20, 20, 30 in an affine of -4, -5 and 3 mm
    assert "- lost: SUVpeak" in text
    assert "at -80.0, -100.0, 90.0 mm (RAS)" in text
    assert "- appearing: SUVpeak" in text


def test_an_error_bar_is_checked_in_the_body(noise):
    mean = np.where(np.arange(44)[:, None, None] < 30, 2, 0.2).astype(np.float32) * np.ones(noise.shape, np.float32)
    scan = (mean + 0.1 * noise).astype(np.float32)
    scan[30:] += 100  # air is not looked at
    found = check_error_bar(scan, mean, np.full(noise.shape, 0.02, np.float32), 3)
    # 0.02 times Student's 4.303 for three images: 0.8605 deviations of the error.
    assert found["coverage_percent"] == pytest.approx(61.05, abs=0.6)
    assert found["spread_over_error"] == pytest.approx(0.2, abs=0.002)


@pytest.mark.parametrize(("covered", "verdict"), [(89.9, "**no**"), (90.1, "yes"), (98.9, "yes"), (99.1, "**no**")])
def test_error_bars_are_judged(noise, covered, verdict):
    image = (with_spot((20, 20, 30)) + 0.1 * noise).astype(np.float32)
    text = format_report(
        report_of(image, image) | {"error_bar": {"coverage_percent": covered, "spread_over_error": 1.04}}
    )
    assert f"| {covered:.1f} % (error bar over error 1.04) | {verdict} |" in text


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--thin", "1/4,1/10"], "--thin '1/4,1/10': give a fraction between 0 and 1, such as 1/4"),
        (["--thin", "2"], "--thin '2': give a fraction between 0 and 1"),
        (["--neck_mm", "nan"], "--neck_mm nan: must be 0 or more"),
        (["--neck_mm", "-5"], "--neck_mm -5: must be 0 or more"),
        (["--realisations", "0"], "--realisations 0: at least 1"),
        (["--realisations", "3"], "--realisations 3: .*small.pt draws no images of a stated dose"),
    ],
)
def test_flags_that_cannot_be_served(small, tmp_path, monkeypatch, flags, complaint):
    required = ["--series", str(small / "scan.nii.gz"), "--model_path", str(small / "small.pt"), "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["real_series.py", *required, *flags])
    with pytest.raises(InputError, match=complaint):
        main()
    assert not list(tmp_path.iterdir())


def test_the_picture_leaves_out_all_that_lies_above_the_neck(tmp_path, monkeypatch):
    """Slices are 3 mm high: of 10 mm, the fourth slice is left out whole."""
    shown = []
    monkeypatch.setattr(real_series, "save_coronal_mips", lambda _, volumes, *__: shown.append(volumes["scan"]))
    scan = Volume(np.broadcast_to(np.arange(60, dtype=np.float32), (4, 4, 60)), AFFINE)
    for neck_mm, kept in ((10.0, 56), (9.0, 57)):
        save_mips(tmp_path / "mips.png", {"scan": scan}, neck_mm)
        assert shown.pop().max() == kept - 1


def test_the_command(small, tmp_path, monkeypatch, capsys):
    flags = {"series": small / "scan.nii.gz", "model_path": small / "small.pt", "out": tmp_path, "neck_mm": 30}
    arguments = [str(text) for name, value in flags.items() for text in (f"--{name}", value)]
    monkeypatch.setattr(sys, "argv", ["real_series.py", *arguments])
    main()
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["thinned_psnr"]["before"] > 0
    assert report["thinned_psnr"]["gaussian_mm"] >= 0
    assert (tmp_path / "report.md").read_text() in capsys.readouterr().out
    assert (tmp_path / "coronal_mips.png").stat().st_size > 10_000
    kept = (tmp_path / "denoised" / "run.json").stat().st_mtime_ns
    monkeypatch.setattr(sys, "argv", ["real_series.py", *arguments[:-1], "5000"])
    with pytest.raises(InputError, match="--neck_mm 5000: the scan is"):
        main()
    assert (tmp_path / "denoised" / "run.json").stat().st_mtime_ns == kept  # taken over, not computed again


@needs_mpiexec
def test_two_ranks_measure_what_one_does(small, tmp_path):
    weights = Path(__file__).parents[2] / "checkpoint" / "local3d.pt"
    for ranks in (1, 2):
        flags = ("--series", small / "scan.nii.gz", "--model_path", weights, "--out", tmp_path / f"{ranks}")
        succeed("evaluation/real_series.py", *flags, ranks=ranks)
    one, two = ((tmp_path / f"{ranks}" / "report.json").read_text() for ranks in (1, 2))
    assert one == two
    run = json.loads((tmp_path / "2" / "denoised_thinned" / "run.json").read_text())
    assert run["settings"]["sampling"]["dose_fraction"] == "1/4"


def test_the_command_with_weights_that_draw(small, tmp_path, monkeypatch):
    weights = Path(__file__).parents[2] / "checkpoint" / "local3d_draws.pt"
    arguments = ["--series", small / "scan.nii.gz", "--model_path", weights, "--out", tmp_path]
    arguments += ["--thin", "1/10", "--realisations", "3"]
    monkeypatch.setattr(sys, "argv", ["real_series.py", *map(str, arguments)])
    main()
    report = json.loads((tmp_path / "report.json").read_text())
    predicted = tmp_path / "denoised_thinned"
    paths = (small / "scan.nii.gz", predicted / "denoised.nii.gz", predicted / "uncertainty.nii.gz")
    expected = check_error_bar(*(turned(load_volume(path)).data for path in paths), 3)
    assert report["error_bar"] == pytest.approx(expected)
    assert 0.1 < report["error_bar"]["spread_over_error"] < 10
    run = json.loads((predicted / "run.json").read_text())
    assert run["settings"]["sampling"]["dose_fraction"] == "1/10"
    assert "PSNR of the series thinned to 1/10" in (tmp_path / "report.md").read_text()


def test_another_series_is_refused_before_anything_is_replaced(small, tmp_path, monkeypatch):
    arguments = ["--series", small / "scan.nii.gz", "--model_path", small / "small.pt", "--out", tmp_path / "out"]
    monkeypatch.setattr(sys, "argv", ["real_series.py", *map(str, arguments)])
    main()
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    scan = load_volume(small / "scan.nii.gz")
    save_volume(Volume(1.5 * scan.data, scan.affine), tmp_path / "other.nii.gz")
    arguments[1] = tmp_path / "other.nii.gz"
    monkeypatch.setattr(sys, "argv", ["real_series.py", *map(str, arguments)])
    with pytest.raises(InputError, match=r"out/denoised: holds the results of .*/scan.nii.gz; choose another --out$"):
        main()
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == before


def test_weight_and_dose_make_suv_of_a_series(small, tmp_path, monkeypatch):
    scan = nib.load(small / "scan.nii.gz")
    nib.save(nib.Nifti1Image(1000 * scan.get_fdata(), scan.affine), tmp_path / "activity.nii.gz")
    reports = []
    for series, flags in (
        (small / "scan.nii.gz", []),
        (tmp_path / "activity.nii.gz", ["--weight_kg", 70, "--dose_bq", 7e7]),
    ):
        out = tmp_path / f"out {series.name}"
        arguments = ["--series", series, "--model_path", small / "small.pt", "--out", out, *flags]
        monkeypatch.setattr(sys, "argv", ["real_series.py", *map(str, arguments)])
        main()
        reports.append(json.loads((out / "report.json").read_text()))
    suv, activity = reports
    assert activity["thinned_psnr"] == pytest.approx(suv["thinned_psnr"], rel=1e-3)
    assert [one["mm"] for one in activity["uniform_spheres"]] == [one["mm"] for one in suv["uniform_spheres"]]
