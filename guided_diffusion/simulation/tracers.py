"""Tracers: nuclide data, uptake per tissue, and the injection of one patient."""

from dataclasses import dataclass

import numpy as np

from guided_diffusion.simulation.table_rows import rows


@dataclass(frozen=True)
class Tracer:
    """One row of radiotracers.csv.

    Minutes, MBq per kg; `range_fwhm_mm`: blur by the positron range, as a Gaussian; `patients`: `all` or `men`.
    """

    name: str
    title: str
    nuclide: str
    half_life_min: float
    branching: float
    range_fwhm_mm: float
    mbq_per_kg: float
    uptake_min: float
    patients: str
    source: str


@dataclass(frozen=True)
class Injection:
    """An injection at scan time: the patient's weight in kg, the activity left in Bq, and the nuclide."""

    weight_kg: float
    activity_bq_at_scan: float
    branching: float
    range_fwhm_mm: float


def load_tracers() -> dict[str, Tracer]:
    """Every tracer of radiotracers.csv by name."""
    types = {name: field.type for name, field in Tracer.__dataclass_fields__.items()}
    return {
        row["name"]: Tracer(**{name: types[name](text) for name, text in row.items()}) for row in rows("radiotracers")
    }


def draw_injection(tracer: Tracer, weight_kg: float, rng: np.random.Generator) -> Injection:
    """An injection within 15% of the usual activity, scanned 0.83 to 1.25 of the usual time after it."""
    injected = 1e6 * tracer.mbq_per_kg * weight_kg * rng.uniform(0.85, 1.15)
    minutes = tracer.uptake_min * rng.uniform(50, 75) / 60
    at_scan = injected * 0.5 ** (minutes / tracer.half_life_min)
    return Injection(weight_kg, at_scan, tracer.branching, tracer.range_fwhm_mm)


def draw_uptake(tracer: str, rng: np.random.Generator) -> dict[str, float]:
    """SUV of every tissue of uptake.csv for one patient: log-normal with the table's mean and standard deviation.

    Tissues are drawn in the table's order. A tissue with SD 0 always has its mean.
    """
    uptake = {}
    for row in rows("uptake"):
        if row["tracer"] == tracer:
            mean, sd = float(row["suv_mean"]), float(row["suv_sd"])
            spread = np.sqrt(np.log1p((sd / mean) ** 2)) if mean > 0 else 0.0
            uptake[row["tissue"]] = mean * float(np.exp(spread * rng.standard_normal() - spread**2 / 2))
    return uptake
