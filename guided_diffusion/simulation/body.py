"""Outline, fat, muscle and skeleton of a patient, as solids to paint in order.

Reference positions are for a body of 1.70 m in mm (p, l, d); d counts down from the vertex. Landmarks follow adult
anthropometry (chin 0.13, shoulder 0.18, diaphragm 0.30, iliac crest 0.41, crotch 0.53 of the height below the vertex).
"""

from collections.abc import Iterator

import numpy as np

from guided_diffusion.simulation.patient import Patient
from guided_diffusion.simulation.shapes import Common, Ellipsoid, Grown, Solid, Trunk, Tube, curve, rotation

Part = tuple[Solid, str]
"""A solid and the tissue that it is made of."""

TRUNK_D = np.array([205, 255, 285, 312, 360, 430, 520, 600, 660, 720, 780, 840, 890, 930])
TRUNK_WIDTH = np.array([50, 54, 72, 128, 152, 156, 150, 143, 136, 140, 152, 163, 166, 150])
TRUNK_DEPTH = np.array([48, 53, 60, 72, 88, 100, 103, 99, 93, 93, 96, 99, 97, 80])
TRUNK_CENTRE = np.array([14, 15, 14, 12, 8, 3, 0, 0, 0, 0, 2, 5, 6, 4])
TRUNK_FAT = np.array([0.3, 0.3, 0.4, 0.6, 0.8, 0.9, 0.9, 1, 1, 1, 1.1, 1.2, 1.1, 0.9])
FEMALE_WIDTH = np.array([0.9, 0.9, 0.92, 0.93, 0.94, 0.94, 0.95, 0.95, 0.96, 1.0, 1.05, 1.08, 1.08, 1.06])
SKIN_MM = 2.0


def lean_trunk(patient: Patient) -> Trunk:
    """Trunk and neck without subcutaneous fat; a large belly pushes the abdominal wall forwards."""
    belly = 1 + np.clip(0.018 * (patient.bmi - 24), -0.06, 0.2) * np.exp(-(((TRUNK_D - 670) / 110) ** 2))
    width = TRUNK_WIDTH * patient.breadth * (FEMALE_WIDTH if patient.sex == "female" else 1.0)
    depth = TRUNK_DEPTH * patient.breadth * belly
    return Trunk(
        TRUNK_D * patient.height_scale, depth, width * belly**0.5, TRUNK_CENTRE - (depth - depth / belly) * 0.7
    )


def whole_trunk(patient: Patient) -> Trunk:
    """Trunk and neck with their fat, up to the skin."""
    lean, fat = lean_trunk(patient), patient.fat_mm * TRUNK_FAT
    return Trunk(lean.knots, np.asarray(lean.half_depth) + fat, np.asarray(lean.half_width) + fat, lean.centre)


def _limbs(patient: Patient) -> list[Tube]:
    """Arms and legs without fat, as tapered tubes."""
    limbs = []
    hip = whole_trunk(patient).radius_at(820 * patient.height_scale)[1]
    for side in (-1, 1):
        legs = [patient.at(4, 82 * side, 850), patient.at(0, 86 * side, 1050), patient.at(0, 84 * side, 1300)]
        limbs.append(Tube(np.array(legs), np.array([80, 66, 50]) * patient.breadth))
        shoulder = patient.at(6, 152 * side, 330)
        if patient.arms_up:
            elbow, wrist = (0, 178 * side, 70 * patient.height_scale), (-15, 95 * side, -150)
        else:
            # As close to the body as it allows, and inside the field of view.
            reach = min(hip + 25, 196) * side
            elbow, wrist = (20, reach, 590 * patient.height_scale), (-10, reach, 830 * patient.height_scale)
        limbs.append(Tube(np.array([shoulder, elbow, wrist]), np.array([40, 31, 24]) * patient.breadth))
    return limbs


def outline(patient: Patient) -> Iterator[Part]:
    """Skin, subcutaneous fat and muscle from the outside in."""
    head = Ellipsoid(patient.at(0, 0, 106), np.array([97, 77, 106]) * patient.organ_scale["brain"])
    face = Ellipsoid(patient.at(-22, 0, 165), np.array([74, 66, 80]) * patient.organ_scale["brain"], 2.4)
    trunk, lean, limbs = whole_trunk(patient), lean_trunk(patient), _limbs(patient)
    limb_fat = 0.45 * patient.fat_mm
    buttock = [Ellipsoid(patient.at(60, 62 * s, 850), (62, 72, 75)) for s in (-1, 1)]
    breast = []
    if patient.sex == "female":
        depth, _, centre = trunk.radius_at(430 * patient.height_scale)
        at_chest = [(centre - depth + 8, 78 * s, 435 * patient.height_scale) for s in (-1, 1)]
        breast = [Ellipsoid(position, (38, 56, 58)) for position in at_chest]
    for limb in limbs:
        yield from ((part, "skin") for part in Tube(limb.points, limb.radii + limb_fat).segments())
    for solid in (head, face, trunk, *buttock, *breast):
        yield solid, "skin"
    for limb in limbs:
        yield Tube(limb.points, limb.radii + limb_fat - SKIN_MM), "fat"
    for solid in (trunk, *buttock):
        yield Grown(solid, -SKIN_MM), "fat"
    for solid in breast:
        yield Grown(solid, -SKIN_MM), "breast"
    for solid in (head, face):
        yield Grown(solid, -5.0), "muscle"
    for limb in limbs:
        yield limb, "muscle"
    for solid in buttock:
        yield Grown(solid, -0.6 * patient.fat_mm - 6), "muscle"
    yield lean, "muscle"


