"""A run that is started where the folder has been deleted, as by another shell, or with the scratch space of a job."""

import os
import subprocess
import sys

import pytest

from tests.mpi import ROOT


@pytest.mark.parametrize("script", ["scripts/test.py", "scripts/prepare.py", "evaluation/compare.py"])
def test_a_working_folder_that_is_gone_is_said_in_one_line(script, tmp_path):
    (tmp_path / "gone").mkdir()
    done = subprocess.run(
        ["sh", "-c", 'rmdir "$PWD" && exec "$@"', "sh", sys.executable, ROOT / script, "--help"],
        cwd=tmp_path / "gone",
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: the working folder no longer exists; cd to another\n"
