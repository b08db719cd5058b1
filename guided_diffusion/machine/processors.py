"""The cores that this process may use."""

import os
from pathlib import Path

from guided_diffusion.machine.control_groups import groups_with


def usable_cores() -> frozenset[int]:
    """The numbers of the cores that this process may run on; where the system does not tell, of all."""
    return frozenset(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1))


def cores_of_parent() -> frozenset[int]:
    """The same of the process that started this one, under MPI a launcher; where the system does not tell, none."""
    try:
        return frozenset(os.sched_getaffinity(os.getppid()))
    except (AttributeError, OSError):
        return frozenset()


def core_count() -> int:
    """How many of them can work at once."""
    cores = len(usable_cores())
    return min(cores, core_quota() or cores)


def core_quota(root: Path = Path("/")) -> int | None:
    """Whole cores' worth of time that this process's container has, at least 1; None without a limit.

    Docker's `--cpus` and the limits of Kubernetes do not forbid cores, but stop a process that has used its time:
    threads beyond the quota wait for each other. The file `cpu.max` of control groups states it as "quota period" or
    "max period", in version 1 two files do, with a quota of -1 for none.
    """
    quotas = []
    for group, version in groups_with("cpu", "cpu.cfs_quota_us", "cpu.max", root):
        if version == 2:
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota, period = ((group / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        if quota not in ("max", "-1"):
            quotas.append(max(1, int(quota) // int(period)))
    return min(quotas, default=None)