def cavities(patient: Patient) -> Iterator[Part]:
    """Lungs, mediastinum, and the abdominal and pelvic cavity with its fat."""
    inside = Grown(lean_trunk(patient), -13.0)
    for side, organ in ((-1, "lung_right"), (1, "lung_left")):
        lung = Ellipsoid(patient.at(4, 78 * side, 478), patient.size(organ, 80, 57, 182), 2.3)
        yield Common(lung, inside), "lung"
    yield Ellipsoid(patient.at(-6, 2, 395), patient.size("heart", 78, 34, 130)), "mediastinum"
    for side, top in ((-1, 484), (1, 500)):
        yield Common(Ellipsoid(patient.at(0, 74 * side, 610), (92, 80, 610 - top), 2.2), inside), "visceral_fat"
    cavity = Ellipsoid(patient.at(-14, 0, 690), (84, 132, 185), 2.6)
    yield Common(cavity, Grown(lean_trunk(patient), -15.0)), "visceral_fat"


def spine_p(d: float) -> float:
    """Position of the vertebral bodies (mm to posterior) at reference depth d: neck, chest and lumbar curves."""
    return float(np.interp(d, [170, 250, 330, 430, 520, 620, 690, 740, 790], [12, 20, 42, 56, 52, 38, 34, 42, 58]))


def skeleton(patient: Patient) -> Iterator[Part]:
    """Spine, ribs, shoulder girdle, pelvis and thigh bones: bone outside, marrow inside."""
    scale = patient.organ_scale["skeleton"]
    yield from _spine(patient, scale)
    yield from _ribs(patient)
    yield Ellipsoid(patient.at(-84, 0, 400), (5, 17, 72)), "marrow"
    for side in (-1, 1):
        yield from _girdles(patient, side, scale)


def _spine(patient: Patient, scale: float) -> Iterator[Part]:
    centres = np.concatenate([np.linspace(178, 285, 7), np.linspace(303, 560, 12), np.linspace(590, 725, 5)])
    pitch = np.gradient(centres)
    for d, step in zip(centres, pitch, strict=True):
        width = np.interp(d, [180, 300, 560, 725], [11, 14, 20, 25]) * scale
        depth = np.interp(d, [180, 300, 560, 725], [8, 10, 15, 17]) * scale
        arch = Ellipsoid(patient.at(spine_p(d) + depth + 16, 0, d + 6), (12 * scale, 17 * scale, 0.32 * step), 2.5)
        yield arch, "bone"
        yield Ellipsoid(patient.at(spine_p(d), 0, d), (depth, width, 0.47 * step * scale), 4.0), "bone"
        yield Ellipsoid(patient.at(spine_p(d), 0, d), (depth - 1.5, width - 1.5, 0.40 * step * scale), 4.0), "marrow"
    canal = [patient.at(spine_p(d) + np.interp(d, [180, 700], [17, 24]), 0, d) for d in (165, 250, 350, 450, 550, 640)]
    yield curve(canal, 5.0, 24), "spinal_cord"
    yield Ellipsoid(patient.at(62, 0, 775), (17 * scale, 42 * scale, 44 * scale), 2.5, rotation(1, 20)), "marrow"


def _ribs(patient: Patient) -> Iterator[Part]:
    lean = lean_trunk(patient)
    for d in np.linspace(300, 530, 10):
        sink = np.interp(d, [300, 530], [35, 95])
        # From the spine round the side to the front; the lowest ribs end before they reach the breastbone.
        last = np.interp(d, [300, 470, 530], [2.75, 2.6, 1.9])
        for side in (-1, 1):
            points = []
            for angle in np.linspace(0.25, last, 14):
                down = patient.at(0, 0, d + sink * angle / np.pi)[2]
                depth, width, centre = lean.radius_at(down)
                points.append((centre + (depth - 9) * np.cos(angle), side * (width - 9) * np.sin(angle) ** 0.8, down))
            yield Tube(np.array(points), np.full(14, 4.5)), "rib"


def _girdles(patient: Patient, side: int, scale: float) -> Iterator[Part]:
    clavicle = [patient.at(-50, 12 * side, 318), patient.at(-30, 80 * side, 308), patient.at(0, 142 * side, 312)]
    yield curve(clavicle, 5.5, 8), "bone"
    blade = Ellipsoid(patient.at(74, 98 * side, 375), (5, 38, 62), 2.0, rotation(2, -25 * side))
    yield blade, "bone"
    yield Ellipsoid(patient.at(6, 150 * side, 328), (21, 21, 22)), "rib"
    wing = Ellipsoid(patient.at(30, 78 * side, 735), np.array([46, 9, 58]) * scale, 2.0, rotation(2, 35 * side))
    yield wing, "bone"
    yield Grown(wing, -2.0), "marrow"
    for centre, semi in (((8, 84, 830), (27, 24, 32)), ((20, 62, 885), (16, 13, 32)), ((-42, 32, 858), (11, 26, 13))):
        bone = Ellipsoid(patient.at(centre[0], centre[1] * side, centre[2]), np.array(semi) * scale)
        yield bone, "bone"
        yield Grown(bone, -3.0), "marrow"
    head, neck, knee = patient.at(6, 92 * side, 838), patient.at(4, 124 * side, 878), patient.at(0, 92 * side, 1300)
    yield Ellipsoid(head, (23, 23, 23)), "rib"
    yield Tube(np.array([head, neck, knee]), np.array([15, 18, 15])), "bone"
    yield Tube(np.array([head, neck, knee]), np.array([11, 13, 8])), "yellow_marrow"
