"""Which of the original timesteps a shortened process keeps, and its betas."""

import numpy as np

from guided_diffusion.errors import InputError


def space_timesteps(num_timesteps: int, respacing: str) -> list[int]:
    """The original timesteps, ascending, that `respacing` keeps.

    "" keeps all. "ddimN" keeps N at one integer stride from 0. A comma list divides the process into that many
    sections of (almost) equal length and keeps the given count of each, evenly spaced from its first to its last.
    Raises InputError for a string that does not fit the process.
    """
    if not respacing:
        return list(range(num_timesteps))
    try:
        if respacing.startswith("ddim"):
            return _one_stride(num_timesteps, int(respacing.removeprefix("ddim")))
        counts = [int(count) for count in respacing.split(",")]
    except ValueError:
        raise InputError(
            f"--timestep_respacing {respacing!r} is neither 'ddimN' nor a comma list of step counts"
        ) from None
    sections = np.array_split(np.arange(num_timesteps), len(counts))
    return [
        step for section, count in zip(sections, counts, strict=True) for step in _spread(section, count, respacing)
    ]


def _one_stride(num_timesteps: int, wanted: int) -> list[int]:
    """Exactly `wanted` timesteps at an integer stride, if there is such a stride."""
    for stride in range(1, num_timesteps + 1):
        steps = range(0, num_timesteps, stride)
        if len(steps) == wanted:
            return list(steps)
    raise InputError(f"--timestep_respacing ddim{wanted}: no integer stride through {num_timesteps} gives that")


def _spread(section: np.ndarray, count: int, respacing: str) -> list[int]:
    """`count` timesteps from the first to the last of a section, rounded half to even."""
    if not 1 <= count <= len(section):
        raise InputError(f"--timestep_respacing {respacing!r} asks for {count} of a section's {len(section)} timesteps")
    stride = (len(section) - 1) / (count - 1) if count > 1 else 1.0
    offset = 0.0
    steps = []
    for _ in range(count):
        steps.append(int(section[0]) + round(offset))
        offset += stride
    return steps


def spaced_betas(alphas_cumprod: np.ndarray, kept: list[int]) -> np.ndarray:
    """Betas (float64) under which the shortened process has the original cumulative products at the kept timesteps."""
    products = np.concatenate([[1.0], alphas_cumprod[kept]])
    return 1.0 - products[1:] / products[:-1]
