"""Denoise low-dose PET volumes with a trained model, on one rank or over MPI ranks.

    python scripts/test.py --base_samples scan.nii.gz --save_dir out
    mpiexec -n 4 python scripts/test.py --base_samples scan.nii.gz --model_path checkpoint/demo_ddpm3d.pt --save_dir out

Input: a published .npz, a NIfTI file, a folder with a DICOM PET series, or a folder of such subjects.
Output: samples_<X>x<Y>x<Z>.npz (SUV/16 on the model's grid), denoised.nii.gz (SUV on the input's grid), run.json.
"""

from guided_diffusion.commands.denoise import denoise_subjects
from guided_diffusion.commands.denoise_flags import create_parser
from guided_diffusion.dist_util import run_main

if __name__ == "__main__":
    run_main(lambda: denoise_subjects(create_parser(__doc__)))
