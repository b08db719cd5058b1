"""Make a virtual PET trial: patients, scanners, tracers and doses. Runs alone or under mpiexec.

mpiexec -n 2 python scripts/simulate.py --preset demo --subjects 8 --seed 1 --out data/trial
"""

from guided_diffusion.commands.simulate import create_parser, simulate_trial
from guided_diffusion.dist_util import run_main

if __name__ == "__main__":
    run_main(lambda: simulate_trial(create_parser(__doc__)))
