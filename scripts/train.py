"""Train a model on pairs of low-dose and normal-dose volumes.

    python scripts/train.py --preset demo --data_dir data/trial --save_dir runs/demo --max_minutes 60

The same command continues a run that was stopped.
"""

from guided_diffusion.commands.train import create_parser, train
from guided_diffusion.dist_util import run_main

if __name__ == "__main__":
    run_main(lambda: train(create_parser(__doc__)))
