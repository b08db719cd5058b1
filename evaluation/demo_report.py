"""The report of the demo: the effect of denoising as numbers and as one picture."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from evaluation.best_gaussian import best_gaussian
from evaluation.measures.image_fidelity import clip_suv, psnr, ssim
from evaluation.mip_pictures import save_coronal_mips
from guided_diffusion.files import writable_folder, write_text

Metrics = dict[str, dict[str, float]]


def compare(
    low_dose: np.ndarray, denoised: np.ndarray, normal_dose: np.ndarray, voxel_size: Sequence[float]
) -> Metrics:
    """PSNR (dB, peak 16) and SSIM against `normal_dose`, for volumes [X, Y, Z] in SUV and `voxel_size` in mm.

    All volumes are clipped to [0, 16] first, as for the network. `gaussian_best` is the Gaussian filter of the
    low dose that has the best PSNR on this very subject. Raises InputError where the volumes can't be compared.
    """
    low_dose, denoised, normal_dose = clip_suv(low_dose), clip_suv(denoised), clip_suv(normal_dose)
    filtered, sigma_mm = best_gaussian(low_dose, normal_dose, voxel_size)

    def scores(image: np.ndarray) -> dict[str, float]:
        return {"psnr": psnr(normal_dose, image), "ssim": ssim(normal_dose, image)}

    return {
        "low_dose": scores(low_dose),
        "gaussian_best": {**scores(filtered), "sigma_mm": sigma_mm},
        "denoised": scores(denoised),
    }


def format_table(metrics: Metrics) -> str:
    names = {
        "low_dose": "low dose",
        "gaussian_best": f"best Gaussian (sigma {metrics['gaussian_best']['sigma_mm']:.1f} mm)",
        "denoised": "denoised",
    }
    width = max(map(len, names.values()))
    rows = [f"{name:{width}}  {metrics[key]['psnr']:9.2f}  {metrics[key]['ssim']:6.4f}" for key, name in names.items()]
    return "\n".join([f"{'':{width}}  PSNR (dB)    SSIM", *rows])


def write_demo_report(
    low_dose: np.ndarray,
    denoised: np.ndarray,
    normal_dose: np.ndarray,
    voxel_size: Sequence[float],
    out_dir: Path,
) -> Metrics:
    """Print the table of `compare` and write `metrics.json` and `coronal_mips.png` into the folder `out_dir`.

    Volumes are [X, Y, Z] in SUV with the axes that `report.projections` names. Raises InputError where the volumes
    can't be compared or `out_dir` can't be written.
    """
    writable_folder(out_dir)
    metrics = compare(low_dose, denoised, normal_dose, voxel_size)
    print(format_table(metrics))
    write_text(out_dir / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    save_coronal_mips(
        out_dir / "coronal_mips.png",
        {"low dose": low_dose, "denoised": denoised, "normal dose": normal_dose},
        voxel_size,
    )
    return metrics
