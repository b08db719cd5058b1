"""The images and labels of one scan, and the regions in which it is measured."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from evaluation.measures.image_fidelity import clip_suv
from evaluation.measures.lesion_contrast import surroundings_of
from evaluation.measures.measurement import LESION_PREFIX
from evaluation.measures.organ_noise import CORRELATION_SPHERE_MM, LIVER_SPHERE_MM, deepest_point
from evaluation.measures.uptake import SMALLEST_LESION_MM, lesions_over, organ_core
from guided_diffusion.pet.blur import gaussian_blur
from guided_diffusion.pet.foci import ContrastMap, contrast_map
from guided_diffusion.pet.grid import Volume
from guided_diffusion.pet.normalisation import BODY_SUV
from guided_diffusion.pet.spheres import sphere
from guided_diffusion.pet.uniform_tissue import most_uniform_spheres, sphere_statistics
from guided_diffusion.simulation.body_phantom import FIRST_LESION_LABEL, load_tissues

BACKGROUND_LABEL = 0
BODY_SIGMA_MM = 6.0

ORGANS = {
    "liver": ("liver",),
    "lung": ("lung",),
    "spleen": ("spleen",),
    "kidneys": ("kidney_cortex", "kidney_pelvis"),
    "brain": ("brain_grey", "brain_white"),
    "muscle": ("muscle",),
    "blood": ("blood",),
}
"""Organs that are measured, with the tissues of the virtual patients that make them up."""


@dataclass(frozen=True, eq=False)
class MeasuredImage:
    """An image, float32 [X, Y, Z] in SUV with voxel sizes in mm; intermediate results shared by metrics are cached."""

    data: np.ndarray
    voxel_mm: tuple[float, float, float]

    @cached_property
    def clipped(self) -> np.ndarray:
        """SUV in [0, 16], float32."""
        return clip_suv(self.data)

    @cached_property
    def contrast(self) -> ContrastMap:
        """SUVpeak about every voxel and its contrast to the surroundings."""
        return contrast_map(self.data, self.voxel_mm)


@dataclass(frozen=True, eq=False)
class Examination:
    """The images of one scan on the grid of its low dose, [X, Y, Z] in SUV, not clipped; None for missing ones.

    subject, tracer, scanner: "" if unknown. dose: of the low dose as a fraction of the normal dose, None if unknown.
    normal_dose: float32. truth: float32, the true activity blurred to the scan's resolution. labels: uint8, numbered as
    in the virtual patients (`simulation.body_phantom`).
    """

    subject: str
    tracer: str
    scanner: str
    dose: float | None
    low_dose: Volume
    normal_dose: np.ndarray | None = None
    truth: np.ndarray | None = None
    labels: np.ndarray | None = None

    @property
    def voxel_mm(self) -> tuple[float, float, float]:
        """Edge lengths of a voxel along X, Y, Z in mm."""
        return self.low_dose.voxel_mm

    @property
    def is_normal_dose(self) -> bool:
        """Whether the low dose is the normal-dose image itself, so that similarity to it means nothing."""
        return self.dose is not None and self.dose >= 1

    @cached_property
    def references(self) -> Mapping[str, MeasuredImage]:
        """The reference images, "normal" and "truth", as far as they exist."""
        images = {"normal": self.normal_dose, "truth": self.truth}
        return {name: MeasuredImage(data, self.voxel_mm) for name, data in images.items() if data is not None}

    @cached_property
    def low_dose_image(self) -> MeasuredImage:
        """The low dose as an image that is measured."""
        return MeasuredImage(self.low_dose.data, self.voxel_mm)

    @cached_property
    def body(self) -> np.ndarray:
        """Voxels of the patient, bool [X, Y, Z]: by the labels; without them, where a smoothed image shows uptake."""
        if self.labels is not None:
            return (self.labels != BACKGROUND_LABEL) & (self.labels != load_tissues()["air"].label)
        image = self.low_dose.data if self.normal_dose is None else self.normal_dose
        return gaussian_blur(image, BODY_SIGMA_MM, self.voxel_mm) > BODY_SUV

    @cached_property
    def organs(self) -> Mapping[str, np.ndarray]:
        """The cores of the organs by name, bool [X, Y, Z]; those that are large enough to have one."""
        if self.labels is None:
            return {}
        tissues = load_tissues()
        cores = {
            name: organ_core(np.isin(self.labels, [tissues[part].label for part in parts]), self.voxel_mm)
            for name, parts in ORGANS.items()
        }
        return {name: core for name, core in cores.items() if core.any()}

    @cached_property
    def liver_sphere(self) -> np.ndarray:
        """The voxels of a sphere of 3 cm deep in the healthy liver, bool [X, Y, Z]; none where it does not fit in."""
        return self._sphere_in_the_liver(LIVER_SPHERE_MM, LIVER_SPHERE_MM / 2)

    @cached_property
    def liver_texture(self) -> np.ndarray:
        """The healthy liver's voxels in a sphere of 6 cm about the same point; none where that of 3 cm has none."""
        return self._sphere_in_the_liver(CORRELATION_SPHERE_MM, LIVER_SPHERE_MM / 2)

    def _sphere_in_the_liver(self, diameter_mm: float, least_depth_mm: float) -> np.ndarray:
        shape = self.low_dose.data.shape
        if self.labels is None:
            return np.zeros(shape, bool)
        liver = self.labels == load_tissues()["liver"].label
        place, depth_mm = deepest_point(liver, self.voxel_mm)
        if depth_mm < least_depth_mm:
            return np.zeros(shape, bool)
        return sphere(shape, self.voxel_mm, place, diameter_mm) & liver

    @cached_property
    def surroundings(self) -> Mapping[str, np.ndarray]:
        """Healthy tissue around each lesion, bool [X, Y, Z]; those lesions that have any."""
        if self.labels is None:
            return {}
        healthy = self.body & (self.labels < FIRST_LESION_LABEL)
        found = {name: surroundings_of(lesion, healthy, self.voxel_mm) for name, lesion in self.lesions.items()}
        return {name: around for name, around in found.items() if around.any()}

    @cached_property
    def uniform_spheres(self) -> np.ndarray:
        """Centres (voxel indices, int [n, 3]) of the most uniform spheres of 3 cm in the low dose."""
        return most_uniform_spheres(*sphere_statistics(self.low_dose.data, self.voxel_mm), self.voxel_mm)

    @cached_property
    def lesions(self) -> Mapping[str, np.ndarray]:
        """The lesions over 10 mm by name, bool [X, Y, Z]."""
        if self.labels is None:
            return {}
        found = lesions_over(self.labels, self.voxel_mm, SMALLEST_LESION_MM)
        return {lesion_name(label): self.labels == label for label in found}


def lesion_name(label: int) -> str:
    """Name of a lesion's label, "lesion_01" for the first; as in a trial's labels.json."""
    return f"{LESION_PREFIX}{label - FIRST_LESION_LABEL + 1:02d}"
