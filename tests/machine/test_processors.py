"""How many cores a rank takes."""

import re
from types import SimpleNamespace

import pytest

from guided_diffusion import dist_util
from guided_diffusion.machine import processors


def write_group(folder, text, version):
    """A control group's limit as the kernel shows it: "quota period"."""
    folder.mkdir(parents=True, exist_ok=True)
    if version == 2:
        (folder / "cpu.max").write_text(f"{text}\n")
    else:
        for name, value in zip(("quota", "period"), text.split(), strict=True):
            (folder / f"cpu.cfs_{name}_us").write_text(f"{value}\n")


def write_memberships(root, line):
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(f"7:memory:/elsewhere\n{line}\n")


@pytest.mark.parametrize(
    ("text", "cores"),
    [
        ("200000 100000", 2),
        ("250000 100000", 2),
        ("50000 100000", 1),  # half a core's time is one thread's
        ("6400000 100000", 64),
    ],
)
@pytest.mark.parametrize(("version", "line"), [(1, "3:cpu,cpuacct:/docker/0123"), (2, "0::/")])
def test_a_containers_quota(text, cores, version, line, tmp_path):
    assert processors.core_quota(tmp_path) is None
    write_memberships(tmp_path, line)
    top = tmp_path / "sys/fs/cgroup" / ("cpu" if version == 1 else "")
    write_group(top, "-1 100000" if version == 1 else "max 100000", version)
    assert processors.core_quota(tmp_path) is None
    write_group(top, text, version)
    assert processors.core_quota(tmp_path) == cores


def test_the_least_of_nested_quotas_counts(tmp_path):
    write_memberships(tmp_path, "0::/pods/mine")
    write_group(tmp_path / "sys/fs/cgroup/pods", "300000 100000", 2)
    write_group(tmp_path / "sys/fs/cgroup/pods/mine", "800000 100000", 2)
    write_group(tmp_path / "sys/fs/cgroup/pods/others", "100000 100000", 2)
    assert processors.core_quota(tmp_path) == 3


@pytest.mark.parametrize(
    ("cores", "quota", "ranks", "share"),
    [(64, None, 4, 16), (64, 8, 1, 8), (64, 8, 4, 2), (64, 8, 16, 1), (2, 8, 1, 2), (3, None, 2, 1)],
)
def test_ranks_share_the_cores_that_their_container_has_time_for(cores, quota, ranks, share, monkeypatch):
    monkeypatch.setattr(processors.os, "sched_getaffinity", lambda _process: set(range(cores)), raising=False)
    monkeypatch.setattr(processors, "core_quota", lambda: quota)
    node = SimpleNamespace(allgather=lambda own: [own] * ranks)
    monkeypatch.setattr(dist_util, "node_communicator", lambda: node)
    assert dist_util.cores_of_rank() == share


@pytest.mark.parametrize(
    ("own", "launchers", "variables", "threads", "notice"),
    [
        (
            [{0}, {1}],
            8,
            {"OMPI_COMM_WORLD_SIZE": "2"},
            0,
            "Open MPI has bound the ranks to 2 of 8 cores; .*--bind-to none",
        ),
        ([{0}, {0}], 8, {"OMPI_COMM_WORLD_SIZE": "2"}, 0, "to 1 of 8 cores"),
        ([{0}, {1}], 2, {"OMPI_COMM_WORLD_SIZE": "2"}, 0, None),
        ([set(range(8))] * 2, 8, {"OMPI_COMM_WORLD_SIZE": "2"}, 0, None),
        ([{0}, {1}], 8, {"OMPI_COMM_WORLD_SIZE": "2"}, 1, None),
        ([{0}, {1}], 8, {"OMPI_COMM_WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}, 0, None),
        ([{0}], 8, {}, 0, None),  # taskset, by someone who wants it so
    ],
)
def test_ranks_that_open_mpi_binds_to_few_cores_are_told_of(own, launchers, variables, threads, notice, monkeypatch):
    node = SimpleNamespace(allgather=lambda _mine: [(frozenset(cores), frozenset(range(launchers))) for cores in own])
    monkeypatch.setattr(dist_util, "node_communicator", lambda: node)
    for name in ("OMPI_COMM_WORLD_SIZE", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = dist_util.bound_to_few_cores(threads)
    assert found is None if notice is None else re.search(notice, found)


def test_the_cores_of_the_parent_are_at_least_ones_own():
    assert processors.cores_of_parent() >= processors.usable_cores()
