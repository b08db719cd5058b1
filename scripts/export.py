"""Write the weights of a training checkpoint with their header in float16, half the size, for distribution.

python scripts/export.py --preset demo --checkpoint runs/demo/ema_0.995_best.pt --out checkpoint/demo_ddpm3d.pt
"""

from guided_diffusion.commands.export import create_parser, export
from guided_diffusion.dist_util import on_root, run_main

if __name__ == "__main__":
    run_main(lambda: on_root(export, create_parser(__doc__)))
