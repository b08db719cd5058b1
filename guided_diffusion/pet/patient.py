"""Drawing a patient: sex, height, weight, posture, organ sizes, and the scaling of a reference body to them."""

from dataclasses import dataclass

import numpy as np

REFERENCE_HEIGHT_M = 1.70
REFERENCE_BMI = 24.0

MALE_SHARE, ARMS_UP_SHARE = 0.55, 0.75
HEIGHT_M = {"male": (1.76, 0.07), "female": (1.63, 0.065)}
BMI_MEAN, BMI_SD, BMI_RANGE = 26.0, 4.0, (18.0, 35.0)
ORGAN_VOLUME_SD = 0.18
"""Relative spread of organ volumes between adults; the means are the masses of ICRP Publication 89 (2002)."""


@dataclass(frozen=True)
class Patient:
    """A body to build. `breadth`: width of the frame relative to the reference; `organ_scale`: linear sizes by name."""

    sex: str
    height_m: float
    weight_kg: float
    arms_up: bool
    breadth: float
    organ_scale: dict[str, float]

    @property
    def bmi(self) -> float:
        return self.weight_kg / self.height_m**2

    @property
    def fat_mm(self) -> float:
        """Thickness of the subcutaneous fat of the trunk: 5 mm when slim, growing by 1.7 mm per unit of BMI."""
        return float(np.clip(5 + 1.7 * (self.bmi - 19) + (3 if self.sex == "female" else 0), 4, 34))

    @property
    def height_scale(self) -> float:
        return self.height_m / REFERENCE_HEIGHT_M

    def at(self, p: float, l: float, d: float) -> tuple[float, float, float]:  # noqa: E741
        """A position of the reference body (mm) moved to this patient: stouter patients carry organs further apart."""
        girth = 1 + 0.25 * (np.sqrt(self.bmi / REFERENCE_BMI) - 1)
        return p * self.breadth * girth, l * self.breadth * girth, d * self.height_scale

    def size(self, organ: str, *semi: float) -> tuple[float, ...]:
        """Semi-axes of the reference organ scaled to this patient's organ."""
        return tuple(s * self.organ_scale[organ] for s in semi)


ORGANS = (
    "brain liver spleen kidney_left kidney_right heart lung_left lung_right bladder stomach prostate uterus thyroid "
    "salivary pancreas bowel aorta gallbladder skeleton"
).split()


def draw_patient(rng: np.random.Generator) -> Patient:
    """A patient with sex, height, body mass index and organ volumes from adult distributions.

    Organ volumes go with body size: linear scale (height / 1.70 m) times a log-normal factor. The bladder's filling varies most.
    """
    sex = "male" if rng.random() < MALE_SHARE else "female"
    mean, sd = HEIGHT_M[sex]
    height = float(np.clip(rng.normal(mean, sd), 1.48, 1.95))
    bmi = float(np.clip(rng.normal(BMI_MEAN, BMI_SD), *BMI_RANGE))
    arms_up = bool(rng.random() < ARMS_UP_SHARE)
    breadth = float(np.clip(rng.normal(1.0 if sex == "male" else 0.93, 0.025), 0.86, 1.06))
    spread = {organ: ORGAN_VOLUME_SD for organ in ORGANS} | {"bladder": 0.6, "brain": 0.08, "skeleton": 0.08}
    size = {
        organ: height / REFERENCE_HEIGHT_M * float(np.exp(spread[organ] * rng.standard_normal() / 3))
        for organ in ORGANS
    }
    return Patient(sex, height, bmi * height**2, arms_up, breadth, size)
