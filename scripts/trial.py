"""Compare all weights of a folder on a virtual trial: simulate, denoise, measure, draw. Finished steps are skipped.

    python scripts/trial.py --out_dir results/trial
    python scripts/trial.py --out_dir results/trial --size full

It runs the commands that a user would type, and prints them.
"""

from evaluation.weights_trial import create_parser, run_trial
from guided_diffusion.dist_util import run_main

if __name__ == "__main__":
    run_main(lambda: run_trial(create_parser(__doc__)))
