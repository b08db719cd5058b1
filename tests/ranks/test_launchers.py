"""Which launcher started this process, and how many times, by the variables that launchers set."""

import os
import subprocess
import sys

import pytest

from guided_diffusion.ranks.launchers import Launch, how_to_start, launch, may_be_a_rank
from tests.denoising import arguments_of
from tests.mpi import ROOT, run_script

SEVERAL = [
    ({"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "3"}, 4, 3),
    ({"MV2_COMM_WORLD_SIZE": "2", "MV2_COMM_WORLD_RANK": "0"}, 2, 0),
    ({"MVP_COMM_WORLD_SIZE": "2", "MVP_COMM_WORLD_RANK": "1"}, 2, 1),
    ({"PMI_SIZE": "8", "PMI_RANK": "5"}, 8, 5),
    ({"PMI_SIZE": "8"}, 8, 0),
    ({"JSM_NAMESPACE_SIZE": "6", "JSM_NAMESPACE_RANK": "2"}, 6, 2),
    ({"FLUX_JOB_SIZE": "3", "FLUX_TASK_RANK": "1"}, 3, 1),
    ({"WORLD_SIZE": "2", "RANK": "1"}, 2, 1),
    ({"HOROVOD_SIZE": "2", "HOROVOD_RANK": "1"}, 2, 1),
    ({"SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "7"}, 8, 7),
    ({"SLURM_PTY_PORT": "4", "SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "0", "OMPI_COMM_WORLD_SIZE": "4"}, 4, 0),
    ({"PMIX_RANK": "3"}, 4, 3),
    ({"PALS_RANKID": "1"}, 2, 1),
    ({"ALPS_APP_PE": "1"}, 2, 1),
    # torchrun inside one MPI rank
    ({"PMI_SIZE": "1", "PMI_RANK": "0", "WORLD_SIZE": "4", "RANK": "2"}, 4, 2),
]
ALONE = [
    {},
    {"PMI_SIZE": ""},
    {"PMI_SIZE": "four"},
    {"PMI_SIZE": "-3"},
    {"SLURM_STEP_NUM_TASKS": "4(x2)", "SLURM_PROCID": "0"},
    {"SLURM_STEP_NUM_TASKS": "8"},
    {"WORLD_SIZE": "8"},
    {"PMIX_RANK": "0"},
    {"OMPI_COMM_WORLD_SIZE": "1", "SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "0"},
    {"PMI_SIZE": "1", "PMI_RANK": "0"},
]


@pytest.mark.parametrize(("environment", "size", "rank"), SEVERAL)
def test_one_of_several(environment, size, rank):
    found = launch(environment)
    assert isinstance(found, Launch)
    assert (found.size, found.rank) == (size, rank)


@pytest.mark.parametrize("environment", ALONE)
def test_alone(environment):
    assert launch(environment) is None


@pytest.mark.parametrize(
    "environment",
    [
        *(environment for environment, *_ in SEVERAL),
        # The first of several, as far as can be told.
        {"PMIX_RANK": "0"},
        {"PALS_RANKID": "0"},
        {"ALPS_APP_PE": "0"},
        {"MPIRANK": "0"},  # of a launcher that is not known
    ],
)
def test_a_process_that_a_launcher_may_have_started_is_a_rank(environment):
    assert may_be_a_rank(environment)


@pytest.mark.parametrize(
    "environment", [{}, {"PMI_RANK": ""}, {"RANKING": "high"}, {"SLURM_JOB_ID": "7"}, {"I_MPI_ROOT": "/opt/mpi"}]
)
def test_without_a_launcher_there_are_no_ranks(environment):
    assert not may_be_a_rank(environment)


def test_a_process_without_a_launcher_does_not_start_mpi():
    """It would need shared memory, which a container may lack."""
    code = (
        "import sys; from guided_diffusion.ranks.communicator import communicator;"
        " print(communicator().size, 'mpi4py' in sys.modules)"
    )
    alone = {name: value for name, value in os.environ.items() if "RANK" not in name}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=alone, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "1 False", done.stderr


def test_advice_names_a_way_that_works():
    assert "mpiexec -n 2 python" in how_to_start(launch({"WORLD_SIZE": "2", "RANK": "1"}))
    assert "srun --mpi=" in how_to_start(launch({"SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "0"}))


@pytest.mark.parametrize(
    "variables",
    [
        {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"},
        {"FLUX_JOB_SIZE": "2", "FLUX_TASK_RANK": "0"},
    ],
)
def test_copies_that_cannot_see_each_other_do_nothing(small, tmp_path, variables):
    files = arguments_of(small / "scan.npz", small / "small.pt", tmp_path / "out")
    done = run_script("scripts/test.py", *files, **variables)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_program_that_a_rank_started_is_one_of_its_own():
    """It inherits the rank's variables, but Python has closed the launcher's connection."""
    code = "from guided_diffusion.ranks.communicator import communicator; print(communicator().size)"
    inherited = {"PMI_FD": "97", "PMI_RANK": "1", "PMI_SIZE": "2"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=os.environ | inherited, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == "1", done.stderr
