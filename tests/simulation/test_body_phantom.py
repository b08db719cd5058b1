"""Virtual patients: volumes, tables, partial volumes, and the same patient at any voxel size."""

import csv
from importlib import resources

import numpy as np
import pytest

from guided_diffusion.simulation.body_phantom import anatomy, generator, load_tissues, make_patient, make_phantom
from guided_diffusion.simulation.canvas import Canvas, Grid, RandomField
from guided_diffusion.simulation.lesions import CONTRAST, DIAMETER_MM, MAX_LESIONS, draw_lesions
from guided_diffusion.simulation.patient import draw_patient
from guided_diffusion.simulation.shapes import Ellipsoid
from guided_diffusion.simulation.tracers import draw_injection, draw_uptake, load_tracers

VOXEL_MM = 5.0
BODY = Grid((64, 96, 220), VOXEL_MM, -10.0)


@pytest.fixture(scope="module")
def phantom():
    return make_phantom(21, "fdg", BODY)


def uptake_table() -> list[dict[str, str]]:
    with resources.files("guided_diffusion.simulation").joinpath("tables", "uptake.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_tracer_has_every_tissue_with_a_source():
    tissues = set(load_tissues())
    for tracer in load_tracers():
        rows = [row for row in uptake_table() if row["tracer"] == tracer]
        assert {row["tissue"] for row in rows} == tissues
        assert len(rows) == len(tissues)
        assert all(row["source"] for row in rows)
    labels = [tissue.label for tissue in load_tissues().values()]
    assert sorted(labels) == list(range(1, len(labels) + 1))


def test_drawn_uptake_has_the_mean_and_spread_of_the_table():
    drawn = [draw_uptake("fdg", np.random.default_rng(seed)) for seed in range(3000)]
    for tissue, mean, sd in (("liver", 2.2, 0.44), ("bladder", 13.8, 10.3)):
        values = np.array([d[tissue] for d in drawn])
        assert values.mean() == pytest.approx(mean, rel=0.05)
        assert values.std() == pytest.approx(sd, rel=0.15)
        assert values.min() > 0


def test_injection_decays_until_the_scan():
    tracer = load_tracers()["dotatate"]
    rng = np.random.default_rng(0)
    left = np.array([draw_injection(tracer, 80.0, rng).activity_bq_at_scan for _ in range(500)])
    # 2 MBq/kg, 50 to 75 minutes of a half-life of 67.71 minutes.
    assert left.max() < 160e6 * 1.15 * 0.5 ** (50 / 67.71)
    assert left.min() > 160e6 * 0.85 * 0.5 ** (75 / 67.71)


def test_a_tracer_for_men_gets_men():
    assert {make_patient(seed, "psma").sex for seed in range(20)} == {"male"}
    assert {make_patient(seed, "fdg").sex for seed in range(20)} == {"male", "female"}


def test_organs_have_human_volumes():
    """Litres within the adult range (ICRP Publication 89 masses, generously spread)."""
    total = {}
    for seed in (1, 2, 3):
        labels = make_phantom(seed, "fdg", BODY).labels
        for name, tissue in load_tissues().items():
            total.setdefault(name, []).append((labels == tissue.label).sum() * VOXEL_MM**3 / 1e6)
    ranges = {
        "liver": (1.0, 2.3), "spleen": (0.06, 0.4), "lung": (2.0, 6.0), "kidney_cortex": (0.15, 0.5),
        "brain_grey": (0.6, 1.1), "brain_white": (0.4, 0.8), "myocardium": (0.08, 0.3), "bladder": (0.02, 0.6),
    }  # fmt: skip
    for name, (low, high) in ranges.items():
        assert low < np.mean(total[name]) < high, (name, total[name])


def test_weight_of_the_body_is_near_the_patients(phantom):
    """Attenuation is nearly proportional to density: its sum over the body (vertex to mid-thigh) weighs it."""
    litres = phantom.attenuation.sum(dtype=float) / 0.096 * VOXEL_MM**3 / 1e6
    assert 0.6 < litres / phantom.patient.weight_kg < 1.1


def test_labels_and_activity_agree(phantom):
    tissues = load_tissues()
    uptake = draw_uptake("fdg", generator(21, "uptake fdg"))
    for name in ("liver", "spleen", "lung", "muscle"):
        inside = phantom.labels == tissues[name].label
        assert np.median(phantom.activity[inside]) == pytest.approx(uptake[name], rel=0.15)
        assert np.median(phantom.attenuation[inside]) == pytest.approx(tissues[name].mu_per_cm, rel=0.01)
    assert phantom.activity[phantom.labels == 0].mean() < 0.005
    assert np.isfinite(phantom.activity).all()
    assert phantom.activity.min() >= 0


def test_left_and_right_are_where_they_belong(phantom):
    """Y grows to the patient's left, X to posterior, Z to superior."""
    tissues = load_tissues()
    names = ("liver", "spleen", "myocardium", "marrow", "bladder", "brain_grey")
    middle = {name: np.argwhere(phantom.labels == tissues[name].label).mean(axis=0) for name in names}
    assert middle["liver"][1] < 47 < middle["spleen"][1]
    assert middle["myocardium"][1] > 47
    assert middle["marrow"][0] > middle["bladder"][0]
    assert middle["brain_grey"][2] > middle["liver"][2] > middle["bladder"][2]


def test_affine_places_axes_as_pls():
    grid = Grid((4, 6, 10), 2.0, 100.0)
    affine = grid.affine()
    p, l, d = grid.axes()  # noqa: E741
    world = affine @ [1, 2, 3, 1]
    np.testing.assert_allclose(world[:3], [-l[2], -p[1], -d[3]])
    assert d[9] == pytest.approx(101.0)


def test_the_same_patient_at_another_voxel_size():
    coarse = make_phantom(33, "dotatate", Grid((48, 72, 40), 6.0, 430.0))
    fine = make_phantom(33, "dotatate", Grid((96, 144, 80), 3.0, 430.0))
    pooled = fine.activity.reshape(48, 2, 72, 2, 40, 2).mean(axis=(1, 3, 5))
    assert coarse.activity.sum(dtype=float) == pytest.approx(pooled.sum(dtype=float), rel=0.02)
    assert np.corrcoef(coarse.activity.ravel(), pooled.ravel())[0, 1] > 0.985


def test_a_painted_sphere_has_its_volume_at_any_voxel_size():
    for voxel in (1.0, 2.0, 4.0):
        size = int(48 / voxel)
        canvas = Canvas(Grid((size,) * 3, voxel, -24.0), np.random.default_rng(0), bend_mm=0.0)
        canvas.paint(Ellipsoid((1.3, -0.7, 0.4), (10.0,) * 3), 2.0, 0.1, 7)
        assert canvas.activity.sum() * voxel**3 == pytest.approx(2 * 4 / 3 * np.pi * 1000, rel=0.015)
        assert (canvas.labels == 7).sum() * voxel**3 == pytest.approx(4 / 3 * np.pi * 1000, rel=0.1)


def test_random_field_has_its_length_at_any_voxel_size():
    field = RandomField(np.random.default_rng(2), 15.0)
    coarse, fine = field.on(Grid((40, 60, 50), 6.0, 300.0)), field.on(Grid((80, 120, 100), 3.0, 300.0))
    assert fine.std() == pytest.approx(1.0, rel=0.15)
    np.testing.assert_allclose(coarse, fine.reshape(40, 2, 60, 2, 50, 2).mean(axis=(1, 3, 5)), atol=0.25)


def test_lesions_keep_to_their_ranges():
    patient = draw_patient(np.random.default_rng(0))
    parts, uptake = list(anatomy(patient, 0)), draw_uptake("fdg", np.random.default_rng(0))
    drawn = [draw_lesions(parts, uptake, np.random.default_rng(seed)) for seed in range(60)]
    assert min(len(lesions) for lesions in drawn) == 0
    assert max(len(lesions) for lesions in drawn) <= MAX_LESIONS
    every = [lesion for lesions in drawn for lesion in lesions]
    assert {lesion.site for lesion in every} == {"liver", "lung", "node", "bone", "soft tissue"}
    assert {lesion.kind for lesion in every} == {"spherical", "irregular", "necrotic"}
    assert all(DIAMETER_MM[0] <= lesion.diameter_mm <= DIAMETER_MM[1] for lesion in every)
    assert all(CONTRAST[0] <= lesion.contrast <= CONTRAST[1] for lesion in every)
    assert all(len(lesion.solids) == (2 if lesion.kind == "necrotic" else 1) for lesion in every)


def test_lesions_are_labelled_where_they_are_hot():
    found = 0
    for seed in range(40, 44):
        phantom = make_phantom(seed, "fdg", BODY)
        for number, lesion in enumerate(phantom.lesions):
            inside = phantom.labels == 100 + number
            if lesion.kind == "spherical" and lesion.diameter_mm > 20 and inside.sum() > 30:
                assert np.median(phantom.activity[inside]) == pytest.approx(lesion.solids[0][1], rel=0.25)
                found += 1
    assert found
