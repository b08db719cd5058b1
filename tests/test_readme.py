"""What README files show as Python runs."""

import re

import nibabel as nib
import numpy as np

from guided_diffusion.pet.spheres import sphere
from tests.mpi import ROOT


def examples(page):
    """The blocks of Python on a page."""
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)


def test_the_python_example_runs(small, tmp_path, monkeypatch):
    (code,) = examples("README.md")
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "demo_ddpm3d.pt").write_bytes((small / "small.pt").read_bytes())
    (tmp_path / "scan.nii.gz").write_bytes((small / "scan.nii.gz").read_bytes())
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    scan, result = nib.load("scan.nii.gz"), nib.load("denoised.nii.gz")
    np.testing.assert_allclose(result.affine, scan.affine, atol=1e-4)
    assert result.shape == scan.shape
    assert not np.allclose(result.get_fdata(), scan.get_fdata())


def test_the_python_examples_of_the_evaluation_run():
    shape, rng = (32, 32, 32), np.random.default_rng(0)
    normal_dose = rng.normal(3.0, 0.2, shape)
    known = {
        "labels": 21 * sphere(shape, (3.3, 3.3, 3.3), (16, 16, 16), 80),
        "normal_dose": normal_dose,
        "denoised": normal_dose + rng.normal(0.0, 0.1, shape),
    }
    noise, fidelity = examples("evaluation/README.md")
    exec(noise, known)
    exec(fidelity, known)
    assert (known["labels"][known["region"]] == 21).all()


def test_no_other_page_has_python_that_is_not_run():
    pages = [*ROOT.glob("*.md"), *ROOT.glob("*/*.md")]
    with_python = [
        page for page in pages if re.search(r"^```python|^    (from|import) ", page.read_text(), re.MULTILINE)
    ]
    assert {page.relative_to(ROOT).as_posix() for page in with_python} == {"README.md", "evaluation/README.md"}
