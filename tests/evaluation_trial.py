"""A small hand-made trial in the layout of scripts/simulate.py, with organs and a lesion whose uptake is known."""

import csv

import nibabel as nib
import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from guided_diffusion.checkpoints import save_checkpoint
from guided_diffusion.config import DiffusionConfig, Header, ModelConfig, PreprocessingConfig, SamplerConfig
from guided_diffusion.pet.trial_manifest import MANIFEST_COLUMNS

VOXEL_MM = 4.0
AFFINE = np.diag([VOXEL_MM, VOXEL_MM, VOXEL_MM, 1.0])
SHAPE = (32, 32, 32)
LIVER, LUNG, LESION, SMALL_LESION = np.s_[2:16, 2:16, 2:16], np.s_[18:30, 2:14, 2:14], np.s_[4:10, 20:26, 20:26], 101
LABEL = {"liver": 21, "lung": 4, "lesion": 100}


def regions() -> np.ndarray:
    """Labels [X, Y, Z]: liver, lung, a lesion of 24 mm and one of two voxels."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[LIVER], labels[LUNG], labels[LESION] = LABEL["liver"], LABEL["lung"], LABEL["lesion"]
    labels[26, 26, 26:28] = SMALL_LESION
    return labels


def activity() -> np.ndarray:
    """SUV of the regions: liver 2, lung 0.5, lesion 10, elsewhere 1."""
    truth = np.ones(SHAPE, np.float32)
    truth[LIVER], truth[LUNG], truth[LESION] = 2, 0.5, 10
    return truth


def save(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, AFFINE), path)


def write_trial(folder, split, subjects=2, doses=(1.0, 0.05), seed=0):
    """NIfTI files and manifest; noise of 0.2 SUV at normal dose, times sqrt(1/dose) at lower doses."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(subjects):
        own = folder / f"sub-{number:04d}"
        normal = activity() + 0.2 * rng.standard_normal(SHAPE).astype(np.float32)
        save(own / "normal_dose.nii.gz", normal)
        save(own / "truth.nii.gz", activity())
        save(own / "labels.nii.gz", regions())
        for dose in doses:
            tag = "1" if dose == 1 else f"1-{round(1 / dose)}"
            extra = 0.2 * np.sqrt(1 / dose - 1) * rng.standard_normal(SHAPE)
            save(own / f"low_dose_{tag}.nii.gz", (normal + extra).astype(np.float32))
            row = dict.fromkeys(MANIFEST_COLUMNS, "") | {
                "subject": own.name, "seed": number, "tracer": ("fdg", "psma")[number % 2], "scanner": "mct",
                "dose": dose, "split": split, "voxel_mm": VOXEL_MM, "low_dose": f"{own.name}/low_dose_{tag}.nii.gz",
            }  # fmt: skip
            rows.append(row | {kind: f"{own.name}/{kind}.nii.gz" for kind in ("normal_dose", "truth", "labels")})
    with open(folder / "manifest.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, MANIFEST_COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def write_results(trial, out, denoise=lambda low: gaussian_filter(low, 1)):
    """What scripts/test.py would leave in `out`, made by `denoise` from every low dose."""
    for low in trial.glob("*/low_dose_*.nii.gz"):
        name = low.relative_to(trial).parent / low.name.removesuffix(".nii.gz")
        save(out / name / "denoised.nii.gz", denoise(nib.load(low).get_fdata(dtype=np.float32)))


def write_weights(path, method):
    """A file of weights of which only the header makes sense."""
    header = Header(method, ModelConfig(), DiffusionConfig(), PreprocessingConfig(), SamplerConfig(), {})
    save_checkpoint(path, {"weight": torch.zeros(1)}, header)
