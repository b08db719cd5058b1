"""Ending a run on a signal."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from guided_diffusion import logger


class Stop:
    """A request to end the run. asked: whether this process has received one."""

    asked = False


# Of these, the second enforces what the first requests.
_ORDERS = (signal.SIGINT, signal.SIGTERM)
# Batch systems announce the end of a job by these, to several processes and more than once, and a terminal its own.
_ANNOUNCEMENTS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU, signal.SIGHUP)


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Within the block, an interrupt, a termination signal or the announcement of one requests a stop.

    A second interrupt or termination signal enforces it. An announcement that is ignored, as by nohup, stays so.
    """
    stop = Stop()

    def ask(number: int, _frame: object) -> None:
        if not stop.asked:
            stop.asked = True
            logger.log(f"{signal.Signals(number).name}: ending after this step")
        if number in _ORDERS:
            signal.signal(number, previous[number])

    previous = {}
    for number in (*_ORDERS, *_ANNOUNCEMENTS):
        if number in _ORDERS or signal.getsignal(number) is not signal.SIG_IGN:
            before = signal.signal(number, ask)
            # None is a handler of a library, as MPICH has one for SIGUSR1, which cannot be put back.
            previous[number] = signal.SIG_IGN if before is None else before
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
