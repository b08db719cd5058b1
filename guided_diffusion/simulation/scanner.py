"""Scanner profiles: field of view, sensitivity, resolution, beds, and the usual reconstruction."""

from dataclasses import dataclass

import numpy as np

from guided_diffusion.errors import InputError
from guided_diffusion.simulation.table_rows import rows

NEMA_LINE_MM = 700.0
"""Length of the line source of the NEMA NU 2 sensitivity test."""

TOF_REFERENCE_DIAMETER_MM = 270.0
SPEED_OF_LIGHT_MM_PER_PS = 0.2998


@dataclass(frozen=True)
class Scanner:
    """One row of scanners.csv.

    Lengths in mm. `ramp_mm`: distance over which the axial sensitivity falls to zero at either end of the field, set by
    the largest accepted ring difference. `sensitivity_cps_per_kbq`: NEMA NU 2 system sensitivity. Resolutions are NEMA
    FWHM near the centre. `randoms_ratio`: randoms over trues. `bed_overlap`: share of the axial field that neighbouring
    beds have in common; 0 means a single bed. `voxel_mm`, `slice_mm`: usual voxel size; `filter_fwhm_mm`: post-filter.
    The source covers geometry, sensitivity, resolution, timing and scatter; the rest (randoms_ratio, bed_minutes,
    bed_overlap, iterations, subsets, filter) is usual clinical practice as judged for this table.
    """

    name: str
    title: str
    axial_fov_mm: float
    ramp_mm: float
    sensitivity_cps_per_kbq: float
    transaxial_fwhm_mm: float
    axial_fwhm_mm: float
    tof_ps: float
    scatter_fraction: float
    randoms_ratio: float
    voxel_mm: float
    slice_mm: float
    iterations: int
    subsets: int
    filter_fwhm_mm: float
    bed_minutes: float
    bed_overlap: float
    source: str

    def efficiency(self, z_mm: np.ndarray) -> np.ndarray:
        """Share of decays detected, without attenuation, at axial distance `z_mm` from the centre of the field.

        A trapezoid, scaled so that its mean over the 700 mm of the NEMA line source (zero outside the field) is the
        published sensitivity. With `ramp_mm` of half the field it is the triangle of a scanner that accepts all rings.
        """
        line = np.linspace(-NEMA_LINE_MM / 2, NEMA_LINE_MM / 2, 1401)
        scale = self.sensitivity_cps_per_kbq / 1000.0 / self._trapezoid(line).mean()
        return scale * self._trapezoid(np.asarray(z_mm, dtype=float))

    def _trapezoid(self, z_mm: np.ndarray) -> np.ndarray:
        return np.clip((self.axial_fov_mm / 2 - np.abs(z_mm)) / self.ramp_mm, 0.0, 1.0)

    def bed_centres(self, top_mm: float, bottom_mm: float) -> np.ndarray:
        """Centres of the beds that cover [top_mm, bottom_mm] of the patient's axis, evenly spread about its middle."""
        middle = (top_mm + bottom_mm) / 2
        if self.bed_overlap == 0:
            return np.array([middle])
        step = self.axial_fov_mm * (1 - self.bed_overlap)
        # The outermost ramps have few counts: let the beds reach beyond the patient by the overlap.
        n_beds = max(1, int(np.ceil((bottom_mm - top_mm + self.axial_fov_mm * self.bed_overlap) / step)))
        return middle + step * (np.arange(n_beds) - (n_beds - 1) / 2)

    def exposure(self, z_mm: np.ndarray, top_mm: float, bottom_mm: float) -> np.ndarray:
        """Seconds x efficiency at each position of the patient's axis, summed over the beds: counts per Bq."""
        beds = self.bed_centres(top_mm, bottom_mm)
        return 60.0 * self.bed_minutes * sum(self.efficiency(z_mm - bed) for bed in beds)

    @property
    def tof_gain(self) -> float:
        """Effective counts per count that time of flight is worth: D / (1.6 dx), dx = c dt / 2, never below 1.

        Variance gain at the centre of a uniform disc of diameter D (Tomitani, IEEE Trans Nucl Sci 28:4581, 1981; Conti,
        Eur J Nucl Med Mol Imaging 38:1147, 2011). Time of flight is not simulated otherwise.
        """
        blur = SPEED_OF_LIGHT_MM_PER_PS * self.tof_ps / 2
        return max(1.0, TOF_REFERENCE_DIAMETER_MM / (1.6 * blur))


def load_scanners() -> dict[str, Scanner]:
    """Every scanner of scanners.csv by name."""
    types = {name: field.type for name, field in Scanner.__dataclass_fields__.items()}
    return {row["name"]: Scanner(**{name: types[name](text) for name, text in row.items()}) for row in rows("scanners")}


def select(known: dict, wanted: str, kind: str) -> list[str]:
    """Names out of `known` for a comma list or `all`, in the list's order; InputError names one that does not exist."""
    if wanted == "all":
        return list(known)
    names = [name.strip() for name in wanted.split(",")]
    for name in names:
        if name not in known:
            raise InputError(f"no {kind} is called {name!r}; choose from {', '.join(known)} or all")
    return names
