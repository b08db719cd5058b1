"""`scripts/test.py --report True`, and what it refuses before any work."""

import json
import re
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from guided_diffusion.commands.report import plan_report
from guided_diffusion.errors import InputError
from guided_diffusion.pet import orientation
from guided_diffusion.pet.volume import load_volume, save_volume
from tests.denoising import denoise, samples_in
from tests.report.test_packing import unpacked


def page_of(folder):
    text = (folder / "report.html").read_text(encoding="utf-8")
    layout = json.loads(re.search(r'id="layout">(.*?)</script>', text, re.DOTALL)[1])
    texts = re.findall(r'id="volume-\d">(.*?)</script>', text, re.DOTALL)
    volumes = [unpacked(packed.strip(), layout["shape"], layout["step"]) for packed in texts]
    return text, layout, dict(zip([volume["title"] for volume in layout["volumes"]], volumes, strict=True))


def near(values, stored):
    """Whether stored values are those, within the quantisation."""
    return np.abs(values - stored).max() <= 0.002 * np.hypot(stored, 1).max()


def turned(path):
    """A NIfTI of the fixture `small` (axes towards the left, front and head) as the page has it."""
    return nib.load(path).get_fdata(dtype=np.float32)[::-1].transpose(1, 0, 2)[::-1, ::-1]


def test_the_page_shows_what_was_written(small, tmp_path):
    scan = small / "scan.nii.gz"
    flags = ("--realisations", 2, "--report", True, "--reference", scan, "--report_neck_mm", 30)
    denoise(scan, small / "small.pt", tmp_path, *flags)
    text, layout, shown = page_of(tmp_path)
    assert list(shown) == ["Input", "Denoised", "Uncertainty (SD)", "Reference"]
    files = (scan, tmp_path / "denoised.nii.gz", tmp_path / "uncertainty.nii.gz", scan)
    for path, stored in zip(files, shown.values(), strict=True):
        assert near(turned(path)[:, :, :30], stored)  # slices of 3 mm, ten are cut off
    assert np.allclose(np.diag(layout["affine"])[2], 3)
    assert "standard deviation of 2 volumes" in text
    assert "The interval holds the SUVpeak of one more realisation" in text
    assert "report.html" in json.loads((tmp_path / "run.json").read_text())["files"]


def test_the_page_of_an_array_with_its_partner(small, tmp_path):
    denoise(small / "scan.npz", small / "small.pt", tmp_path, "--report", True, "--reference", small / "scan.npz")
    _, _, shown = page_of(tmp_path)
    low, normal = np.load(small / "scan.npz")["arr_0"]
    for values, title in ((low, "Input"), (samples_in(tmp_path) * 16, "Denoised"), (normal, "Reference")):
        assert near(values.clip(0), shown[title])  # nothing of this scan lies above the cap
    denoise(small / "scan.npz", small / "small.pt", tmp_path, "--resume", True, "--report", True)
    _, _, renewed = page_of(tmp_path)
    assert list(renewed) == ["Input", "Denoised"]
    assert np.array_equal(renewed["Denoised"], shown["Denoised"])


def test_a_finished_subject_gets_its_page_without_being_denoised_again(small, tmp_path):
    scan, model = small / "scan.nii.gz", small / "small.pt"
    denoise(scan, model, tmp_path, "--suv_basis", "bw")
    written = (tmp_path / "denoised.nii.gz").stat().st_mtime_ns
    for flags in (("--report", True), ("--report", True, "--report_neck_mm", 30)):
        denoise(scan, model, tmp_path, "--resume", True, *flags)
        _, layout, shown = page_of(tmp_path)
        assert near(turned(tmp_path / "denoised.nii.gz")[:, :, : layout["shape"][2]], shown["Denoised"])
    assert layout["shape"][2] == 30
    page = (tmp_path / "report.html").stat().st_mtime_ns
    denoise(scan, model, tmp_path, "--resume", True, *flags)
    assert (tmp_path / "report.html").stat().st_mtime_ns == page
    assert (tmp_path / "denoised.nii.gz").stat().st_mtime_ns == written
    denoise(scan, model, tmp_path)
    assert not (tmp_path / "report.html").exists()  # no page of an earlier run beside new results


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--reference", "x.nii.gz"), "give --report True"),
        (("--report_neck_mm", 30), "give --report True"),
        (("--report", True, "--report_neck_mm", "nan"), "--report_neck_mm nan: must be 0 or more"),
        (("--report", True, "--report_neck_mm", -5), "--report_neck_mm -5: must be 0 or more"),
        (("--report", True, "--report_neck_mm", 500), "--report_neck_mm 500: the scan is 120 mm long"),
        (("--report", True, "--reference", "missing.nii.gz"), "missing.nii.gz"),
    ],
)
def test_refused_before_the_work(small, tmp_path, flags, message):
    with pytest.raises(InputError, match=re.escape(message)):
        denoise(small / "scan.nii.gz", small / "small.pt", tmp_path, *flags)
    assert not list(tmp_path.glob("*.npz"))


