"""The whole pipeline in one command: simulate a patient at 1/20 of the dose, denoise it on two ranks, evaluate it.

    python scripts/demo.py --out_dir results/demo

It runs the commands that a user would type, and prints them.
"""

from evaluation.demo import create_parser, run_demo
from guided_diffusion.dist_util import run_main

if __name__ == "__main__":
    run_main(lambda: run_demo(create_parser(__doc__)))
