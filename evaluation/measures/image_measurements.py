"""Every number of one image of an examination that can be taken with what is known of it."""

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from evaluation.measures import image_fidelity
from evaluation.measures.examination import Examination, MeasuredImage
from evaluation.measures.measurement import Measurement
from evaluation.measures.uptake import bias_percent, total_uptake
from guided_diffusion.pet.image_quality import SSIM_WINDOW

VOLUME = "volume"

FIDELITY = {
    "psnr": image_fidelity.psnr,
    "ssim": image_fidelity.ssim,
    "nrmse": image_fidelity.nrmse,
    "nmae": image_fidelity.nmae,
}

UPTAKE: Mapping[str, Callable[[MeasuredImage, np.ndarray], float]] = {
    "suv_mean": lambda image, region: float(image.data[region].mean(dtype=float)),
    "suv_max": lambda image, region: float(image.data[region].max()),
    "suv_peak": lambda image, region: float(image.contrast.peak[region].max()),
    "total_uptake": lambda image, region: total_uptake(image.data, region, image.voxel_mm),
}


def measure(examination: Examination, image: np.ndarray) -> list[Measurement]:
    """The numbers of an image, float32 [X, Y, Z] in SUV on the examination's grid, not clipped.

    What needs a reference, labels or a size that are not there is not in the list. Raises InputError where the image
    has another shape than a reference or a voxel that is not finite.
    """
    measured = MeasuredImage(image, examination.voxel_mm)
    steps = (_fidelity, _uptake)
    return [number for step in steps for number in step(examination, measured) if np.isfinite(number.value)]


def _fidelity(examination: Examination, image: MeasuredImage) -> Iterator[Measurement]:
    for name, reference in examination.references.items():
        if name == "normal" and examination.is_normal_dose:
            continue
        for metric, closeness in FIDELITY.items():
            if metric == "ssim" and min(image.data.shape) < SSIM_WINDOW:
                continue
            yield Measurement(f"{metric}_{name}", VOLUME, closeness(reference.clipped, image.clipped))
        if name == "normal":
            peak = float(reference.data.max())
            yield Measurement("psnr_published", VOLUME, image_fidelity.psnr(reference.clipped, image.clipped, peak))


def _uptake(examination: Examination, image: MeasuredImage) -> Iterator[Measurement]:
    """SUV of organs and lesions and its biases; total uptake of lesions only."""
    for region, voxels in {**examination.organs, **examination.lesions}.items():
        for metric, read in UPTAKE.items():
            if metric == "total_uptake" and region in examination.organs:
                continue
            value = read(image, voxels)
            yield Measurement(metric, region, value)
            for name, reference in examination.references.items():
                expected = read(reference, voxels)
                if expected > 0:
                    yield Measurement(f"{metric}_bias_{name}", region, bias_percent(value, expected))
