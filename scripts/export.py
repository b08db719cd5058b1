"""Write the weights of a checkpoint with its header in float16, half the size, to be shipped.

python scripts/export.py --preset demo --checkpoint runs/demo/ema_0.995_best.pt --out checkpoint/demo_ddpm3d.pt
"""

from pathlib import Path

from guided_diffusion.commands.export import export_half
from guided_diffusion.config.parser import Parser
from guided_diffusion.dist_util import run_main


def main() -> None:
    """Export one checkpoint."""
    parser = Parser(__doc__)
    parser.add_argument("--checkpoint", required=True, help="an ema_<rate>_######.pt or model######.pt of training")
    parser.add_argument("--out", type=Path, required=True, help="the file to write")
    parser.add_argument("--preset", choices=("demo",), help="recommend this preset's patches and sampler")
    arguments = parser.parse_args()
    change = export_half(arguments.checkpoint, arguments.out, recommend_demo=arguments.preset == "demo")
    print(f"wrote {arguments.out}; weights changed by at most {change:.1e} of the largest of their tensor")


if __name__ == "__main__":
    run_main(main)
