"""Ending a run on a signal."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from guided_diffusion import logger


class Stop:
    """Whether this process was asked to end its run."""

    asked = False


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Within the block, the first interrupt or termination signal requests a stop; a second one enforces it."""
    stop = Stop()

    def ask(number: int, _frame: object) -> None:
        stop.asked = True
        logger.log(f"{signal.Signals(number).name}: ending after this step")
        signal.signal(number, previous[number])

    previous = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
