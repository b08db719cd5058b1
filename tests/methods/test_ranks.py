"""Methods beside the diffusion model on several ranks, by value."""

import numpy as np
import pytest
import torch

from guided_diffusion.checkpoints import read_plain
from tests.mpi import needs_mpiexec, succeed
from tests.training.test_train_ranks import train_jobs
from tests.training_runs import rows, run

pytestmark = needs_mpiexec

METHODS = {
    "gan3d": {},
    "ddpm2d": {"neighbours": 1, "crop_size": "8,8,5"},
}


@pytest.fixture(scope="module")
def trained(data_dir, tmp_path_factory):
    """Folders of runs of a step: `METHOD-two` on two ranks, `METHOD-one` with the same crops on one."""
    folder = tmp_path_factory.mktemp("ranks")
    jobs = [
        flags | {"method": name, "max_steps": 1, "data_dir": str(data_dir), "batch_size": 1}
        for name, flags in METHODS.items()
    ]
    done = train_jobs(folder, *(job | {"save_dir": str(folder / f"{job['method']}-two")} for job in jobs))
    assert done.returncode == 0, done.stderr
    for job in jobs:
        run(**job | {"save_dir": folder / f"{job['method']}-one", "batch_size": 2})
    return folder


@pytest.mark.parametrize("method", METHODS)
def test_two_ranks_train_as_one_with_twice_the_batch(method, trained):
    """AdamW's first moments after one step are a tenth of the gradients."""
    one, two = (read_plain(str(trained / f"{method}-{ranks}" / "opt000001.pt")) for ranks in ("one", "two"))
    networks = [(one, two)]
    if method == "gan3d":
        networks.append((one["further"]["discriminator"], two["further"]["discriminator"]))
    for alone, shared in networks:
        alone, shared = (state["optimiser"]["state"] for state in (alone, shared))
        largest = max(float(state["exp_avg"].abs().max()) for state in alone.values())
        assert alone.keys() == shared.keys()
        assert largest > 0
        for number, state in alone.items():
            torch.testing.assert_close(shared[number]["exp_avg"], state["exp_avg"], rtol=0, atol=2e-6 * largest)


@pytest.mark.parametrize("method", METHODS)
def test_two_ranks_report_what_one_does(method, trained):
    one, two = (rows(trained / f"{method}-{ranks}" / "progress.csv")[0] for ranks in ("one", "two"))
    terms = {"gan3d": ("loss", "l1", "adversarial", "discriminator_loss"), "ddpm2d": ("loss", "mse")}[method]
    for term in terms:
        assert float(two[term]) == pytest.approx(float(one[term]), rel=1e-4)
        assert float(one[term]) > 0


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_volume_is_denoised_by_two_ranks_as_by_one(method, trained, tmp_path):
    np.savez(tmp_path / "scan.npz", arr_0=np.random.default_rng(0).gamma(2.0, 1.0, (8, 8, 30)).astype(np.float32))
    command = ("scripts/test.py", "--base_samples", tmp_path / "scan.npz", "--patch_size", 8, "--overlap", 2)
    model = ("--model_path", trained / f"{method}-one" / "model000001.pt", "--timestep_respacing", "3")
    for ranks in (1, 2):
        succeed(*command, *model, "--save_dir", tmp_path / str(ranks), ranks=ranks, OMP_NUM_THREADS="1")
    one, two = (np.load(next((tmp_path / ranks).glob("samples_*.npz")))["arr_0"] for ranks in ("1", "2"))
    assert np.array_equal(one, two)
    assert one.std() > 0.01
