"""Organs of head, chest, abdomen and pelvis, and the great vessels, as solids to paint in order.

Reference positions are for a body of 1.70 m in mm (p, l, d); sizes give about the masses of ICRP Publication 89 (2002).
"""

from collections.abc import Iterator

import numpy as np

from guided_diffusion.simulation.body import Part, spine_p
from guided_diffusion.simulation.patient import Patient
from guided_diffusion.simulation.shapes import Ellipsoid, Grown, Tube, curve, rotation, wavy


def head(patient: Patient, rng: np.random.Generator) -> Iterator[Part]:
    """Skull, brain with cortex and deep nuclei, glands, tonsils and airways of head and neck."""
    at, brain = patient.at, patient.organ_scale["brain"]
    skull = Ellipsoid(at(2, 0, 90), np.array([81, 64, 76]) * brain)
    yield skull, "bone"
    cerebrum = Ellipsoid(at(2, 0, 84), np.array([74, 57, 61]) * brain, 2.2)
    yield cerebrum, "brain_grey"
    for side in (-1, 1):
        hemisphere = Ellipsoid(at(2, 31 * side, 86), np.array([62, 22, 45]) * brain)
        yield wavy(hemisphere, 4.5, 22.0, rng), "brain_white"
        yield Ellipsoid(at(-4, 15 * side, 92), np.array([26, 9, 13]) * brain), "brain_grey"
    yield Ellipsoid(at(46, 0, 140), np.array([28, 46, 22]) * brain), "brain_grey"
    yield Tube(np.array([at(18, 0, 118), at(22, 0, 170)]), np.array([12, 7])), "brain_white"
    yield Ellipsoid(at(-14, 0, 126), (5, 6, 5)), "pituitary"
    yield Ellipsoid(at(-62, 0, 145), (20, 12, 22)), "air"
    yield curve([at(-18, 0, 165), at(-14, 0, 205), at(-14, 0, 235)], [8, 7, 6], 6), "air"
    for side in (-1, 1):
        yield Ellipsoid(at(14, 47 * side, 172), patient.size("salivary", 14, 9, 24)), "salivary"
        yield Ellipsoid(at(-28, 30 * side, 216), patient.size("salivary", 13, 9, 12)), "salivary"
        yield Ellipsoid(at(-72, 38 * side, 112), patient.size("salivary", 4, 6, 6)), "lacrimal"
        yield Ellipsoid(at(-10, 13 * side, 188), (7, 6, 10)), "tonsil"
        yield Ellipsoid(at(-22, 17 * side, 272), patient.size("thyroid", 8, 9, 23)), "thyroid"


def chest(patient: Patient) -> Iterator[Part]:
    """Heart with left-ventricular wall, windpipe, aorta, caval veins, and neck and pelvic vessels."""
    at = patient.at
    yield curve([at(-10, 0, 232), at(0, 0, 320), at(12, 0, 392)], 8.0, 10), "air"
    for side in (-1, 1):
        yield curve([at(12, 0, 392), at(18, 38 * side, 425)], [6, 4], 4), "air"
        yield curve([at(-4, 24 * side, 215), at(-8, 26 * side, 260), at(-10, 22 * side, 325)], 5.0, 8), "blood"
    yield Ellipsoid(at(-42, 2, 452), patient.size("heart", 42, 44, 50), 2.2), "blood"
    tilt = rotation(2, 40) @ rotation(0, 25)
    ventricle = Ellipsoid(at(-42, 46, 470), patient.size("heart", 36, 32, 46), 2.0, tilt)
    yield ventricle, "myocardium"
    yield Ellipsoid(at(-36, 40, 462), patient.size("heart", 24, 20, 36), 2.0, tilt), "blood"
    aorta = [
        (-22, 6, 440), (-22, -4, 395), (-8, 4, 368), (20, 16, 372), (32, 20, 400), (34, 16, 500), (16, 8, 600),
        (12, 6, 690),
    ]  # fmt: skip
    radii = np.array([15, 15, 14, 13, 12.5, 11.5, 10, 9]) * patient.organ_scale["aorta"]
    yield curve([at(*q) for q in aorta], radii, 40), "blood"
    yield curve([at(*q) for q in ((-25, -24, 330), (-20, -24, 420))], 9.0, 6), "blood"
    yield curve([at(*q) for q in ((-10, -22, 470), (6, -20, 560), (10, -17, 690))], 10.0, 14), "blood"
    for side in (-1, 1):
        iliac = [(12, 3, 688), (16, 40, 750), (4, 62, 800), (-44, 74, 880), (-32, 77, 960), (-16, 70, 1060)]
        vessels = [(p, q * side, d) for p, q, d in iliac]
        yield curve([at(*q) for q in vessels], [9, 8, 7, 6, 5, 4.5], 32), "blood"