def test_a_reference_whose_axes_are_stored_in_another_order(small, tmp_path):
    scan = load_volume(small / "scan.nii.gz")
    stored = orientation.turned(scan, "SRA")
    nib.save(nib.Nifti1Image(stored.data, stored.affine), tmp_path / "turned.nii.gz")
    flags = {"report": True, "reference": str(tmp_path / "turned.nii.gz")}
    np.testing.assert_array_equal(plan_report(scan, flags, 1).reference.data, scan.data)


def test_another_image_under_the_references_name_is_noticed(small, tmp_path):
    image = nib.load(small / "scan.nii.gz")
    reference = tmp_path / "reference.nii.gz"
    flags = ("--resume", True, "--report", True, "--reference", reference)
    pages = []
    for factor in (1, 1, 2):
        nib.save(nib.Nifti1Image(factor * image.get_fdata(dtype=np.float32), image.affine), reference)
        denoise(small / "scan.nii.gz", small / "small.pt", tmp_path, *flags)
        pages.append(page_of(tmp_path)[2]["Reference"])
    assert np.array_equal(pages[0], pages[1])
    assert near(2 * turned(small / "scan.nii.gz")[:, :, : pages[2].shape[2]], pages[2])


@pytest.mark.parametrize(
    ("change", "unit", "message"),
    [
        (lambda suv: suv * 5000, None, "can't be SUV, they are probably Bq/mL"),
        (lambda suv: suv / 1000, None, "too low for SUV"),
        (lambda suv: np.where(suv == suv.max(), np.nan, suv), "SUV", "has NaN or infinite voxels"),
        (lambda suv: suv * 0.7, "SUVlbm", "is in SUVlbm, but the report compares SUV by body weight"),
    ],
)
def test_a_reference_that_is_no_suv_by_body_weight_is_refused_before_the_work(small, tmp_path, change, unit, message):
    pair = np.load(small / "scan.npz")["arr_0"]
    stated = {} if unit is None else {"unit": np.array(unit)}
    np.savez(tmp_path / "pair.npz", arr_0=np.stack([pair[0], change(pair[1])]), **stated)
    flags = {"report": True, "reference": str(tmp_path / "pair.npz")}
    with pytest.raises(InputError, match=rf"pair\.npz: .*{message}"):
        plan_report(load_volume(small / "scan.npz"), flags, 1)


def test_a_reference_in_another_unit_is_refused_whatever_its_format(small, tmp_path):
    scan = load_volume(small / "scan.nii.gz")
    save_volume(replace(scan, unit="SUVbsa"), tmp_path / "normal.nii.gz")
    with pytest.raises(InputError, match=r"normal\.nii\.gz: is in SUVbsa, but the report compares SUV by body weight"):
        plan_report(scan, {"report": True, "reference": str(tmp_path / "normal.nii.gz")}, 1)


def test_a_reference_elsewhere_or_of_several_scans_is_refused(small, tmp_path):
    image = nib.load(small / "scan.nii.gz")
    moved = tmp_path / "moved.nii.gz"
    nib.save(nib.Nifti1Image(image.get_fdata(dtype=np.float32), image.affine + 2), moved)
    flags = ("--report", True, "--reference", moved)
    with pytest.raises(InputError, match="lies on another grid"):
        denoise(small / "scan.nii.gz", small / "small.pt", tmp_path / "out", *flags)
    (tmp_path / "scans").mkdir()
    for name in ("a.nii.gz", "b.nii.gz"):
        nib.save(image, tmp_path / "scans" / name)
    with pytest.raises(InputError, match="reference of 2 scans"):
        denoise(tmp_path / "scans", small / "small.pt", tmp_path / "out", *flags)
