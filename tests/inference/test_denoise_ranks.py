"""`scripts/test.py` on any number of ranks: published numbers, the same bits, and where there is no MPI."""

import json

import numpy as np
import pytest

from tests.denoising import GOLDEN_FLAGS, arguments_of, denoise, denoise_on, flags_of, samples_in
from tests.golden_weights import GOLDEN
from tests.mpi import needs_mpiexec, run_script


def check_against_golden(golden_files, out, ranks):
    flags = ("--timestep_respacing", 4, "--num_samples", 6, *flags_of(GOLDEN_FLAGS))
    denoise_on(ranks, *golden_files, out, *flags, timeout=900)
    ours = np.load(out / "samples_32x48x520.npz")["arr_0"]
    np.testing.assert_allclose(ours, np.load(GOLDEN / "end_to_end.npz")["output"], rtol=0, atol=1e-3)
    return ours


def check_equal_on(every_number_of_ranks, small, tmp_path):
    volumes = []
    for ranks in every_number_of_ranks:
        denoise_on(ranks, small / "scan.npz", small / "small.pt", tmp_path / str(ranks))
        volumes.append(samples_in(tmp_path / str(ranks)))
        patches = json.loads((tmp_path / str(ranks) / "run.json").read_text())["patches"]
        assert [number for patch in patches for number in patch["patches"]] == list(range(6))
        assert {patch["rank"] for patch in patches} == set(range(min(6, max(1, ranks))))
    assert volumes[0].std() > 0.01
    for other in volumes[1:]:
        np.testing.assert_array_equal(other, volumes[0])


@needs_mpiexec
def test_published_volume_on_four_ranks(golden_files, tmp_path):
    check_against_golden(golden_files, tmp_path, ranks=4)


@needs_mpiexec
@pytest.mark.slow
def test_published_volume_on_any_number_of_ranks(golden_files, tmp_path):
    volumes = [check_against_golden(golden_files, tmp_path / str(n), ranks=n) for n in (1, 2, 6, 7, 8)]
    for other in volumes[1:]:
        np.testing.assert_array_equal(other, volumes[0])


@pytest.mark.slow
@needs_mpiexec
def test_alone_on_some_ranks_and_on_more_than_there_are_patches_the_bits_are_the_same(small, tmp_path):
    check_equal_on((0, 2, 8), small, tmp_path)


@needs_mpiexec
@pytest.mark.slow
def test_every_number_of_ranks_gives_the_same_bits(small, tmp_path):
    check_equal_on(range(1, 9), small, tmp_path)


def block_mpi4py(folder) -> dict:
    """A folder in which mpi4py cannot be imported, as where there is no MPI library, and a rank that would need it."""
    (folder / "mpi4py").mkdir()
    (folder / "mpi4py" / "__init__.py").write_text("raise ImportError('no MPI here')\n")
    return {"path": folder, "LOCAL_RANK": "0"}


def test_runs_without_an_mpi_library(small, tmp_path):
    denoise_on(0, small / "scan.npz", small / "small.pt", tmp_path / "out", **block_mpi4py(tmp_path))
    with_mpi = samples_in(denoise(small / "scan.npz", small / "small.pt", tmp_path / "with_mpi"))
    np.testing.assert_array_equal(samples_in(tmp_path / "out"), with_mpi)


@needs_mpiexec
def test_several_ranks_without_an_mpi_library_are_refused(small, tmp_path):
    arguments = arguments_of(small / "scan.npz", small / "small.pt", tmp_path / "out")
    done = run_script("scripts/test.py", *arguments, ranks=2, **block_mpi4py(tmp_path))
    assert done.returncode == 2
    assert "install mpi4py" in done.stderr


def test_ranks_that_cannot_see_each_other_are_refused(small, tmp_path):
    """A launcher of another MPI library than mpi4py's: every process would think itself alone."""
    arguments = arguments_of(small / "scan.npz", small / "small.pt", tmp_path)
    done = run_script("scripts/test.py", *arguments, OMPI_COMM_WORLD_SIZE="4")
    assert done.returncode == 2
    assert "error: started as 4 ranks that cannot see each other" in done.stderr
