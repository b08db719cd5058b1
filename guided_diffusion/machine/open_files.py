"""How many files this process may have open at a time."""

import sys

from guided_diffusion.errors import InputError

# Besides those that are asked for: libraries, pipes, checkpoints, what runs beside.
MARGIN = 256


def allow_open_files(count: int) -> None:
    """Raise this process's limit so that `count` more files can be open, as far as the system allows.

    Raises:
        InputError: it does not allow so many.
    """
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = count + MARGIN
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise InputError(
            f"{count} files are needed at a time, but the system allows {hard}: raise its limit (ulimit -Hn), or use"
            " fewer pairs"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
