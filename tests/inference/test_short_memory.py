"""Where memory is short: shorter patches, the same on all ranks, and nothing else is taken for it."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from guided_diffusion.config import DEMO_MODEL, DiffusionConfig
from guided_diffusion.config.inference_flags import Sampling
from guided_diffusion.errors import InputError
from guided_diffusion.inference import planning
from guided_diffusion.inference.denoising import denoise_volume
from guided_diffusion.machine.free_memory import container_bytes
from guided_diffusion.machine.memory import free_bytes, is_out_of_memory
from guided_diffusion.script_util import create_model
from tests.denoising import loaded_model
from tests.inference.test_realisations import DIFFUSION, GRID, Mixer, scan
from tests.mpi import needs_mpiexec, succeed

SHORTER = replace(GRID, patch_size=8)


class Greedy(Mixer):
    """Needs more memory than there is for patches of more than 8 slices."""

    def forward(self, x, timesteps, low_res):
        if x.shape[2] > 8:
            torch.empty(2**50)
        return super().forward(x, timesteps, low_res)


def test_pytorchs_own_words_are_recognised_and_no_others():
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**50)
    assert is_out_of_memory(raised.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert is_out_of_memory(RuntimeError("could not create a primitive"))
    assert not is_out_of_memory(RuntimeError("could not create a primitive descriptor for a convolution"))
    assert not is_out_of_memory(RuntimeError("shapes do not fit"))
    assert not is_out_of_memory(MemoryError())


@pytest.mark.parametrize("fuse", ["end", "each_step"])
def test_the_result_is_that_of_a_run_with_shorter_patches(fuse, caplog):
    sampling = Sampling(fuse=fuse, realisations=2)
    with caplog.at_level(logging.INFO):
        result = denoise_volume(scan(), loaded_model(Greedy(), DIFFUSION, sampling, GRID))
    assert "patches of 8 slices" in caplog.text
    asked_for = denoise_volume(scan(), loaded_model(Mixer(), DIFFUSION, sampling, SHORTER))
    assert result.plan == asked_for.plan
    np.testing.assert_array_equal(result.samples, asked_for.samples)
    np.testing.assert_array_equal(result.samples_sd, asked_for.samples_sd)


@pytest.mark.parametrize(
    ("sampling", "grid", "expected"),
    [
        (Sampling(noise="per_patch"), GRID, None),
        (Sampling(), replace(GRID, overlap=5), None),
        (Sampling(), GRID, 3),
    ],
)
def test_what_shorter_patches_would_break_is_refused(sampling, grid, expected):
    with pytest.raises(InputError, match="patches of 16 slices do not fit"):
        denoise_volume(scan(), loaded_model(Greedy(), DIFFUSION, sampling, grid), expected_patches=expected)


def test_other_failures_are_not_hidden():
    class Broken(Mixer):
        def forward(self, *_, **__):
            raise RuntimeError("shapes do not fit")

    for fuse in ("end", "each_step"):
        with pytest.raises(RuntimeError, match="shapes"):
            denoise_volume(scan(), loaded_model(Broken(), DIFFUSION, Sampling(fuse=fuse), GRID))


RANKS = """
import sys
import numpy as np
from guided_diffusion.dist_util import communicator, run_main
from guided_diffusion.inference.denoising import denoise_volume
from guided_diffusion.config.inference_flags import Sampling
from tests.denoising import loaded_model
from tests.inference.test_realisations import DIFFUSION, GRID, Mixer, scan
from tests.inference.test_short_memory import Greedy

def main():
    rank = communicator().rank
    model = Greedy() if rank == 1 else Mixer()
    for fuse in ("end", "each_step"):
        sampling = Sampling(fuse=fuse)
        result = denoise_volume(scan() if rank == 0 else None, loaded_model(model, DIFFUSION, sampling, GRID))
        if result is not None:
            np.save(sys.argv[1] + fuse, result.samples)

