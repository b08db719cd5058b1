"""SUV by lean body mass and by body surface area, as ratios to SUV by body weight."""

from typing import Literal

from guided_diffusion.errors import InputError

SUVBasis = Literal["bw", "lbm", "bsa"]
UNITS: dict[str, str] = {"bw": "SUV", "lbm": "SUVlbm", "bsa": "SUVbsa"}

SHORTEST_M, TALLEST_M = 0.3, 2.5


def height_in_m(size: float | None) -> float | None:
    """The height in m of a PatientSize, which some write in cm; None for one that nobody has in either."""
    if size is None:
        return None
    height_m = size / 100 if size > TALLEST_M else size
    return height_m if SHORTEST_M <= height_m <= TALLEST_M else None


def lean_body_mass_kg(weight_kg: float, height_m: float, sex: Literal["M", "F"]) -> float:
    """Lean body mass in kg after Janmahasatian et al., Clin Pharmacokinet 44, 1051-1065 (2005)."""
    body_mass_index = weight_kg / height_m**2
    offset, slope = (6680.0, 216.0) if sex == "M" else (8780.0, 244.0)
    return 9270.0 * weight_kg / (offset + slope * body_mass_index)


def body_surface_m2(weight_kg: float, height_m: float) -> float:
    """Body surface in m2 after Du Bois and Du Bois, Arch Intern Med 17, 863-871 (1916)."""
    return 0.007184 * weight_kg**0.425 * (height_m * 100) ** 0.725


def ratios_to_suvbw(weight_kg: float | None, size: float | None, sex: str | None) -> dict[str, float]:
    """SUVlbm / SUVbw (no unit) and SUVbsa / SUVbw (cm2/g), as far as they follow from what is known of the patient.

    size: PatientSize, in m or cm.
    """
    ratios = {"bw": 1.0}
    height_m = height_in_m(size)
    if weight_kg is None or weight_kg <= 0 or height_m is None:
        return ratios
    ratios["bsa"] = body_surface_m2(weight_kg, height_m) * 1e4 / (weight_kg * 1e3)
    if sex in ("M", "F"):
        ratios["lbm"] = lean_body_mass_kg(weight_kg, height_m, sex) / weight_kg
    return ratios


def ratio_of(basis: SUVBasis, ratios: dict[str, float]) -> float:
    """The ratio for one basis.

    Raises:
        InputError: it does not follow from what the file says of the patient.
    """
    if basis not in ratios:
        raise InputError(
            f"SUV{basis} needs PatientWeight (0010,1030), PatientSize (0010,1020) in m"
            f"{' and PatientSex (0010,0040) M or F' if basis == 'lbm' else ''}, which this file does not give"
        )
    return ratios[basis]
