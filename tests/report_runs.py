"""A small run for the tests of its page: a body with organs and foci at known places, on a turned grid."""

import numpy as np

from guided_diffusion.pet.geometry import above_cap
from guided_diffusion.pet.grid import Volume
from guided_diffusion.report.run_page import RunImages

VOXEL_MM = (4.0, 5.0, 3.0)
SHAPE = (44, 40, 60)  # towards the left, the front and the head
KEPT, LOST, NEW = (12, 22, 40), (28, 18, 15), (30, 20, 45)
AFFINE = np.array([[-4.0, 0, 0, 86], [0, 5.0, 0, -98], [0, 0, 3.0, -90], [0, 0, 0, 1]])


def body(seed: int, noise: float, *hot: tuple[int, int, int]) -> Volume:
    """Tissue of SUV 1 and a bladder of SUV 30 in air, with noise, and spots of 12 mm and SUV 6 about some voxels."""
    places = np.stack(np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij"), axis=-1)
    centred = (places - np.array(SHAPE) / 2) * VOXEL_MM
    data = (np.hypot(centred[..., 0] / 75, centred[..., 1] / 85) < 1).astype(np.float32)
    data[np.linalg.norm(centred + np.array([0, 0, 70]), axis=-1) < 12] = 30
    for voxel in hot:
        data[np.linalg.norm((places - voxel) * VOXEL_MM, axis=-1) < 6] = 6
    data *= 1 + noise * np.random.default_rng(seed).standard_normal(SHAPE)
    return Volume(np.maximum(data, 0).astype(np.float32), AFFINE, "SUV", {"format": "Nifti1", "suv": "taken as SUV"})


def run(realisations: int = 1) -> RunImages:
    """A noisy scan, what became of it, its uncertainty if there are several realisations, and a reference."""
    scan, denoised = body(0, 0.12, KEPT, LOST), body(1, 0.03, KEPT, NEW)
    uncertainty = Volume((0.03 * denoised.data + 0.01).astype(np.float32), AFFINE) if realisations > 1 else None
    return RunImages(scan, denoised, uncertainty, body(2, 0.05, KEPT, LOST))


def manifest(images: RunImages, realisations: int = 1) -> dict:
    """What `run.json` would hold, with names that a page must not show or must escape."""
    scan = images.scan
    return {
        "key": "0123",
        "input": {
            "name": "DOE^JANE_19501231.nii.gz",
            "sha256_of_voxels_and_affine": "abcdef0123456789",
            "shape": list(scan.data.shape),
            "voxel_mm": list(scan.voxel_mm),
            "unit": "SUV",
            "source": {
                "format": "DICOM",
                "suv": "<b>BQML</b>, decay from START",
                "suv_factor": [0.0002, 0.0003],
                "stored_units": "BQML",
                "suv_overrides": {"injection_time": "19501231081500", "weight_kg": 71.25},
                "notices": ["DOE_JANE_001.dcm is no image"],
            },
            "above_suv_max": above_cap(scan),
        },
        "checkpoint": {"name": "<script>alert(1)</script>.pt", "sha256": "fedcba9876543210"},
        "flags": {"base_samples": "/data/DOE^JANE/19501231", "above_cap": "keep", "injection_time": "19501231081500"},
        "settings": {
            "preset": "fast",
            "method": "ddpm3d",
            "preprocessing": {"suv_max": 16.0, "linear_transfer": False},
            "sampling": {"sampler": "ddim", "seed": 10, "realisations": realisations},
            "precision": "bfloat16",
        },
        "without_effect": ["dose_fraction", "sample"],
        "model_grid": {"shape": [44, 40, 60], "voxel_mm": [3.3, 3.3, 3.3], "cut_off_at_suv": None},
        "plan": {"length": 60, "patch_size": 32, "starts": [0, 28]},
        "nfe_per_patch_and_realisation": 1,
        "seconds": 12.34,
        "ranks": 2,
        "device": "cpu",
        "threads_per_rank": 1,
        "versions": {"python": "3.11.7", "mpi4py": None},
    }
