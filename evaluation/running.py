"""Running user commands one after another, for the scripts that do so."""

import shlex
import shutil
import subprocess
import sys


def run_command(*command: object) -> None:
    """Print a command and run it. Exits with its code where it fails."""
    words = [str(word) for word in command]
    print(f"$ {shlex.join(words)}", flush=True)
    done = subprocess.run(words, check=False)
    if done.returncode:
        sys.exit(done.returncode)


def launcher(ranks: int) -> list[object]:
    """The beginning of a command that runs on so many ranks; none where there is no mpiexec."""
    mpiexec = shutil.which("mpiexec")
    return [mpiexec, "-n", ranks] if mpiexec else []
