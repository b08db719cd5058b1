"""Patches that agree after every step: by value, on any number of ranks, and with a neighbour that dies."""

import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from guided_diffusion.config.inference_flags import Sampling
from guided_diffusion.errors import InputError
from guided_diffusion.inference.denoising import denoise_volume
from guided_diffusion.inference.overlaps import Fusion
from guided_diffusion.pet.patches import plan_axial_patches
from tests.denoising import loaded_model
from tests.inference.test_realisations import DIFFUSION, GRID, Mixer, scan
from tests.mpi import needs_mpiexec, run_script

PLANS = [(73, 16, 4), (183, 96, 10), (33, 16, 8), (40, 16, 0), (40, 16, 1), (12, 16, 4)]


def state(plan, seed=0):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.normal(size=(len(plan.starts), 1, plan.patch_size, 3, 4)).astype(np.float32))


def volume_of(plan, x):
    return plan.stitch(x[:, 0].permute(0, 2, 3, 1).numpy())


@pytest.mark.parametrize("sizes", PLANS)
def test_every_patch_is_left_with_the_stitched_volume(sizes):
    """Wherever patches overlap they hold the same bits, the blend that stitching would give."""
    plan = plan_axial_patches(*sizes)
    x = state(plan)
    fused = Fusion(plan, [0] * len(plan.starts))(x)
    blended = volume_of(plan, x)
    for patch in range(len(plan.starts)):
        np.testing.assert_array_equal(fused[patch, 0].permute(1, 2, 0).numpy(), blended[..., plan.slab(patch)])


@pytest.mark.parametrize("sizes", PLANS)
def test_patches_that_agree_are_left_alone(sizes):
    plan = plan_axial_patches(*sizes)
    volume = np.random.default_rng(1).normal(size=(3, 4, plan.length)).astype(np.float32)
    patches = np.stack([volume[..., plan.slab(patch)] for patch in range(len(plan.starts))])
    x = torch.from_numpy(patches).permute(0, 3, 1, 2)[:, None]
    np.testing.assert_allclose(Fusion(plan, [0] * len(plan.starts))(x), x, atol=1e-6)


def test_unrelated_noise_is_not_blended():
    with pytest.raises(InputError, match="--noise field"):
        Sampling(noise="per_patch", fuse="each_step")


class Seesaw(Mixer):
    """Its answer depends on the patch that it sees, so that neighbours disagree."""

    def forward(self, x, timesteps, low_res):
        return super().forward(x, timesteps, low_res) + 0.1 * x.mean(dim=2, keepdim=True)


WALK = """
import os, sys, time
import numpy as np
from guided_diffusion.dist_util import communicator, run_main
from guided_diffusion.inference.denoising import denoise_volume
from guided_diffusion.config.inference_flags import Sampling
from tests.inference.test_overlaps import Seesaw
from tests.denoising import loaded_model
from tests.inference.test_realisations import DIFFUSION, GRID, scan

class Mortal(Seesaw):
    calls = 0

    def forward(self, x, timesteps, low_res):
        self.calls += 1
        if communicator().rank == {victim} and self.calls == 2:
            print(time.time(), flush=True)
            os.kill(os.getpid(), 9)
        return super().forward(x, timesteps, low_res)

def main():
    sampling = Sampling(fuse="each_step", realisations=2)
    volume = scan() if communicator().rank == 0 else None
    result = denoise_volume(volume, loaded_model(Mortal(), DIFFUSION, sampling, GRID))
    if result is not None:
        np.savez(sys.argv[1], mean=result.samples, sd=result.samples_sd)

run_main(main)
"""


def walk(tmp_path, ranks, victim=-1):
    """Denoise with a network whose answer depends on the patch that it sees."""
    script = tmp_path / "walk.py"
    script.write_text(WALK.format(victim=victim))
    out = tmp_path / f"{ranks}.npz"
    return run_script(script, out, ranks=ranks, timeout=300), out


@needs_mpiexec
def test_any_number_of_ranks_gives_the_same_bits(tmp_path):
    """Three patches: each rank with several, one or none."""
    results = []
    for ranks in (1, 2, 3, 4):
        done, out = walk(tmp_path, ranks)
        assert done.returncode == 0, done.stderr
        results.append(np.load(out))
    for other in results[1:]:
        np.testing.assert_array_equal(other["mean"], results[0]["mean"])
        np.testing.assert_array_equal(other["sd"], results[0]["sd"])
    assert results[0]["sd"].min() > 0


def test_batches_change_nothing_and_fusing_at_the_end_is_something_else():
    plain = Sampling(fuse="each_step")
    volumes = [
        denoise_volume(scan(), loaded_model(Seesaw(), DIFFUSION, sampling, GRID)).samples
        for sampling in (plain, replace(plain, batch_size=2), replace(plain, fuse="end"))
    ]
    np.testing.assert_allclose(volumes[1], volumes[0], atol=1e-6)
    assert np.abs(volumes[2] - volumes[0]).mean() > 1e-4


@needs_mpiexec
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_neighbour_ends_the_run(victim, tmp_path):
    done, out = walk(tmp_path, ranks=3, victim=victim)
    assert time.time() - float(done.stdout.split()[0]) < 30
    assert done.returncode != 0
    assert not out.exists()
