"""One writer per folder: a second run is refused; the lock of a run that has ended is taken over.

The lock is a lease in a hidden file of the folder that names host, process and start time; its holder renews it from a
thread. So it also works if hosts share a file system without locks of its own, and if their clocks differ.
"""

import os
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import LeaseCompromise, OwnerRecord, SoftFileLease, Timeout

from guided_diffusion import logger
from guided_diffusion.dist_util import abort, on_root
from guided_diffusion.errors import InputError
from guided_diffusion.files import sweep, temporary_beside

LOCK_NAME = ".lock"
LEASE_SECONDS = 60.0
"""Time in s without a renewal by a holder on another host, after which its folder is taken over."""

_SPARE_SECONDS = 5.0


class FolderLock:
    """The right to write into a folder, held by this process until it is released."""

    def __init__(self, folder: Path):
        """Take the lock, and remove the temporary files that earlier runs left.

        Raises InputError where a running process has it, or what stands in the lock's place is no file.
        """
        self.folder = folder
        path = folder / LOCK_NAME
        _refuse_no_file(path)
        self._lease = SoftFileLease(path, lease_duration=LEASE_SECONDS, on_compromise=self._end_if_taken_over)
        try:
            self._acquire()
        except OSError as error:
            raise InputError(f"{path}: cannot be locked ({error.strerror}); choose another folder") from None
        sweep(folder)

    def _acquire(self) -> None:
        try:
            self._lease.acquire(timeout=0)
        except Timeout:
            holder = self._lease.owner or self._wait_for_a_name()
            if holder is None:
                self._take_over(holder)
            elif holder.hostname != os.uname().nodename:
                self._wait_for_a_sign_of_life()
            elif _is_zombie(holder.pid):
                self._take_over(holder)
            else:
                raise self._refusal() from None

    def _wait_for_a_name(self) -> OwnerRecord | None:
        """Whoever holds a lock without a name in it; None if it stays so, as where its holder was killed over it."""
        until = time.monotonic() + _SPARE_SECONDS
        while self._lease.owner is None and time.monotonic() < until:
            time.sleep(0.05)
        return self._lease.owner

    def _take_over(self, ended: OwnerRecord | None) -> None:
        """Take over the lock of a process that has ended, which neither its number nor the lock shows.

        Of several runs that do so only one can move that lock aside; a lock that another has made since is put back.
        """
        path, aside = self.folder / LOCK_NAME, temporary_beside(self.folder / LOCK_NAME)
        with suppress(FileNotFoundError):
            path.rename(aside)
            if SoftFileLease(aside, lease_duration=LEASE_SECONDS).owner == ended or path.exists():
                aside.unlink()
            else:
                aside.rename(path)
        try:
            self._lease.acquire(timeout=0)
        except Timeout:
            raise self._refusal() from None

    def _wait_for_a_sign_of_life(self) -> None:
        """Wait for a renewal by a holder on another host, whose processes are not visible here."""
        logger.log(f"{self.folder}: locked by {self._holder()}; waiting up to {LEASE_SECONDS:g} s for a sign of life")
        try:
            self._lease.acquire(timeout=LEASE_SECONDS + _SPARE_SECONDS)
        except Timeout:
            raise self._refusal() from None

    def _refusal(self) -> InputError:
        return InputError(
            f"{self.folder}: {self._holder()} is writing into this folder; wait for its end, or choose another folder"
        )

    def _holder(self) -> str:
        owner = self._lease.owner
        return "another run" if owner is None else f"process {owner.pid} on {owner.hostname}"

    def _end_if_taken_over(self, loss: LeaseCompromise) -> None:
        """Called from the lease's thread: ends all ranks before they write into what is another run's now."""
        if loss.reason == "owner-changed":
            message = f"{self.folder}: another run has taken this folder over while this one stood still"
            print(f"error: {message}", file=sys.stderr, flush=True)
            abort(1)

    def release(self) -> None:
        """Release the folder to other runs."""
        self._lease.release()


def _is_zombie(process: int) -> bool:
    """Whether a process has ended and only its number is left: where a launcher was killed, nobody may ever collect it.

    Known under Linux only.
    """
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state in "ZX"


def _refuse_no_file(path: Path) -> None:
    if path.is_symlink() or (path.exists() and not stat.S_ISREG(path.stat().st_mode)):
        raise InputError(f"{path}: is no regular file; remove it")


@contextmanager
def one_writer(folder: Path) -> Iterator[FolderLock | None]:
    """Within the block, this run alone writes into the folder. All ranks call this together; rank 0 gets the lock.

    Raises InputError as `FolderLock` does, on all ranks alike.
    """
    lock = on_root(FolderLock, folder)
    try:
        yield lock
    finally:
        if lock is not None:
            lock.release()
