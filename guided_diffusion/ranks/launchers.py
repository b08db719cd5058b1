"""Recognising the launcher that started this process as one of several, by its environment variables.

A launcher is recognised if it states both a size and a rank as numbers. For MPI launchers, whose variables no other
program sets, the size suffices. Values that are empty, not numbers or incomplete are treated as leftovers.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Launch:
    """This process as a launcher counts it: number `rank` among `size`."""

    launcher: str
    size: int
    rank: int


# Launchers that start MPI programs: the variables of size and rank. The inner ones come first, since a batch system
# around them states its own numbers.
_MPI_LAUNCHERS = (
    ("Open MPI's mpirun", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
    ("MVAPICH's launcher", "MVP_COMM_WORLD_SIZE", "MVP_COMM_WORLD_RANK"),
    ("MVAPICH's launcher", "MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_RANK"),
    ("LSF's jsrun", "JSM_NAMESPACE_SIZE", "JSM_NAMESPACE_RANK"),
    ("Flux", "FLUX_JOB_SIZE", "FLUX_TASK_RANK"),
    ("an MPI launcher", "PMI_SIZE", "PMI_RANK"),  # MPICH, Intel MPI, Cray PALS, Slurm with PMI or PMI-2
    ("an MPI launcher", "PMI2_SIZE", "PMI2_RANK"),
)

# Launchers of other kinds of ranks.
_OTHER_LAUNCHERS = (
    ("torchrun or accelerate", "WORLD_SIZE", "RANK"),
    ("horovodrun", "HOROVOD_SIZE", "HOROVOD_RANK"),
)

_SLURM = ("Slurm", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID")

_OF_STEP = ("PMI_SIZE", "PMI2_SIZE", _SLURM[1])

# Launchers that give a rank without a size: only ranks after the first show that there are several.
_RANKS_ALONE = (
    ("a PMIx launcher", "PMIX_RANK"),
    ("Cray PALS", "PALS_RANKID"),
    ("Cray ALPS", "ALPS_APP_PE"),
)

# Set by Slurm in the shell that `srun --pty` opens, which is one process whatever the size of its step.
_SLURM_TERMINAL = "SLURM_PTY_PORT"


def launch(environment: Mapping[str, str]) -> Launch | None:
    """The launch of several processes that this one belongs to; None where it seems to be alone."""
    step = _stated(environment, *_SLURM)
    if step is not None and environment.get(_SLURM_TERMINAL):
        # Slurm's own PMI states the size of the step in this shell too.
        of_step = {name for name in _OF_STEP if environment.get(name) == str(step.size)}
        environment = {name: value for name, value in environment.items() if name not in of_step}
    for launcher in _MPI_LAUNCHERS:
        if (found := _stated(environment, *launcher, only_rank=0)) is not None:
            # One MPI rank, whatever a batch system around it says; but torchrun may have started it several times.
            return found if found.size > 1 else _several(environment, _OTHER_LAUNCHERS)
    return _several(environment, (*_OTHER_LAUNCHERS, _SLURM)) or _by_rank_alone(environment)


def may_be_a_rank(environment: Mapping[str, str]) -> bool:
    """Whether some launcher, one that is not known here too, may have started this process, alone or with others.

    Rank 0 of several does not differ from a process that is alone where only the rank is stated, as by PMIx.
    """
    of_ranks = {name for _, name in _RANKS_ALONE}
    stated = [name for name in environment if _number(environment, name) is not None]
    return launch(environment) is not None or any("RANK" in name or name in of_ranks for name in stated)


def ranks_of_mpich(environment: Mapping[str, str]) -> int:
    """The ranks on this node that MPICH's own launcher, or Intel's, says it has started; 0 if it started none."""
    return _number(environment, "MPI_LOCALNRANKS") or 0 if environment.get("PMI_RANK") else 0


def how_to_start(found: Launch) -> str:
    """Advice for starting processes so that they form one group, where those of a launch cannot."""
    if any(found.launcher == launcher for launcher, *_ in _OTHER_LAUNCHERS):
        return f"ranks are those of MPI here: mpiexec -n {found.size} python SCRIPT starts them"
    if found.launcher == _SLURM[0]:
        return (
            "start ranks with mpiexec, or with srun --mpi=TYPE for a type of `srun --mpi=list` that the MPI library"
            f" knows; for one rank in an interactive shell of that step, unset {_SLURM[1]}"
        )
    return "use the launcher of the MPI library that mpi4py is installed against"


def _stated(
    environment: Mapping[str, str], launcher: str, size: str, rank: str, only_rank: int | None = None
) -> Launch | None:
    """The launch that a launcher's variables state, None if none; only_rank: the rank where they do not name one."""
    processes, own = _number(environment, size), _number(environment, rank)
    own = only_rank if own is None else own
    return None if processes is None or own is None else Launch(launcher, processes, own)


def _several(environment: Mapping[str, str], launchers: tuple[tuple[str, str, str], ...]) -> Launch | None:
    launches = [_stated(environment, *launcher) for launcher in launchers]
    return next((found for found in launches if found is not None and found.size > 1), None)


def _by_rank_alone(environment: Mapping[str, str]) -> Launch | None:
    for launcher, name in _RANKS_ALONE:
        rank = _number(environment, name)
        if rank:
            return Launch(launcher, rank + 1, rank)
    return None


def _number(environment: Mapping[str, str], name: str) -> int | None:
    text = environment.get(name, "")
    return int(text) if text.isascii() and text.isdecimal() else None
