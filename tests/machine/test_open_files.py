"""Files that are open at a time: the limit is raised as far as the system allows, and is no damage of a file."""

import errno
import os
import subprocess
import sys

import pytest

from guided_diffusion.errors import Failure
from guided_diffusion.machine.open_files import MARGIN
from guided_diffusion.pet.damage import damage_as
from tests.mpi import ROOT

LIMITED = """
import resource
from guided_diffusion.machine.open_files import allow_open_files
resource.setrlimit(resource.RLIMIT_NOFILE, (64, {hard}))
allow_open_files({count})
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def limits_after(count, hard):
    code = LIMITED.format(count=count, hard=hard)
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_the_limit_is_raised_as_far_as_it_may_be():
    assert limits_after(500, 2000).stdout.split() == [str(500 + MARGIN), "2000"]
    refused = limits_after(1900, 2000)
    assert "InputError: 1900 files are needed at a time, but the system allows 2000" in refused.stderr


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ESTALE])
def test_what_the_machine_lacks_is_no_damage(number):
    with pytest.raises(Failure, match=rf"^scan\.nii: {os.strerror(number)}$"), damage_as("scan.nii: is damaged"):
        raise OSError(number, os.strerror(number), "scan.nii")
