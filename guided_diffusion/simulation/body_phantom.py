"""A virtual patient: activity, attenuation and labels on a grid, the same patient at any voxel size."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np

from guided_diffusion.simulation import body, organs
from guided_diffusion.simulation.canvas import Canvas, Grid
from guided_diffusion.simulation.lesions import Lesion, draw_lesions
from guided_diffusion.simulation.patient import Patient, draw_patient
from guided_diffusion.simulation.shapes import Solid
from guided_diffusion.simulation.table_rows import rows
from guided_diffusion.simulation.tracers import draw_uptake, load_tracers

FIRST_LESION_LABEL = 100

DrawLesions = Callable[[Sequence[tuple[Solid, str]], dict[str, float], np.random.Generator], list[Lesion]]
"""Lesions for a patient's solids and tissues, and uptake by tissue."""


@dataclass(frozen=True)
class Tissue:
    """One row of tissues.csv: label value, attenuation at 511 keV (per cm), relative spread of its texture."""

    label: int
    mu_per_cm: float
    texture: float


@dataclass(frozen=True)
class Phantom:
    """`activity` float32 SUV, `attenuation` float32 per cm and `labels` uint8, all [X, Y, Z] on `grid`."""

    grid: Grid
    patient: Patient
    lesions: list[Lesion]
    activity: np.ndarray
    attenuation: np.ndarray
    labels: np.ndarray


def load_tissues() -> dict[str, Tissue]:
    """Every tissue of tissues.csv by name."""
    return {
        row["tissue"]: Tissue(int(row["label"]), float(row["mu_per_cm"]), float(row["texture"]))
        for row in rows("tissues")
    }


def generator(seed: int, purpose: str) -> np.random.Generator:
    """The random numbers of one purpose of one subject, whatever else is drawn."""
    return np.random.default_rng([seed, crc32(purpose.encode())])


def make_patient(seed: int, tracer: str) -> Patient:
    """The patient of a subject's seed; a tracer for men gets a man."""
    return draw_patient(generator(seed, "patient"), men_only=load_tracers()[tracer].patients == "men")


def anatomy(patient: Patient, seed: int) -> Iterator[body.Part]:
    """Solids and tissues of a healthy patient in painting order."""
    rng = generator(seed, "anatomy")
    yield from body.outline(patient)
    yield from body.cavities(patient)
    yield from body.skeleton(patient)
    yield from organs.head(patient, rng)
    yield from organs.chest(patient)
    yield from organs.bowel(patient, rng)
    yield from organs.pelvis(patient)
    yield from organs.upper_abdomen(patient)
    yield from organs.ureters(patient, rng)


def make_phantom(seed: int, tracer: str, grid: Grid, draw: DrawLesions = draw_lesions) -> Phantom:
    """Paint the patient of `seed` with a tracer's uptake, then the lesions that `draw` gives."""
    patient = make_patient(seed, tracer)
    tissues, uptake = load_tissues(), draw_uptake(tracer, generator(seed, f"uptake {tracer}"))
    canvas = Canvas(grid, generator(seed, "canvas"))
    parts = list(anatomy(patient, seed))
    for solid, name in parts:
        tissue = tissues[name]
        canvas.paint(solid, uptake[name], tissue.mu_per_cm, tissue.label, tissue.texture)
    lesions = draw(parts, uptake, generator(seed, f"lesions {tracer}"))
    for number, lesion in enumerate(lesions):
        for solid, suv in lesion.solids:
            canvas.paint(solid, suv, lesion.mu_per_cm, FIRST_LESION_LABEL + number, lesion.texture)
    return Phantom(grid, patient, lesions, canvas.activity, canvas.attenuation, canvas.labels)
