"""An error on one rank is raised on every rank, so that none waits for a rank that has ended.

All ranks exit with the same code, and one line is printed.
"""

import traceback
from collections.abc import Callable
from typing import Any, TypeVar

from guided_diffusion.errors import Failure, InputError, refused_path
from guided_diffusion.ranks.communicator import communicator, meet

T = TypeVar("T")


class SharedError(InputError):
    """An InputError that every rank raises, so that none waits for a rank that has ended."""


class SharedFailure(Failure):
    """A Failure that every rank raises; where the program is to blame, its traceback has been printed."""


def on_root(function: Callable[..., T], *args: Any, **kwargs: Any) -> T | None:
    """Run `function` on rank 0 only and return its result there, None elsewhere.

    Its InputError, and the SystemExit of `--help`, is raised on every rank; anything else as a SharedFailure. A broken
    pipe is raised on rank 0 alone: where it is stdout's, `run_main` ends all ranks without a line.
    """
    comm = communicator()
    result, message, failure, exit_code = None, None, None, None
    if comm.rank == 0:
        try:
            result = function(*args, **kwargs)
        except InputError as error:
            message = str(error)
        except SystemExit as stop:
            exit_code = stop.code or 0
        except BrokenPipeError:
            raise
        except Exception as error:
            if (refused := refused_path(error)) is not None:
                message = str(refused)
            else:
                failure = report_failure(error)
    meet()
    message, failure, exit_code = comm.bcast((message, failure, exit_code))
    if message is not None:
        raise SharedError(message)
    if failure is not None:
        raise SharedFailure(failure)
    if exit_code is not None:
        raise SystemExit(exit_code)
    return result


def report_failure(error: BaseException) -> str:
    """Prints the traceback of a failure, unless the user can correct it, and returns one line about it."""
    if isinstance(error, Failure):
        return str(error)
    if isinstance(error, MemoryError):
        return f"not enough memory ({error})"
    traceback.print_exception(error)
    return f"{type(error).__name__}: {error}"


def as_shared(error: Exception) -> Exception:
    """What every rank raises instead: a SharedError or SharedFailure; with one rank, the exception itself."""
    if communicator().size == 1 or isinstance(error, SharedError | SharedFailure):
        return error
    return SharedError(str(error)) if isinstance(error, InputError) else SharedFailure(report_failure(error))


def raise_together(mistake: InputError | None) -> None:
    """Raise the first error among the ranks, if any, on every rank. All ranks must call this."""
    meet()
    messages = [message for message in communicator().allgather(mistake and str(mistake)) if message]
    if messages:
        raise SharedError(messages[0])


def root_first(function: Callable[..., T], *args: Any) -> T:
    """Run `function` on rank 0 and then, if it raised nothing there, on every other rank."""
    result = on_root(function, *args)
    return result if communicator().rank == 0 else function(*args)
