"""Sections `ranks` and `startup`: the actual command, run under mpiexec."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from evaluation.benchmark.section import Section
from evaluation.running import mpiexec
from guided_diffusion.errors import InputError
from guided_diffusion.machine.processors import core_count

ROOT = Path(__file__).parents[2]
_PATCHES, _PATCH_SIZE, _OVERLAP = 12, 16, 4  # twelve patches divide evenly among one to four ranks
_LEAST_SECONDS = 20.0


def measure_ranks(
    model_path: str, in_plane: int, most_ranks: int = 4, least_seconds: float = _LEAST_SECONDS
) -> Section:
    """The section for a volume of `in_plane` x `in_plane` x 148 voxels on 1 to `most_ranks` ranks of one thread.

    Its sides are doubled in the plane until one rank takes `least_seconds`: less work shows start-up and end, no more.
    """
    with TemporaryDirectory() as folder:
        runs = {1: _run_on_noise(Path(folder), model_path, in_plane)}
        while runs[1]["seconds"] < least_seconds:
            in_plane *= 2
            runs = {1: _run_on_noise(Path(folder), model_path, in_plane)}
        runs |= {ranks: _run(Path(folder), model_path, ranks) for ranks in range(2, most_ranks + 1)}
    cores = core_count()
    for ranks, run in runs.items():
        run["efficiency"] = runs[1]["seconds"] / (ranks * run["seconds"])
    within = [ranks for ranks in runs if ranks <= cores]
    rows = [
        (
            str(ranks),
            f"{run['seconds']:.1f}",
            f"{run['efficiency']:.0%}" if ranks in within else f"({cores} core{'s' if cores > 1 else ''} only)",
            f"{run['idle_share']:.0%}",
        )
        for ranks, run in runs.items()
    ]
    return Section(
        name="ranks",
        title="Ranks",
        values={
            "cores": cores,
            "in_plane": in_plane,
            "patches": _PATCHES,
            "efficiency": runs[max(within)]["efficiency"],
            "efficiency_at": max(within),
            "runs": {str(ranks): run for ranks, run in runs.items()},
        },
        header=("ranks", "seconds", "efficiency", "idle share"),
        rows=rows,
        notes=(
            f"`mpiexec -n N python scripts/test.py` on {_PATCHES} patches, one thread per rank; seconds from the start"
            " of reading to the result. Efficiency: T(1) / (N T(N)). Idle: the ranks' time outside sampling."
        ),
    )


def _run_on_noise(folder: Path, model_path: str, in_plane: int) -> dict[str, Any]:
    """Write a scan of this size for all runs, and run one rank on it."""
    length = _PATCHES * (_PATCH_SIZE - _OVERLAP) + _OVERLAP
    data = np.random.default_rng(0).gamma(2.0, 1.0, (in_plane, in_plane, length)).astype(np.float32)
    np.savez(folder / "scan.npz", arr_0=data)
    return _run(folder, model_path, 1)


def _run(folder: Path, model_path: str, ranks: int) -> dict[str, Any]:
    """One run's seconds without start-up, and the mean share of the ranks' time outside the sampling of patches."""
    out = folder / str(ranks)
    flags = {
        "base_samples": folder / "scan.npz",
        "model_path": Path(model_path).resolve(),
        "save_dir": out,
        "threads": 1,
        "patch_size": _PATCH_SIZE,
        "overlap": _OVERLAP,
    }
    words = [str(word) for name, value in flags.items() for word in (f"--{name}", value)]
    _python([_launcher(), "-n", str(ranks)], "scripts/test.py", *words)
    manifest = json.loads((out / "run.json").read_text())
    busy = sum(patch["seconds"] for patch in manifest["patches"])
    return {"seconds": manifest["seconds"], "idle_share": 1 - busy / (ranks * manifest["seconds"])}


def _launcher() -> str:
    found = mpiexec()
    if found is None:
        raise InputError("the section `ranks` needs mpiexec, which is not on the PATH: install an MPI library")
    return found


def _python(launcher: list[str], *words: str) -> None:
    """Run Python from the repository's root. Raises InputError with the last line that a failing run printed."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [*launcher, sys.executable, *words]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"{' '.join(words[:1])} failed: {(done.stderr.strip() or 'no message').splitlines()[-1]}")


def measure_startup(rounds: int = 3) -> Section:
    """Start-up times in s of Python, PyTorch and the command."""
    words = {"python": ("-c", ""), "import torch": ("-c", "import torch"), "test.py": ("scripts/test.py", "--help")}
    seconds: dict[str, list[float]] = {name: [] for name in words}
    for _ in range(rounds):
        for name in words:
            began = time.perf_counter()
            _python([], *words[name])
            seconds[name].append(time.perf_counter() - began)
    return Section(
        name="startup",
        title="Start-up",
        values={name.replace(" ", "_").replace(".py", ""): median(times) for name, times in seconds.items()},
        header=("", "seconds: median (range)"),
        rows=[(f"`{n}`", f"{median(t):.2f} ({min(t):.2f} to {max(t):.2f})") for n, t in seconds.items()],
        notes=f"{rounds} rounds in alternation.",
    )
