"""`test_DDPM_3d_mpi.sh`: a rank for each GPU that may be used."""

import os
import shutil
import subprocess

import pytest

from tests.mpi import ROOT

SCRIPT = "test_DDPM_3d_mpi.sh"


@pytest.mark.parametrize(
    ("visible", "there", "ranks"),
    [
        (None, 4, 4),
        (None, 0, 2),  # on a CPU
        ("", 4, 2),
        ("-1", 4, 2),
        ("NoDevFiles", 4, 2),  # as Slurm says that a job has none
        ("2", 4, 1),
        ("0,3", 4, 2),
        ("GPU-5ad0,GPU-77e1,MIG-1/2", 8, 3),
    ],
)
def test_ranks_follow_the_gpus(visible, there, ranks, tmp_path):
    shutil.copy(ROOT / SCRIPT, tmp_path)
    commands = tmp_path / ".venv" / "bin"
    commands.mkdir(parents=True)
    for name, line in (("nvidia-smi", "seq 1 $THERE"), ("mpiexec", 'echo launched "$@"')):
        (commands / name).write_text(f"#!/bin/sh\n{line}\n")
        (commands / name).chmod(0o755)
    environment = os.environ | {"PATH": f"{commands}:{os.environ['PATH']}", "THERE": str(there)}
    environment.pop("CUDA_VISIBLE_DEVICES", None)
    if visible is not None:
        environment["CUDA_VISIBLE_DEVICES"] = visible
    told = subprocess.run(["bash", tmp_path / SCRIPT], env=environment, capture_output=True, text=True, check=True)
    assert told.stdout.startswith(f"launched -n {ranks} python {tmp_path}/scripts/test.py --attention_resolutions 1000")
