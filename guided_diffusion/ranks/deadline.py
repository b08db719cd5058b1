"""Kills a process that misses a deadline, even while it runs no Python code.

MPI waits for every rank when it starts and when it ends, and no Python thread runs meanwhile, so a second process keeps
the time. Only the standard library is imported here, since that process runs this file alone.
"""

import os
import select
import signal
import subprocess
import sys


class Deadline:
    """A process that prints a line and kills this one after so many seconds, unless `met` is called before.

    Without `met` it lasts until this process has ended, which its end of a pipe tells the other one.
    """

    def __init__(self, seconds: float, line: str):
        command = [sys.executable, "-I", "-S", __file__, str(os.getpid()), str(seconds), line]
        read, self._write = os.pipe()
        # An interrupt from the terminal is for this process. The other one inherits that it does not get any.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._keeper = subprocess.Popen(command, stdin=read, stdout=subprocess.DEVNULL)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            os.close(read)

    def met(self) -> None:
        """Cancel the deadline."""
        os.close(self._write)
        self._keeper.wait()


def _keep(process: int, seconds: float, line: str) -> None:
    """Code of the other process: wait until stdin is closed, or kill when the time is up."""
    # Waits are counted instead of reading a clock: a job that is suspended for an hour stops this process too.
    while seconds > 0:
        wait = min(seconds, 1.0)
        if select.select([sys.stdin], [], [], wait)[0]:
            return
        seconds -= wait
    print(line, file=sys.stderr, flush=True)
    os.kill(process, signal.SIGKILL)


if __name__ == "__main__":
    _keep(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3])
