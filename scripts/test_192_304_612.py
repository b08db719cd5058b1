"""`scripts/test.py` for volumes of 192 x 304 x 612 voxels, for which the published implementation had its own script.

No image size needs its own script here, since the patches are planned from the volume. This one is kept as an example
of how to fix flags for your own scanner. 612 slices take the 7 patches that `--num_samples` checks.

    mpiexec -n 7 python scripts/test_192_304_612.py --base_samples subject.npz --model_path model.pt --save_dir out
"""

from guided_diffusion.commands.denoise import denoise_subjects
from guided_diffusion.commands.denoise_flags import create_parser
from guided_diffusion.dist_util import run_main

if __name__ == "__main__":
    parser = create_parser(__doc__)
    parser.set_defaults(num_samples=7, patch_size=96, overlap=10)
    run_main(lambda: denoise_subjects(parser))