def upper_abdomen(patient: Patient) -> Iterator[Part]:
    """Liver, gall bladder, spleen, pancreas, adrenals and kidneys with their pelves."""
    at, size = patient.at, patient.size
    yield Ellipsoid(at(4, -68, 556), size("liver", 62, 58, 67), 2.3, rotation(0, -8)), "liver"
    yield Ellipsoid(at(6, -90, 614), size("liver", 40, 33, 64), 2.2, rotation(0, -6)), "liver"
    yield Ellipsoid(at(-34, -4, 534), size("liver", 36, 74, 32), 2.0, rotation(0, 12)), "liver"
    yield Ellipsoid(at(-48, -48, 628), size("gallbladder", 14, 13, 26), 2.0, rotation(1, 25)), "gallbladder"
    yield Ellipsoid(at(36, 104, 556), size("spleen", 32, 20, 50), 2.2, rotation(0, -18) @ rotation(1, 20)), "spleen"
    pancreas = [(-14, -26, 628), (-22, 2, 606), (-10, 40, 592), (12, 78, 574)]
    yield curve([at(*q) for q in pancreas], np.array([15, 11, 10, 9]) * patient.organ_scale["pancreas"], 14), "pancreas"
    for side, low in ((-1, 612), (1, 598)):
        organ = "kidney_right" if side < 0 else "kidney_left"
        yield Ellipsoid(at(34, 40 * side, low - 58), (5, 9, 14)), "adrenal"
        kidney = Ellipsoid(at(44, 62 * side, low), size(organ, 25, 28, 54), 2.2, rotation(0, -14 * side))
        yield kidney, "kidney_cortex"
        # The medulla and sinus take up little tracer; the collecting system inside holds urine.
        yield Ellipsoid(at(42, 55 * side, low), size(organ, 11, 15, 32), 2.0, rotation(0, -14 * side)), "visceral_fat"
        yield Ellipsoid(at(40, 50 * side, low + 2), size(organ, 7, 11, 17)), "kidney_pelvis"


def ureters(patient: Patient, rng: np.random.Generator) -> Iterator[Part]:
    """Ureters, filled with urine over random stretches only, as peristalsis leaves them."""
    for side in (-1, 1):
        path = [(34, 42, 622), (26, 38, 680), (28, 42, 740), (30, 40, 800), (4, 20, 848)]
        tube = curve([patient.at(p, q * side, d) for p, q, d in path], 2.6, 30)
        start = int(rng.integers(0, 30))
        for first in (0, start):
            length = int(rng.integers(0, 9))
            if length:
                part = slice(first, min(first + length, 30) + 1)
                if part.stop - part.start > 1:
                    yield Tube(tube.points[part], tube.radii[part]), "ureter"


def bowel(patient: Patient, rng: np.random.Generator) -> Iterator[Part]:
    """Stomach, duodenum, loops of small bowel, and the colon round them."""
    at, scale = patient.at, patient.organ_scale["bowel"]
    loops = (
        ((-40, 40, 665), (26, 60, 36), 14),
        ((-38, -15, 735), (30, 70, 44), 20),
        ((-50, 10, 700), (24, 78, 56), 16),
        ((-16, 10, 720), (22, 70, 48), 14),
    )
    for centre, spread, n_points in loops:
        knots = np.array(centre) + np.array(spread) * rng.uniform(-1, 1, (n_points, 3))
        yield curve([at(*q) for q in knots], rng.uniform(7, 12, n_points) * scale, 7 * n_points), "small_bowel"
    duodenum = [(-28, -22, 608), (-20, -42, 625), (-10, -44, 668), (-4, -8, 682), (-18, 26, 655)]
    yield curve([at(*q) for q in duodenum], 11.0 * scale, 20), "duodenum"
    frame = [
        (-2, -98, 770), (4, -104, 700), (-14, -98, 655), (-62, -45, 672), (-72, 0, 690), (-60, 55, 662), (-2, 104, 612),
        (16, 108, 690), (4, 102, 765), (-14, 70, 800), (10, 30, 790), (44, 6, 815), (46, 0, 880),
    ]  # fmt: skip
    jitter = rng.normal(0, 6, (len(frame), 3))
    radii = rng.uniform(11, 18, len(frame)) * scale
    gut = curve([at(*q) for q in np.array(frame) + jitter], radii, 90)
    # Haustra: pouches every few centimetres, irregular along the way.
    pouches = 1 + 0.16 * np.sin(np.cumsum(rng.uniform(0.5, 1.6, 91)))
    yield Tube(gut.points, gut.radii * pouches), "colon"
    stomach = [(24, 60, 525), (-10, 74, 550), (-44, 66, 595), (-56, 30, 622), (-44, -8, 618)]
    wall = np.array([28, 32, 25, 17, 11]) * patient.organ_scale["stomach"] * rng.uniform(0.8, 1.1)
    tube = curve([at(*q) for q in stomach], wall, 16)
    yield tube, "stomach"
    yield Tube(tube.points, np.maximum(tube.radii - 7.0, 2.0)), "visceral_fat"


def pelvis(patient: Patient) -> Iterator[Part]:
    """Psoas muscles, womb or prostate and testes, and the bladder."""
    at, size = patient.at, patient.size
    for side in (-1, 1):
        psoas = [at(spine_p(630), 32 * side, 610), at(32, 48 * side, 720), at(2, 78 * side, 850)]
        yield curve(psoas, [9, 19, 15], 12), "muscle"
    if patient.sex == "male":
        yield Ellipsoid(at(0, 0, 890), size("prostate", 15, 21, 17)), "prostate"
        for side in (-1, 1):
            yield Ellipsoid(at(-52, 15 * side, 945), (14, 13, 20)), "testis"
    else:
        yield Ellipsoid(at(6, 4, 818), size("uterus", 24, 25, 34), 2.0, rotation(1, 30)), "uterus"
    urine = Ellipsoid(at(-32, 0, 848), size("bladder", 23, 31, 20), 2.2)
    yield Grown(urine, 3.0), "muscle"
    yield urine, "bladder"
