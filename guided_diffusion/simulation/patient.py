"""Drawing a patient: sex, height, weight, posture, organ sizes, and the scaling of a reference body to them."""

from dataclasses import dataclass

import numpy as np

REFERENCE_HEIGHT_M = 1.70
REFERENCE_BMI = 24.0

MALE_SHARE, ARMS_UP_SHARE = 0.55, 0.75
HEIGHT_M = {"male": (1.76, 0.07), "female": (1.63, 0.065)}
BMI_MEAN, BMI_SD, BMI_RANGE = 26.0, 4.0, (18.0, 35.0)


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


RELATIVE_VOLUME_SD = {
    "brain": 0.08,
    "skeleton": 0.08,
    "liver": 0.18,
    "spleen": 0.35,
    "kidney_left": 0.18,
    "kidney_right": 0.18,
    "heart": 0.18,
    "lung_left": 0.2,
    "lung_right": 0.2,
    "stomach": 0.4,
    "bladder": 0.7,
    "prostate": 0.4,
    "uterus": 0.3,
    "thyroid": 0.3,
    "salivary": 0.25,
    "pancreas": 0.25,
    "bowel": 0.2,
    "aorta": 0.2,
    "gallbladder": 0.4,
}
"""Spread of organ volumes between adults; the means are near the masses of ICRP Publication 89 (2002)."""


def draw_patient(rng: np.random.Generator, men_only: bool = False) -> Patient:
    """A patient with sex, height, body mass index and organ volumes from adult distributions.

    Organs go with body size: linear scale height / 1.70 m, times a log-normal factor.
    """
    sex = "male" if rng.random() < MALE_SHARE or men_only else "female"
    mean, sd = HEIGHT_M[sex]
    height = float(np.clip(rng.normal(mean, sd), 1.48, 1.95))
    bmi = float(np.clip(rng.normal(BMI_MEAN, BMI_SD), *BMI_RANGE))
    arms_up = bool(rng.random() < ARMS_UP_SHARE)
    breadth = float(np.clip(rng.normal(1.0 if sex == "male" else 0.93, 0.025), 0.86, 1.06))
    size = {
        organ: height / REFERENCE_HEIGHT_M * float(np.exp(np.log1p(spread) * rng.standard_normal() / 3))
        for organ, spread in RELATIVE_VOLUME_SD.items()
    }
    return Patient(sex, height, bmi * height**2, arms_up, breadth, size)
