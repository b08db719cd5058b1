"""Every number of one case of a virtual trial, for the low dose, the filters and the methods under comparison."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evaluation.filters import FILTERS, Scan, blurred_truth, noise_level, tune
from evaluation.measures.image_fidelity import clip_suv, psnr, ssim
from evaluation.measures.uptake import SMALLEST_LESION_MM, bias_percent, lesions_over, organ_core
from guided_diffusion.errors import InputError
from guided_diffusion.inference.subjects import DENOISED_NAME
from guided_diffusion.pet.formats import volume_formats
from guided_diffusion.pet.grid import Volume, on_one_grid, same_grid
from guided_diffusion.pet.suv_peak import suv_peak
from guided_diffusion.pet.trial_manifest import Case
from guided_diffusion.pet.volume import load_volume
from guided_diffusion.simulation.body_phantom import load_tissues

LOW_DOSE = "low_dose"
REFERENCES = ("normal", "truth")
ORGANS = ("liver", "lung")
QUALITY = ("psnr", "ssim")

COLUMNS = {  # title and decimals in the printed table
    "psnr_normal": ("PSNR (dB), normal dose", 2),
    "psnr_normal_over_low_dose": ("over low dose", 2),
    "psnr_normal_over_filters": ("over best filter", 2),
    "ssim_normal": ("SSIM, normal dose", 4),
    "ssim_normal_over_filters": ("over best filter", 4),
    "psnr_truth": ("PSNR (dB), truth", 2),
    "psnr_truth_over_low_dose": ("over low dose", 2),
    "ssim_truth": ("SSIM, truth", 4),
    "ssim_truth_over_low_dose": ("over low dose", 4),
    "liver_bias_normal": ("liver SUVmean bias (%)", 1),
    "lung_bias_normal": ("lung SUVmean bias (%)", 1),
    "lesion_bias_normal": ("lesion SUVpeak bias (%)", 1),
    "liver_bias_truth": ("liver, truth (%)", 1),
    "lung_bias_truth": ("lung, truth (%)", 1),
    "lesion_bias_truth": ("lesion, truth (%)", 1),
}

Row = dict[str, object]
Parameters = dict[float, dict[str, float]]


@dataclass(frozen=True)
class Examination:
    """The images of one case, float32 [X, Y, Z] in SUV on one grid; `truth` is blurred to the scan's resolution."""

    case: Case
    low_dose: Volume
    normal_dose: np.ndarray
    truth: np.ndarray
    labels: np.ndarray

    def reference(self, name: str) -> np.ndarray:
        return self.truth if name == "truth" else self.normal_dose

    def scan(self) -> Scan:
        data = self.low_dose.data
        return Scan(data, self.low_dose.voxel_mm, noise_level(data))


def open_case(case: Case) -> Examination:
    """Load a case's images. Raises InputError where one cannot be read or lies on another grid."""
    low_dose = load_volume(case.low_dose)
    normal, truth = (_on_grid_of(low_dose, path).data for path in (case.normal_dose, case.truth))
    labels = labels_on_grid_of(low_dose, case.labels)
    blurred, _ = blurred_truth(truth, normal, low_dose.voxel_mm)
    return Examination(case, low_dose, normal, blurred, labels)


def result_path(case: Case, folder: Path) -> Path:
    """Path of the image that scripts/test.py made of a case's low dose. Raises InputError where there is none."""
    path = folder / case.name / DENOISED_NAME
    if not path.is_file():
        raise InputError(f"{path}: not there; denoise the trial with scripts/test.py --save_dir {folder}")
    return path


def _on_grid_of(scan: Volume, path: Path) -> Volume:
    """The image in a file. Raises InputError where it cannot be read or lies on another grid."""
    volume = load_volume(path)
    if volume.unit != "SUV":
        raise InputError(f"{path}: is in {volume.unit}; denoise with --suv_basis bw to compare")
    if not on_one_grid(volume, scan):
        raise InputError(f"{path}: lies on another grid than the low dose; the result is of another scan")
    return volume


def labels_on_grid_of(scan: Volume, path: Path) -> np.ndarray:
    """The labels in a file, uint8 [X, Y, Z]: they are no SUV. Raises InputError as `_on_grid_of`."""
    stored = volume_formats.read(path)
    if stored.affine is None or not same_grid(stored.data.shape, stored.affine, scan.data.shape, scan.affine):
        raise InputError(f"{path}: lies on another grid than the low dose; these labels are of another scan")
    return stored.data.astype(np.uint8)


def is_normal_dose(case: Case) -> bool:
    """Whether the scan is the normal-dose image itself: nothing can be measured against that then."""
    return case.dose >= 1


