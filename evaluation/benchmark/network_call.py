"""Section `network`: one network call in plain float32 PyTorch and in the form used for inference."""

import time
from typing import Any

import torch

from evaluation.benchmark import measured_networks
from evaluation.benchmark.measured_networks import COMPILED, EAGER, EXACT, FAST, REDUCED, VARIANTS, Size
from evaluation.benchmark.peak_memory import peak_mebibytes
from evaluation.benchmark.section import Section
from evaluation.benchmark.timing import alternate
from guided_diffusion.fast.compiled import compiler, has_compiler
from guided_diffusion.fast.layers import LAYOUT, FastConv
from guided_diffusion.machine.memory import keep_freed_memory

NAMES = {"ratio_fast": FAST, "ratio_float32": EXACT, "ratio_compiled": COMPILED}
_MAIN = next(iter(measured_networks.CONFIGS))


def measure_network(rounds: int, size: Size = (96, 64, 64)) -> Section:
    """The section for patches [Z, X, Y] of `size`; its ratios are those of the first network.

    Every variant has the memory allocator as it comes. At the end the plain network gets what `scripts/test.py` gives
    its process, freed memory that is kept for reuse, from which it gains more than the fast one; both ratios are given.
    """
    precisions = dict.fromkeys((torch.float32, REDUCED))
    peaks = {str(dtype).removeprefix("torch."): convolution_peak(dtype) for dtype in precisions}
    measured = {network: _measure(network, rounds, size, peaks) for network in measured_networks.CONFIGS}
    values = {name: measured[_MAIN][name] for name in (*NAMES, "memory_ratio") if name in measured[_MAIN]}
    values |= {"size": size, "threads": torch.get_num_threads(), "convolution_peak": peaks, "networks": measured}
    rows = [row for network in measured for row in _rows(network, measured[network])]
    values["ratio_fast_freed_memory_kept"] = kept = _ratio_with_freed_memory_kept(rounds, size)
    header = ("network", "variant", "seconds: median (range)", "GFLOP/s", "of peak", "faster")
    return Section(
        name="network",
        title=f"One network call on a patch of {' x '.join(map(str, size))} (Z x X x Y)",
        values=values,
        header=(*header, "peak memory (MiB)") if "memory_ratio" in values else header,
        rows=rows,
        notes=_notes(rounds, kept, peaks, values),
    )


def _notes(rounds: int, kept: float, peaks: dict[str, float], values: dict[str, Any]) -> str:
    """Notes on reading the table, and on what this machine could not measure."""
    memory = "with weights, of one call in a process of its own" if "memory_ratio" in values else "only under Linux"
    compiled = "" if "ratio_compiled" in values else f" Compiled norms: not without a C++ compiler ({compiler()})."
    return (
        f"{rounds} rounds in alternation on {torch.get_num_threads()} thread(s), with the C library's allocator as it"
        f" comes. With freed memory kept, as `scripts/test.py` has it kept, float32 eager gains most, and {FAST}"
        f" is {kept:.2f} times faster ({_MAIN}). GFLOP/s count the plain network's operations, of which the fast one"
        " needs fewer. Peak: a single convolution of 64 channels in the same precision"
        f" ({', '.join(f'{peak:.0f} GFLOP/s in {name}' for name, peak in peaks.items())}). Memory:"
        f" {memory}.{compiled}"
    )


def _ratio_with_freed_memory_kept(rounds: int, size: Size) -> float:
    """Of the first network's fast form to float32 eager. From here on this process keeps what it frees."""
    keep_freed_memory()
    plain = measured_networks.build(_MAIN)
    timings = alternate(
        {name: measured_networks.one_call(VARIANTS[name](plain), size) for name in (EAGER, FAST)}, rounds
    )
    return timings[FAST].ratio_to(timings[EAGER])


def convolution_peak(dtype: torch.dtype) -> float:
    """GFLOP/s of the fastest of several convolutions of 64 to 64 channels."""
    size, channels = (32, 32, 32), 64
    x = torch.randn(1, channels, *size).to(dtype).contiguous(memory_format=LAYOUT)
    weight = torch.randn(channels, channels, 3, 3, 3).to(dtype)
    conv = FastConv(weight, None, (1, 1, 1), (1, 1, 1))
    timing = alternate({"conv": lambda: conv(x)}, rounds=5)["conv"]
    return 2 * weight.numel() * x[0, 0].numel() / min(timing.wall) / 1e9


def _measure(network: str, rounds: int, size: Size, peaks: dict[str, float]) -> dict[str, Any]:
    """All numbers of one network."""
    plain = measured_networks.build(network)
    names = {name: variant for name, variant in NAMES.items() if name != "ratio_compiled" or has_compiler()}
    chosen = (variant for variant in VARIANTS if variant in (EAGER, *names.values()))
    calls = {variant: measured_networks.one_call(VARIANTS[variant](plain), size) for variant in chosen}
    first_seconds = {}
    if "ratio_compiled" in names:
        began = time.perf_counter()
        calls[COMPILED]()
        first_seconds = {"first_compiled_call_seconds": time.perf_counter() - began}
    expected, exact = calls[EAGER](), calls[EXACT]()
    timings = alternate(calls, rounds)
    work = measured_networks.gigaflop(*measured_networks.CONFIGS[network], size)
    variants = {}
    for variant, timing in timings.items():
        rate = work / timing.as_dict()["seconds"]
        variants[variant] = timing.as_dict() | {
            "gflops": rate,
            "share_of_peak": rate / peaks[variant.split()[0]],
            "ratio": timing.ratio_to(timings[EAGER]),
            "cpu_ratio": timing.cpu_ratio_to(timings[EAGER]),
            "text": timing.text(),
        }
    return {
        "gigaflop": work,
        "variants": variants,
        **_memory(network, size),
        "largest_float32_difference": float((exact - expected).abs().max()),
        **first_seconds,
        **{name: variants[variant]["ratio"] for name, variant in names.items()},
    }


def _memory(network: str, size: Size) -> dict[str, Any]:
    """Peak memory of the variants that are not compiled; nothing where the system does not report it."""
    peaks = {variant: peak_mebibytes(network, variant, size) for variant in dict.fromkeys((EAGER, FAST, EXACT))}
    if None in peaks.values():
        return {}
    return {"memory_mebibytes": peaks, "memory_ratio": peaks[FAST] / peaks[EAGER]}


def _rows(network: str, measured: dict[str, Any]) -> list[tuple[str, ...]]:
    """The table's lines of one network."""
    rows = []
    for variant, values in measured["variants"].items():
        memory = measured.get("memory_mebibytes", {})
        peak = (f"{memory[variant]:.0f}" if variant in memory else "",) if memory else ()
        rows.append(
            (
                f"{network}, {measured['gigaflop']:.0f} GFLOP",
                variant,
                values["text"],
                f"{values['gflops']:.0f}",
                f"{values['share_of_peak']:.0%}",
                f"{values['ratio']:.2f} x",
                *peak,
            )
        )
    return rows
