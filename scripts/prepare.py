"""Resample any PET image (DICOM series, NIfTI, .npz, .mat ...) to the model's grid in SUV, or describe it.

python scripts/prepare.py --input SERIES_FOLDER --info
python scripts/prepare.py --input SERIES_FOLDER --output subject.npz
python scripts/prepare.py --input LOW_DOSE --normal_dose NORMAL_DOSE --output pair.npz     (for training)
"""

from guided_diffusion.commands.prepare import create_parser, prepare_image
from guided_diffusion.dist_util import on_root, run_main

if __name__ == "__main__":
    run_main(lambda: on_root(prepare_image, create_parser(__doc__)))
