"""Measure what denoising costs on this machine, side by side with plain PyTorch and with the published protocol.

    python scripts/benchmark.py --quick --json benchmark.json --markdown benchmark.md

Leave the machine idle meanwhile.
"""

from evaluation.benchmark.command import create_parser, run_benchmark
from guided_diffusion.dist_util import run_main

if __name__ == "__main__":
    run_main(lambda: run_benchmark(create_parser(__doc__)))
