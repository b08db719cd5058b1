"""`test_DDPM_3d_mpi.sh`: a rank for each GPU that may be used, and the folder of the repository."""

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
        (None, 0, 2),  # on a CPU: "No devices found."
        ("", 4, 2),
        ("-1", 4, 2),
        ("NoDevFiles", 4, 2),  # as Slurm says that a job has none
        ("2", 4, 1),
        ("0,3", 4, 2),
        ("GPU-5ad0,GPU-77e1,MIG-1/2", 8, 3),
        ("0,1,-1,2", 4, 2),
        ("-1,0", 4, 2),  # none
        (" 0, 1 ", 4, 2),
    ],
)
def test_ranks_follow_the_gpus(visible, there, ranks, tmp_path):
    place = repository(tmp_path)
    environment = os.environ | {"PATH": f"{place}/.venv/bin:{os.environ['PATH']}", "THERE": str(there)}
    environment.pop("CUDA_VISIBLE_DEVICES", None)
    if visible is not None:
        environment["CUDA_VISIBLE_DEVICES"] = visible
    told = subprocess.run(["bash", place / SCRIPT], env=environment, capture_output=True, text=True, check=True)
    assert told.stdout.startswith(f"launched -n {ranks} python {place}/scripts/test.py --attention_resolutions 1000")


@pytest.mark.parametrize(
    ("shell", "script", "variables"),
    [
        ("sh", "repository/" + SCRIPT, {}),
        ("bash", "link", {}),
        ("bash", "spool/slurm_script", {"SLURM_SUBMIT_DIR": "repository"}),
        ("bash", "spool/slurm_script", {"PBS_O_WORKDIR": "repository", "SLURM_SUBMIT_DIR": ""}),
    ],
)
def test_the_repository_is_found_from_a_link_and_a_batch_system_s_copy(shell, script, variables, tmp_path):
    place, spool = repository(tmp_path), tmp_path / "spool"
    (tmp_path / "link").symlink_to(place / SCRIPT)
    spool.mkdir()
    shutil.copy(ROOT / SCRIPT, spool / "slurm_script")
    variables = {name: value and str(tmp_path / value) for name, value in variables.items()}
    told = subprocess.run(
        [shell, tmp_path / script], env=os.environ | variables, capture_output=True, text=True, check=True
    )
    assert told.stdout.startswith("launched")
    assert f"python {place}/scripts/test.py" in told.stdout


def test_without_mpiexec_a_single_rank_does_the_work(tmp_path):
    place, commands = repository(tmp_path), tmp_path / "commands"
    (place / ".venv" / "bin" / "mpiexec").unlink()
    commands.mkdir()
    for name in ("bash", "readlink", "dirname", "grep", "awk", "seq"):  # and no launcher of this machine
        (commands / name).symlink_to(shutil.which(name))
    (commands / "python").write_text('#!/bin/sh\necho started "$@"\n')
    (commands / "python").chmod(0o755)
    told = subprocess.run(
        [commands / "bash", place / SCRIPT, "--save_dir", "a b"],
        env={"PATH": str(commands), "MODEL_PATH": "m.pt"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert told.stdout.startswith(f"started {place}/scripts/test.py --attention_resolutions 1000")
    assert told.stdout.endswith("--save_dir a b\n")
    assert told.stderr.startswith("notice: there is no mpiexec: a single rank does all the work")


def test_a_copy_that_cannot_find_the_repository_gets_one_line(tmp_path):
    shutil.copy(ROOT / SCRIPT, tmp_path / "slurm_script")
    told = subprocess.run(["bash", tmp_path / "slurm_script"], capture_output=True, text=True, check=False)
    assert told.returncode == 2
    assert told.stderr.strip().endswith("submit it from the repository's folder")


@pytest.mark.parametrize("ranks", ["0", "abc", "-1", "1 2", "1.5", " "])
def test_a_number_of_ranks_that_is_none_is_refused(ranks, tmp_path):
    place = repository(tmp_path)
    told = subprocess.run(["bash", place / SCRIPT], env=os.environ | {"RANKS": ranks}, capture_output=True, text=True)
    assert (told.returncode, told.stdout) == (2, "")
    assert told.stderr.startswith("error: RANKS is ")
    assert told.stderr.endswith(": give a whole number of ranks, 1 or more\n")
    assert told.stderr.count("\n") == 1


def test_a_number_of_ranks_is_taken(tmp_path):
    place = repository(tmp_path)
    told = subprocess.run(["bash", place / SCRIPT], env=os.environ | {"RANKS": "12"}, capture_output=True, text=True)
    assert told.stdout.startswith("launched -n 12 python")


def test_without_the_demo_s_input_it_is_said_how_to_make_or_replace_it(tmp_path):
    place = repository(tmp_path)
    shutil.rmtree(place / "results")

    def start(*words, **variables):
        environment = os.environ | {"PATH": f"{place}/.venv/bin:{os.environ['PATH']}"} | variables
        done = subprocess.run(["bash", place / SCRIPT, *words], env=environment, capture_output=True, text=True)
        return done.returncode, done.stdout.partition(" ")[0], done.stderr

    advice = "run 'make demo', or set BASE_SAMPLES to a scan or a folder of them"
    assert start("--save_dir", "out") == (2, "", f"error: the demo's input is not there: {advice}\n")
    assert start(BASE_SAMPLES="scan.npz") == (0, "launched", "")
    for words in ("--base_samples scan.npz", "--save_dir out --base_samples=scan.npz", "--help", "-h"):
        assert start(*words.split()) == (0, "launched", "")


def repository(folder):
    """A folder as the script lies in, whose commands only print how they are called."""
    place = folder / "repository"
    commands = place / ".venv" / "bin"
    commands.mkdir(parents=True)
    shutil.copy(ROOT / SCRIPT, place)
    (place / "scripts").mkdir()
    (place / "scripts" / "test.py").touch()
    (place / "results" / "demo" / "trial" / "sub-0000").mkdir(parents=True)
    (place / "results" / "demo" / "trial" / "sub-0000" / "low_dose_1-20.nii.gz").touch()
    # Each GPU with two instances.
    listing = (
        '[ "${THERE:-0}" -gt 0 ] || { echo "No devices found."; exit 6; }; for n in $(seq 1 $THERE); do'
        ' echo "GPU $n: H100 (UUID: GPU-$n)"; for i in 0 1; do echo "  MIG 1g.10gb Device $i: (UUID: MIG-$n$i)"; done;'
        " done"
    )
    for name, line in (("nvidia-smi", listing), ("mpiexec", 'echo launched "$@"')):
        (commands / name).write_text(f"#!/bin/sh\n{line}\n")
        (commands / name).chmod(0o755)
    return place