def tune_filters(cases: list[Case]) -> tuple[Parameters, list[Row]]:
    """The filters' parameters at each dose, tuned on validation cases, and a table of them with the PSNR reached.

    The reference is the normal-dose image, and the blurred truth where the scan itself is the normal-dose image.
    """
    parameters: Parameters = {}
    table: list[Row] = []
    for dose in sorted({case.dose for case in cases}, reverse=True):
        opened = [open_case(case) for case in cases if case.dose == dose]
        reference = "truth" if is_normal_dose(opened[0].case) else "normal"
        examples = [(examination.scan(), examination.reference(reference)) for examination in opened]
        parameters[dose] = {}
        for name, chosen in FILTERS.items():
            value, score = tune(name, examples)
            parameters[dose][name] = value
            table.append(
                {"dose": dose, "filter": name, "parameter": chosen.parameter, "value": value,
                 "reference": reference, "subjects": len(opened), "psnr": score}
            )  # fmt: skip
    return parameters, table


def images_of(
    examination: Examination, methods: Mapping[str, Path], parameters: Mapping[str, float]
) -> dict[str, np.ndarray]:
    """The low dose of a case and what the filters and methods make of it, by name; float32 [X, Y, Z] in SUV.

    methods: name -> folder of results. parameters: of the filters, by name.
    """
    case, scan = examination.case, examination.scan()
    images = {LOW_DOSE: scan.data}
    images |= {name: FILTERS[name].apply(scan, value) for name, value in parameters.items()}
    return images | {
        name: _on_grid_of(examination.low_dose, result_path(case, folder)).data for name, folder in methods.items()
    }


def measure_case(
    examination: Examination, methods: Mapping[str, Path], parameters: Mapping[str, float]
) -> tuple[list[Row], list[Row]]:
    """One row per method of a case, and one per method and lesion over 10 mm; arguments as of `images_of`."""
    case = examination.case
    images = images_of(examination, methods, parameters)
    about = {"subject": case.subject, "tracer": case.tracer, "scanner": case.scanner, "dose": case.dose}
    numbers = {name: _image_numbers(examination, image) for name, image in images.items()}
    for own in numbers.values():
        own |= _margins(own, numbers)
    rows = [about | {"method": name} | own for name, own in numbers.items()]
    lesions = [
        about | {"method": name} | lesion for name, image in images.items() for lesion in _lesions(examination, image)
    ]
    return rows, lesions


def _image_numbers(examination: Examination, image: np.ndarray) -> dict[str, float]:
    """PSNR (dB), SSIM and organ biases (%) against both references; NaN where there is nothing to measure."""
    numbers: dict[str, float] = {}
    for name in REFERENCES:
        reference = examination.reference(name)
        if name == "normal" and is_normal_dose(examination.case):
            numbers |= {f"{quality}_{name}": np.nan for quality in QUALITY}
        else:
            numbers[f"psnr_{name}"] = psnr(clip_suv(reference), clip_suv(image))
            numbers[f"ssim_{name}"] = ssim(clip_suv(reference), clip_suv(image))
    voxel_mm = examination.low_dose.voxel_mm
    for organ in ORGANS:
        core = organ_core(examination.labels == load_tissues()[organ].label, voxel_mm)
        for name in REFERENCES:
            numbers[f"{organ}_bias_{name}"] = (
                bias_percent(image[core].mean(dtype=float), examination.reference(name)[core].mean(dtype=float))
                if core.any()
                else np.nan
            )
    return numbers


def _margins(own: Mapping[str, float], numbers: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """PSNR and SSIM over the low dose, and over the better filter on this very subject."""
    margins = {}
    for column in (f"{quality}_{reference}" for reference in REFERENCES for quality in QUALITY):
        margins[f"{column}_over_low_dose"] = own[column] - numbers[LOW_DOSE][column]
        margins[f"{column}_over_filters"] = own[column] - max(numbers[name][column] for name in FILTERS)
    return margins


def _lesions(examination: Examination, image: np.ndarray) -> list[Row]:
    """SUVpeak of every lesion over 10 mm and its bias in per cent against both references."""
    rows: list[Row] = []
    voxel_mm = examination.low_dose.voxel_mm
    for label, diameter in lesions_over(examination.labels, voxel_mm, SMALLEST_LESION_MM).items():
        lesion = examination.labels == label
        peak = suv_peak(image, lesion, voxel_mm)
        row: Row = {"label": label, "diameter_mm": diameter, "suv_peak": peak}
        for name in REFERENCES:
            row[f"lesion_bias_{name}"] = bias_percent(peak, suv_peak(examination.reference(name), lesion, voxel_mm))
        rows.append(row)
    return rows
