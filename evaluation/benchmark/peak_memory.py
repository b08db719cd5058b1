"""The peak memory of one network call, in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

from evaluation.benchmark import measured_networks
from guided_diffusion.machine.memory import keep_freed_memory

_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")


def peak_mebibytes(network: str, variant: str, size: measured_networks.Size) -> float | None:
    """Peak memory of a network call in a new process, in MiB above what it took before it made the network.

    None on systems other than Linux, whose kernel keeps the count.
    """
    if not _RESET.exists():
        return None
    command = [sys.executable, "-m", "evaluation.benchmark.peak_memory", json.dumps([network, variant, size])]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout)


def _resident(field: str) -> float:
    """VmRSS or VmHWM of this process in MiB."""
    (line,) = [line for line in _STATUS.read_text().splitlines() if line.startswith(f"{field}:")]
    return int(line.split()[1]) / 1024


def _measure(network: str, variant: str, size: measured_networks.Size) -> float:
    if variant != measured_networks.EAGER:
        keep_freed_memory()  # as in production, at a small cost; the plain network runs without it
    baseline = _resident("VmRSS")
    model = measured_networks.VARIANTS[variant](measured_networks.build(network))
    call = measured_networks.one_call(model, size)
    _RESET.write_text("5")  # proc(5): the peak starts anew from here
    call()
    return _resident("VmHWM") - baseline


if __name__ == "__main__":
    print(_measure(*json.loads(sys.argv[1])))
