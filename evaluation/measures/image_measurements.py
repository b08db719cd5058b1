"""All metrics of one image that an examination's references and labels allow."""

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from evaluation.measures import image_fidelity
from evaluation.measures.examination import Examination, MeasuredImage
from evaluation.measures.lesion_contrast import contrast_recovery, contrast_to_noise
from evaluation.measures.measurement import Measurement
from evaluation.measures.organ_noise import coefficient_of_variation, correlation_fwhm
from evaluation.measures.patch_seams import seam_index
from evaluation.measures.uptake import bias_percent, total_uptake
from guided_diffusion.pet.foci import foci
from guided_diffusion.pet.image_quality import SSIM_WINDOW
from guided_diffusion.pet.patches import PatchPlan
from guided_diffusion.pet.uniform_tissue import sphere_statistics

VOLUME, UNIFORM_SPHERES = "volume", "uniform_spheres"

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


def measure(examination: Examination, image: np.ndarray, plan: PatchPlan | None = None) -> list[Measurement]:
    """The metrics of an image, float32 [X, Y, Z] in SUV on the examination's grid, not clipped.

    plan: the patches along Z from which the image was made, for the seam index; None if unknown. Metrics that lack
    their reference, labels or size are left out. Raises InputError if the shape differs from a reference's or a voxel
    is not finite.
    """
    measured = MeasuredImage(image, examination.voxel_mm)
    steps = (_fidelity, _uptake, _contrast, _noise, _detection)
    numbers = [number for step in steps for number in step(examination, measured)]
    if plan is not None and len(plan.starts) > 1:
        numbers += _seams(examination, measured, plan)
    return [number for number in numbers if np.isfinite(number.value)]


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


def _contrast(examination: Examination, image: MeasuredImage) -> Iterator[Measurement]:
    for region, lesion in examination.lesions.items():
        if examination.liver_sphere.any():
            value = contrast_to_noise(image.data, lesion, examination.liver_sphere)
            yield Measurement("lesion_cnr", region, value)
        if region in examination.surroundings:
            for name, reference in examination.references.items():
                around = examination.surroundings[region]
                value = contrast_recovery(image.data, reference.data, lesion, around)
                yield Measurement(f"contrast_recovery_{name}", region, value)


def _noise(examination: Examination, image: MeasuredImage) -> Iterator[Measurement]:
    """Noise of the liver and its change from the normal dose's; without labels, that of the most uniform spheres."""
    if examination.labels is None:
        yield from _uniform_spheres(examination, image)
    if not examination.liver_sphere.any():
        return
    read = {
        "cov": lambda volume: 100 * coefficient_of_variation(volume, examination.liver_sphere),
        "correlation": lambda volume: float(
            np.cbrt(np.prod(correlation_fwhm(volume, examination.liver_texture, image.voxel_mm)))
        ),
    }
    for metric, noise_of in read.items():
        value = noise_of(image.data)
        yield Measurement(metric, "liver", value)
        if "normal" in examination.references:
            expected = noise_of(examination.references["normal"].data)
            yield Measurement(f"{metric}_change_normal", "liver", bias_percent(value, expected))


def _uniform_spheres(examination: Examination, image: MeasuredImage) -> Iterator[Measurement]:
    places = tuple(examination.uniform_spheres.T)
    if not len(places[0]):
        return
    mean, deviation = (values[places] for values in sphere_statistics(image.data, image.voxel_mm))
    before, _ = sphere_statistics(examination.low_dose.data, image.voxel_mm)
    yield Measurement("cov", UNIFORM_SPHERES, float(np.median(100 * deviation / mean)))
    yield Measurement("suv_mean_bias_low_dose", UNIFORM_SPHERES, float(np.median(bias_percent(mean, before[places]))))


def _detection(examination: Examination, image: MeasuredImage) -> Iterator[Measurement]:
    """Foci lost and invented against every reference; against the low dose where there is no reference."""
    others = examination.references or {"low_dose": examination.low_dose_image}
    for name, reference in others.items():
        lost = [focus for focus in foci(reference.contrast, image.contrast) if focus.is_lacking]
        invented = [focus for focus in foci(image.contrast, reference.contrast) if focus.is_lacking]
        yield Measurement(f"foci_lost_{name}", VOLUME, float(len(lost)))
        yield Measurement(f"foci_invented_{name}", VOLUME, float(len(invented)))


def _seams(examination: Examination, image: MeasuredImage, plan: PatchPlan) -> Iterator[Measurement]:
    others = examination.references or {"low_dose": examination.low_dose_image}
    for name, reference in others.items():
        yield Measurement(f"seam_index_{name}", VOLUME, seam_index(reference.clipped, image.clipped, plan))