run_main(main)
"""


@needs_mpiexec
def test_one_rank_without_memory_shortens_the_patches_of_all(tmp_path):
    script = tmp_path / "ranks.py"
    script.write_text(RANKS)
    succeed(script, f"{tmp_path}/", ranks=4, timeout=300)
    for fuse in ("end", "each_step"):
        alone = denoise_volume(scan(), loaded_model(Mixer(), DIFFUSION, Sampling(fuse=fuse), SHORTER))
        np.testing.assert_array_equal(np.load(tmp_path / f"{fuse}.npy"), alone.samples)


@pytest.mark.parametrize(("free", "slices"), [(None, 16), (10**12, 16), (10**5, 8)])
def test_patches_are_planned_by_the_free_memory(free, slices, monkeypatch):
    monkeypatch.setattr(planning, "free_bytes", lambda _device: free)
    model = create_model(DEMO_MODEL, DiffusionConfig())
    left = planning.free_bytes_per_rank(torch.device("cpu"))
    plan = planning.make_plan(scan(), loaded_model(model, DIFFUSION, Sampling(), GRID), None, left)
    assert plan.patch_size == slices
    for sampling, expected in ((Sampling(noise="per_patch"), None), (Sampling(), 3)):
        loaded = loaded_model(model, DIFFUSION, sampling, GRID)
        assert planning.make_plan(scan(), loaded, expected, left).patch_size == 16


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="the kernel tells on Linux only")
def test_free_memory_is_believable():
    assert 2**26 < free_bytes(torch.device("cpu")) < 2**45


NAMES = {
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    2: ("memory.max", "memory.current", "inactive_file"),
}


def write_group(folder, limit, used=0, cached=0, version=2):
    """A control group as the kernel shows it."""
    limit_name, used_name, cached_name = NAMES[version]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / limit_name).write_text(f"{limit}\n")
    (folder / used_name).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\n{cached_name} {cached}\n")


def write_memberships(root, *lines):
    (root / "proc" / "self").mkdir(parents=True)
    (root / "proc" / "self" / "cgroup").write_text("\n".join(lines) + "\n")


def test_the_limit_of_a_container_counts(tmp_path):
    assert container_bytes(tmp_path) is None
    write_memberships(tmp_path, "0::/")
    assert container_bytes(tmp_path) is None
    write_group(tmp_path / "sys/fs/cgroup", 1000, used=700, cached=200)
    assert container_bytes(tmp_path) == 500
    write_group(tmp_path / "sys/fs/cgroup", "max", used=700)
    assert container_bytes(tmp_path) is None


@pytest.mark.parametrize(("job", "step", "left"), [(1000, "max", 600), (1000, 900, 600), (1000, 350, 250)])
def test_the_least_of_nested_limits_counts(job, step, left, tmp_path):
    """A job of Slurm and its step, under systemd's slice; the root of the whole machine has no files."""
    write_memberships(tmp_path, "0::/system.slice/job_7/step_0")
    slice_ = tmp_path / "sys/fs/cgroup/system.slice"
    write_group(slice_, "max", used=10**6)
    write_group(slice_ / "job_7", job, used=400)
    write_group(slice_ / "job_7" / "step_0", step, used=100)
    write_group(slice_ / "job_8", 1)
    assert container_bytes(tmp_path) == left


def test_limits_of_version_1_count(tmp_path):
    write_memberships(tmp_path, "9:cpu,cpuacct:/slurm", "4:hugetlb,memory:/slurm/job_7", "0::/")
    top = tmp_path / "sys/fs/cgroup/memory"
    write_group(top, 2**63 - 4096, version=1)
    write_group(top / "slurm", 2**63 - 4096, version=1)
    assert container_bytes(tmp_path) is None
    write_group(top / "slurm" / "job_7", 1000, used=700, cached=200, version=1)
    assert container_bytes(tmp_path) == 500


@pytest.mark.parametrize("path", ["/docker/0123", "/../job_7"])
def test_a_container_that_sees_only_its_own_group(path, tmp_path):
    write_memberships(tmp_path, f"4:memory:{path}")
    write_group(tmp_path / "sys/fs/cgroup/memory", 1000, used=700, version=1)
    assert container_bytes(tmp_path) == 300
