"""Linux control groups: what a container, or a job of a batch system, may take of the machine."""

from pathlib import Path


def groups_with(controller: str, version_1: str, version_2: str, root: Path = Path("/")) -> list[tuple[Path, int]]:
    """The control groups of this process and their parents that have a limit's file, and the version of each.

    controller: whose hierarchy counts in version 1 of control groups; version 2 has a line without controllers in
    `/proc/self/cgroup`. version_1, version_2: the file's name. Groups are nested, as a step within a job under Slurm,
    and each may have a limit. If a container sees only a part of the hierarchy, that path does not exist in it, and its
    root is the container's group.
    """
    memberships, mount = root / "proc/self/cgroup", root / "sys/fs/cgroup"
    lines = memberships.read_text().splitlines() if memberships.exists() else []
    found = []
    for _, controllers, path in (line.split(":", 2) for line in lines):
        if controllers == "":
            version, name, top = 2, version_2, mount
        elif controller in controllers.split(","):
            version, name, top = 1, version_1, mount / controller
        else:
            continue
        within = [part for part in path.split("/") if part not in ("", "..")]
        groups = (top.joinpath(*within[:depth]) for depth in range(len(within) + 1))
        found += [(group, version) for group in groups if (group / name).exists()]
    return found
