"""Acquisitions at random: ranges, families held out, and images on the scanner's own grid."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guided_diffusion.commands.simulate import create_parser, simulate_trial
from guided_diffusion.errors import InputError
from guided_diffusion.pet.geometry import resample_like, to_model_grid
from guided_diffusion.pet.grid import Volume
from guided_diffusion.pet.trial_manifest import read_manifest
from guided_diffusion.pet.volume import load_volume
from guided_diffusion.simulation import random_trial as random_trial_module
from guided_diffusion.simulation import trial as trials
from guided_diffusion.simulation.native_scan import overlap_weights
from guided_diffusion.simulation.random_acquisition import HELD_OUT, draw_acquisition, is_held_out, load_ranges
from guided_diffusion.simulation.random_shapes import make_random_shapes
from guided_diffusion.simulation.random_trial import (
    RandomTrial,
    loses_uptake,
    random_manifest_rows,
    write_random_subject,
)
from tests.mpi import assert_refused, run_script

DOSES = ["1", "1/20"]


def random_trial(scanner: str, **changes) -> RandomTrial:
    settings = {"native": True, "reconstructions": 2, "voxel_mm": 4.0}
    return RandomTrial("slab", 3, ["fdg"], [scanner], DOSES, "test", **settings | changes)


@pytest.mark.parametrize("kind", ["random", "random-spheres", *(f"held-out-{name}" for name in HELD_OUT)])
def test_what_is_drawn_lies_in_the_ranges_and_in_its_family(kind):
    ranges = load_ranges()
    for seed in range(60):
        drawn = draw_acquisition(kind, 3, np.random.default_rng(seed))
        assert len(drawn.reconstructions) == 3
        for name in ("axial_fov_mm", "transaxial_fwhm_mm", "axial_fwhm_mm", "scatter_fraction", "randoms_ratio"):
            assert ranges[name].low <= getattr(drawn.scanner, name) <= ranges[name].high
        for made in drawn.reconstructions:
            assert ranges["voxel_mm"].low <= made.voxel_mm <= ranges["voxel_mm"].high
            assert made.filter_fwhm_mm == 0 or 1.5 <= made.filter_fwhm_mm <= 8
            assert made.updates <= 260
            if kind.startswith("random"):
                assert not is_held_out(made)
            else:
                assert HELD_OUT[kind.removeprefix("held-out-")](made)


def test_the_whole_of_the_ranges_is_drawn():
    drawn = [draw_acquisition("random", 2, np.random.default_rng(seed)) for seed in range(300)]
    scanners = [d.scanner for d in drawn]
    counts = [s.sensitivity_cps_per_kbq / s.axial_fov_mm * s.bed_minutes * s.tof_gain for s in scanners]
    assert max(counts) / min(counts) > 30
    made = [one for d in drawn for one in d.reconstructions]
    assert {one.models_resolution for one in made} == {True, False}
    assert {one.axial_kernel for one in made} == {"none", "light", "standard", "heavy", "gaussian"}
    assert min(one.updates for one in made) < 15
    assert max(one.updates for one in made) > 200


@given(st.integers(1, 30), st.floats(0.5, 5), st.floats(0.5, 5))
def test_averaging_keeps_a_constant_and_the_sum(fine, fine_mm, coarse_mm):
    count = int(fine * fine_mm / coarse_mm)
    weights = overlap_weights(fine, fine_mm, count, coarse_mm)
    np.testing.assert_allclose(weights.sum(axis=0), 1, atol=1e-5)
    assert np.all(weights.sum(axis=1) * coarse_mm <= fine_mm * (1 + 1e-5))


def test_random_shapes_are_no_patient_and_follow_the_seed():
    grid = trials.Grid((40, 60, 24), 8.0, 300.0)
    one, again, other = (make_random_shapes(seed, grid) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.activity, again.activity)
    assert np.corrcoef(one.activity.ravel(), other.activity.ravel())[0, 1] < 0.9
    assert one.activity.min() >= 0
    assert len(np.unique(np.round(one.activity, 1))) > 20


@pytest.fixture(scope="module")
def held_out(tmp_path_factory):
    """(folder, rows, acquisition) of one subject of the coarse family at coarse settings."""
    out = tmp_path_factory.mktemp("random")
    trial = random_trial("held-out-coarse")
    subject = trials.plan_subject(trial, 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(trials.GRID_PRESETS, "slab", ((40, 60, 8), 8.0))
        write_random_subject(trial, subject, out)
    acquisition = json.loads((out / "sub-0000" / "subject.json").read_text())["acquisition"]
    return out, random_manifest_rows(trial, subject), acquisition


def test_images_lie_on_the_scanners_grid_and_hold_the_activity(held_out):
    out, rows, acquisition = held_out
    assert [row["subject"] for row in rows] == ["sub-0000"] * 4
    for row, made in zip(rows[::2], acquisition["reconstructions"], strict=True):
        normal, truth = (load_volume(out / row[kind]) for kind in ("normal_dose", "truth"))
        np.testing.assert_allclose(normal.voxel_mm, (made["voxel_mm"],) * 2 + (acquisition["slice_mm"],), rtol=1e-5)
        np.testing.assert_allclose(normal.affine, truth.affine)
        assert normal.data.sum(dtype=float) == pytest.approx(truth.data.sum(dtype=float), rel=0.05)
        assert np.corrcoef(normal.data.ravel(), truth.data.ravel())[0, 1] > 0.8


def test_pairs_are_the_prepared_native_images(held_out):
    out, rows, _ = held_out
    for row in rows:
        pair = np.load(out / row["pair"], allow_pickle=False)["arr_0"].astype(np.float32)
        low, normal = (load_volume(out / row[kind]) for kind in ("low_dose", "normal_dose"))
        model = to_model_grid(low, voxel_mm=4.0, linear=True)
        np.testing.assert_allclose(pair[0], model.data, rtol=2e-3, atol=1e-3)
        np.testing.assert_allclose(pair[1], resample_like(normal, model, linear=True).data, rtol=2e-3, atol=1e-3)


def test_a_lower_dose_is_noisier_and_a_clean_share_less_noisy(held_out, tmp_path):
    out, rows, _ = held_out
    trial = random_trial("held-out-coarse", native=False, clean_share=1.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(trials.GRID_PRESETS, "slab", ((40, 60, 8), 8.0))
        write_random_subject(trial, trials.plan_subject(trial, 0), tmp_path)
    assert not list(tmp_path.rglob("*.nii.gz"))

    def error(folder, row):
        low, reference = np.load(folder / row["pair"], allow_pickle=False)["arr_0"].astype(np.float32)
        return np.square(low - reference).mean()

    assert error(out, rows[0]) == 0
    assert 0 < error(tmp_path, rows[0]) < error(out, rows[1]) < error(tmp_path, rows[1])


def test_fixed_and_drawn_scanners_are_not_mixed(tmp_path):
    refused = run_script("scripts/simulate.py", "--out", tmp_path / "out", "--scanners", "random,quadra")
    assert_refused(refused, "no drawn scanner is called 'quadra'")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clean_share": 2.0}, "--clean_share 2: from 0 to 1"),
        ({"reconstructions": 0}, "--reconstructions 0: at least 1"),
        ({"voxel_mm": 0.0}, "--pair_voxel_mm 0: from 0.5 to 10"),
    ],
)
def test_settings_that_make_no_trial_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        random_trial("random", **changes)


@pytest.mark.parametrize("flag", ["--native", "--clean_share=1", "--pair_voxel_mm=3", "--reconstructions=4"])
def test_flags_of_drawn_scanners_are_refused_for_others(tmp_path, flag):
    out = tmp_path / "out"
    with pytest.raises(InputError, match=f"{flag.partition('=')[0]} is for drawn scanners only: --scanners random,"):
        simulate_trial(create_parser(""), ["--out", str(out), "--scanners", "quadra", flag])
    assert not out.exists()


def test_the_manifest_leaves_out_what_is_not_kept():
    trial = random_trial("random", native=False)
    rows = random_manifest_rows(trial, trials.plan_subject(trial, 0))
    assert {row["truth"] for row in rows} == {""}


def test_a_dose_that_shows_nothing_is_left_out_of_the_manifest(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(trials.GRID_PRESETS, "slab", ((40, 60, 8), 8.0))
    thinned = random_trial_module.thin

    def thin_but_without_counts_at_the_lowest(counts, rng):
        for dose, parts in thinned(counts, rng):
            yield dose, [part * 0 for part in parts] if dose == 0.01 else parts

    monkeypatch.setattr(random_trial_module, "thin", thin_but_without_counts_at_the_lowest)
    flags = ["--scanners", "random", "--preset", "slab", "--doses", "1/20,1/100", "--reconstructions", "1"]
    with caplog.at_level("INFO"):
        simulate_trial(create_parser(""), [*flags, "--out", str(tmp_path)])
    rows = read_manifest(tmp_path)
    assert [row["dose"] for row in rows] == ["0.05"]
    assert [path.name for path in tmp_path.rglob("pair_*")] == ["pair_1-20.npz"]
    assert "notice: 1 of 2 pairs left out" in caplog.text


def test_a_slice_that_lost_half_of_its_uptake_is_found():
    reference = np.zeros((8, 6, 4))
    reference[2:6, 1:5, :3] = [1.0, 2.0, 0.05]  # means over a slice of 0.33, 0.67 and 0.017
    kept = np.stack([reference * [0.6, 1.4, 0.0, 1.0], reference])
    assert not loses_uptake(kept.astype(np.float16))
    for number, lost in ((0, True), (1, True), (2, False), (3, False)):  # the last two hold no body
        pair = kept.copy()
        pair[0, :, :, number] = 0.49 * reference[:, :, number]
        assert loses_uptake(pair.astype(np.float16)) == lost


@pytest.mark.parametrize(("split", "doses"), [("train", ["0.05"]), ("test", ["0.05", "0.01"])])
def test_pairs_that_lost_uptake_are_kept_from_training_alone(tmp_path, monkeypatch, split, doses):
    monkeypatch.setitem(trials.GRID_PRESETS, "slab", ((40, 60, 8), 8.0))
    reconstruct = random_trial_module.reconstruct_all

    def with_less_of_the_lowest(raw, counts, dose):
        images = reconstruct(raw, counts, dose)
        return [Volume(image.data * np.float32(0.3 if dose == 0.01 else 1), image.affine) for image in images]

    monkeypatch.setattr(random_trial_module, "reconstruct_all", with_less_of_the_lowest)
    flags = ["--scanners", "random", "--preset", "slab", "--doses", "1/20,1/100", "--reconstructions", "1"]
    simulate_trial(create_parser(""), [*flags, "--split", split, "--out", str(tmp_path)])
    assert [row["dose"] for row in read_manifest(tmp_path)] == doses
