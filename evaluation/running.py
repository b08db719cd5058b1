"""Running user commands one after another, for the scripts that do so."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from evaluation.notices import print_notices


def run_command(*command: object) -> None:
    """Print a command and run it. Exits with its code where it fails."""
    words = [str(word) for word in command]
    print(f"$ {shlex.join(words)}", flush=True)
    done = subprocess.run(words, check=False)
    if done.returncode:
        sys.exit(done.returncode)


def launcher(ranks: int) -> list[object]:
    """The beginning of a command that runs on so many ranks; none, with a notice, where there is no mpiexec."""
    found = mpiexec()
    if found is None:
        print_notices(["there is no mpiexec: one rank is used"])
        return []
    return [found, "-n", ranks]


def mpiexec() -> str | None:
    """Where `mpiexec` is: beside this Python, whose environment may not be active, or on the PATH; None if nowhere."""
    search = [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    return shutil.which("mpiexec", path=os.pathsep.join(search))
