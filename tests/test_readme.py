"""What README shows as code runs."""

import re

import nibabel as nib
import numpy as np

from tests.mpi import ROOT


def test_the_python_example_runs(small, tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "demo_ddpm3d.pt").write_bytes((small / "small.pt").read_bytes())
    (tmp_path / "scan.nii.gz").write_bytes((small / "scan.nii.gz").read_bytes())
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    scan, result = nib.load("scan.nii.gz"), nib.load("denoised.nii.gz")
    np.testing.assert_allclose(result.affine, scan.affine, atol=1e-4)
    assert result.shape == scan.shape
    assert not np.allclose(result.get_fdata(), scan.get_fdata())
