"""Shortened diffusion processes: which original timesteps they keep, and their betas."""

import numpy as np

from guided_diffusion.errors import InputError


def kept_timesteps(alphas_cumprod: np.ndarray, respacing: str, start_step: int | None = None) -> list[int]:
    """The original timesteps, ascending, to use in sampling from a process with these cumulative products.

    respacing: as in `space_timesteps`, or "logsnrN": N timesteps from 0 to the start, evenly spaced in the logarithm of
    the signal-to-noise ratio. start_step: timesteps above it are left out; None: the last. Raises InputError for a
    string or a start that does not fit the process.
    """
    num_timesteps = len(alphas_cumprod)
    last = num_timesteps - 1 if start_step is None else start_step
    if not 0 <= last < num_timesteps:
        raise InputError(f"--start_step {start_step}: not a timestep of 0 to {num_timesteps - 1}")
    if not respacing.startswith("logsnr"):
        return [step for step in space_timesteps(num_timesteps, respacing) if step <= last]
    count = respacing.removeprefix("logsnr")
    if not count.isdecimal() or not 1 <= int(count) <= last + 1:
        raise InputError(f"--timestep_respacing {respacing!r}: 'logsnrN' takes N from 1 to the {last + 1} timesteps")
    return _even_in_log_snr(alphas_cumprod[: last + 1], int(count))


def half_log_snr(alphas_cumprod: np.ndarray) -> np.ndarray:
    """log(alpha / sigma), the lambda of DPM-Solver; it falls with the timestep."""
    return 0.5 * (np.log(alphas_cumprod) - np.log1p(-alphas_cumprod))


def _even_in_log_snr(alphas_cumprod: np.ndarray, count: int) -> list[int]:
    """`count` timesteps from the first to the last, or the last alone, as evenly spaced as different ones can be."""
    rising = half_log_snr(alphas_cumprod)[::-1]
    wanted = np.linspace(rising[0], rising[-1], count)[::-1]
    nearest = np.rint(np.interp(wanted, rising, np.arange(len(rising))[::-1])).astype(int)
    # At the noiseless end several may be nearest to the same timestep: they move up to the next ones that are free.
    place = np.arange(count)
    different = np.maximum.accumulate(nearest - place) + place
    return np.minimum(different, len(rising) - count + place).tolist()


def space_timesteps(num_timesteps: int, respacing: str) -> list[int]:
    """The original timesteps, ascending, that `respacing` keeps.

    "" keeps all. "ddimN" keeps N at an integer stride from 0. A comma list divides the process into as many sections of
    (almost) equal length and keeps the given number in each, evenly spaced from its first to its last. Raises
    InputError for a string that does not fit the process.
    """
    if not respacing:
        return list(range(num_timesteps))
    try:
        if respacing.startswith("ddim"):
            return _one_stride(num_timesteps, int(respacing.removeprefix("ddim")))
        counts = [int(count) for count in respacing.split(",")]
    except ValueError:
        raise InputError(
            f"--timestep_respacing {respacing!r} is neither 'ddimN' nor 'logsnrN' nor a comma list of step counts"
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
