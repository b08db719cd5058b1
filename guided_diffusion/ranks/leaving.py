"""Ending a run: every script's `main` runs in `run_main`, which ends all ranks together and prints the reason."""

import io
import os
import select
import sys
import time
from collections.abc import Callable
from typing import NoReturn

from guided_diffusion.errors import InputError, refused_path
from guided_diffusion.ranks.communicator import LaunchError, communicator, meet
from guided_diffusion.ranks.failing_together import SharedError, SharedFailure, report_failure

# Exit codes of a process that was interrupted, and of one whose output nobody reads any more, as shells have them.
INTERRUPTED, READER_GONE = 130, 141
_LEAVING_SECONDS = 3  # time for the first of several processes without MPI to print its line


def run_main(main: Callable[[], None]) -> None:
    """Run a script's `main` and end all ranks together.

    Exit code 2 and one line for an InputError, 1 and a traceback for a failure of the program, 130 for an interrupt,
    141 and nothing where the reader of the output has gone, as `head` does. A name that the terminal cannot show, as of
    a folder in Latin-1, is printed with escapes.
    """
    _prepare_streams()
    try:
        main()
        meet()
    except SystemExit:
        raise
    except SharedError as error:
        if communicator().rank == 0:
            print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(2)
    except SharedFailure as error:
        if communicator().rank == 0:
            print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(1)
    except BaseException as error:
        end_all(error)


def _prepare_streams() -> None:
    """Names that the terminal cannot show get escapes; what is written to a stream that was closed goes nowhere."""
    if sys.stdout is None or sys.stderr is None:
        nowhere = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
        sys.stdout, sys.stderr = sys.stdout or nowhere, sys.stderr or nowhere
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def end_all(error: BaseException) -> NoReturn:
    """Say why this rank cannot go on, and end with it all others, which may be waiting for it."""
    if isinstance(error, LaunchError) and error.rank:
        time.sleep(_LEAVING_SECONDS)  # launchers end all processes with the first that leaves
        sys.exit(2)
    if isinstance(error, KeyboardInterrupt):
        print("interrupted", file=sys.stderr, flush=True)
        _leave(INTERRUPTED)
    if isinstance(error, BrokenPipeError) and _reader_has_gone():
        _leave(READER_GONE)
    error = refused_path(error) or error
    message = str(error) if isinstance(error, InputError) else report_failure(error)
    print(f"error: {message}", file=sys.stderr, flush=True)
    _leave(2 if isinstance(error, InputError) else 1)


def _reader_has_gone() -> bool:
    """Whether stdout is a pipe without a reader; if so, what is left for it goes nowhere."""
    descriptor = sys.stdout.fileno()
    poll = select.poll()
    poll.register(descriptor, 0)
    gone = any(event & select.POLLERR for _, event in poll.poll(0))
    if gone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
    return gone


def abort(code: int) -> NoReturn:
    """End this process and all ranks at once, from whichever thread."""
    comm = communicator()
    if comm.size > 1:
        comm.Abort(code)
    os._exit(code)


def _leave(code: int) -> NoReturn:
    """Exit, and end the other ranks too, which may be waiting for this one."""
    try:
        comm = communicator()
    except InputError:
        sys.exit(code)
    if comm.size > 1:
        sys.stderr.flush()
        abort(code)
    sys.exit(code)
