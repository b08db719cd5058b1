"""Lesions: how many, where, how large, how hot, and of what shape."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from guided_diffusion.simulation.body import Part
from guided_diffusion.simulation.shapes import Ellipsoid, Solid, wavy

MAX_LESIONS = 30
HEALTHY_SHARE = 0.12
MEAN_LESIONS = 7.0
DIAMETER_MM = (4.0, 60.0)
SMALL_DIAMETER_MM = (5.0, 15.0)
SMALL_CONTRAST = (2.0, 20.0)
SMALL_LESIONS = (10, 25)
CONTRAST = (1.5, 20.0)
HOTTEST_SUV = 45.0
SITES = {"liver": 0.2, "lung": 0.2, "node": 0.25, "bone": 0.2, "soft tissue": 0.15}
HOST = {"liver": "liver", "lung": "lung", "node": "blood", "bone": "marrow", "soft tissue": "muscle"}
"""Tissue in whose solids a site's lesions lie; nodes lie beside vessels."""
BACKGROUND = HOST | {"node": "mediastinum"}
SOFT_TISSUE_MU, BONE_MU = 0.099, 0.115


@dataclass(frozen=True)
class Lesion:
    """`solids`: (solid, SUV) to paint in order, a necrotic core last; `contrast`: to the surroundings; mu per cm."""

    site: str
    kind: str
    diameter_mm: float
    contrast: float
    mu_per_cm: float
    texture: float
    solids: tuple[tuple[Solid, float], ...]


def draw_lesions(parts: Sequence[Part], uptake: dict[str, float], rng: np.random.Generator) -> list[Lesion]:
    """0 to 30 lesions of 4 to 60 mm and contrast 1.5 to 20, in the organs of a patient.

    One patient in eight has none; the others have a geometrically distributed number with a mean of about seven.
    Diameters are log-normal about 15 mm; contrasts are log-uniform, limited to an SUV of 45 but at least 1.5.
    """
    if rng.random() < HEALTHY_SHARE:
        return []
    count = min(int(rng.geometric(1 / MEAN_LESIONS)), MAX_LESIONS)
    sites = rng.choice(list(SITES), size=count, p=list(SITES.values()))
    return [_draw_lesion(str(site), parts, uptake, rng) for site in sites]


def _draw_lesion(site: str, parts: Sequence[Part], uptake: dict[str, float], rng: np.random.Generator) -> Lesion:
    diameter = float(np.clip(15 * np.exp(0.55 * rng.standard_normal()), *DIAMETER_MM))
    if site in ("node", "bone"):
        diameter = min(diameter, 35.0)
    background = uptake[BACKGROUND[site]]
    contrast = float(np.exp(rng.uniform(*np.log(CONTRAST))))
    contrast = max(CONTRAST[0], min(contrast, HOTTEST_SUV / background))
    centre = _centre(site, diameter / 2, parts, rng)
    semi = diameter / 2 * np.exp(rng.normal(0, 0.12, 3))
    semi *= diameter / 2 / np.cbrt(np.prod(semi))
    kind = str(rng.choice(["spherical", "irregular", "necrotic"], p=[0.4, 0.4, 0.2]))
    if kind == "necrotic" and diameter < 18:
        kind = "irregular"
    solid: Solid = Ellipsoid(centre, (diameter / 2,) * 3 if kind == "spherical" else semi)
    if kind != "spherical":
        solid = wavy(solid, 0.07 * diameter, 0.8 * diameter, rng)
    solids = [(solid, contrast * background)]
    if kind == "necrotic":
        core = Ellipsoid(centre, semi * rng.uniform(0.45, 0.7))
        solids.append((core, background * rng.uniform(0.4, 1.0)))
    mu = BONE_MU if site == "bone" else SOFT_TISSUE_MU
    return Lesion(site, kind, diameter, contrast, mu, 0.12, tuple(solids))


def draw_small_lesions(
    parts: Sequence[Part],
    uptake: dict[str, float],
    rng: np.random.Generator,
    depth_mm: tuple[float, float],
) -> list[Lesion]:
    """10 to 24 lesions of 5 to 15 mm and contrast 2 to 20 within a section of the patient's axis (mm from the vertex).

    They are meant for training, in which they are rare at their true frequency. There are fewer if the section has few
    organs for them.
    """
    lesions = []
    for _ in range(int(rng.integers(*SMALL_LESIONS))):
        site = str(rng.choice(list(SITES), p=list(SITES.values())))
        centre = _centre_between(site, parts, rng, depth_mm)
        if centre is None:
            continue
        diameter = float(rng.uniform(*SMALL_DIAMETER_MM))
        background = uptake[BACKGROUND[site]]
        contrast = float(np.exp(rng.uniform(*np.log(SMALL_CONTRAST))))
        contrast = max(SMALL_CONTRAST[0], min(contrast, HOTTEST_SUV / background))
        solid = Ellipsoid(centre, diameter / 2 * np.exp(rng.normal(0, 0.1, 3)))
        mu = BONE_MU if site == "bone" else SOFT_TISSUE_MU
        lesions.append(Lesion(site, "small", diameter, contrast, mu, 0.12, ((solid, contrast * background),)))
    return lesions


def _centre_between(
    site: str, parts: Sequence[Part], rng: np.random.Generator, depth_mm: tuple[float, float]
) -> np.ndarray | None:
    """A point in a random solid of the host tissue between two depths; None where 60 attempts find none."""
    hosts = [solid for solid, tissue in parts if tissue == HOST[site]]
    for _ in range(60):
        host = hosts[int(rng.integers(len(hosts)))]
        low, high = host.bounds()
        low[2], high[2] = max(low[2], depth_mm[0]), min(high[2], depth_mm[1])
        if low[2] < high[2]:
            point = rng.uniform(low, high)
            if host.distance(*(np.array([q], np.float32) for q in point))[0] < 0:
                return point
    return None


def _centre(site: str, radius: float, parts: Sequence[Part], rng: np.random.Generator) -> np.ndarray:
    """A random point in a solid of the host tissue; for a lymph node, one beside a vessel.

    Points closer to the host's surface than 0.7 radii are rejected in the first half of the attempts.
    """
    hosts = [solid for solid, tissue in parts if tissue == HOST[site]]
    for attempt in range(200):
        host = hosts[int(rng.integers(len(hosts)))]
        low, high = host.bounds()
        point = rng.uniform(low, high)
        depth = -float(host.distance(*(np.array([q], np.float32) for q in point))[0])
        if site == "node":
            if -12 - radius < depth < -radius:
                return point
        elif depth > (0.7 * radius if attempt < 100 else 0.0):
            return point
    return (low + high) / 2
