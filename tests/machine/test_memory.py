"""Freed memory stays with the process: allocating again costs no page faults."""

import subprocess
import sys

import pytest

PROBE = """
import resource, sys
import torch
from guided_diffusion.machine.memory import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
for _ in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.ones(16 * 2**20)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(faults)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator is Linux's")
def test_allocating_again_costs_no_page_faults():
    def faults(mode):
        return int(subprocess.run([sys.executable, "-c", PROBE, mode], capture_output=True, check=True).stdout)

    assert faults("keep") < 0.05 * faults("default")


KEPT = """
import torch
from guided_diffusion.machine.free_memory import kept_bytes
from guided_diffusion.machine.memory import keep_freed_memory
keep_freed_memory()
image = torch.ones(48 * 2**20)
held = kept_bytes()
del image
print(kept_bytes() - held)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator is Linux's")
def test_what_is_kept_counts_as_free():
    """So that a second scan gets patches as long as the first's."""
    done = subprocess.run([sys.executable, "-c", KEPT], capture_output=True, check=True)
    assert int(done.stdout) == pytest.approx(4 * 48 * 2**20, rel=0.01)
