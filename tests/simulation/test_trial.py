"""The data set: plan, files, reproducibility over ranks, resuming, bad input."""

import csv
import json
import os

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import binary_erosion

from guided_diffusion.commands import simulate as simulate_command
from guided_diffusion.errors import InputError
from guided_diffusion.pet.trial_manifest import read_manifest
from guided_diffusion.pet.volume import load_volume
from guided_diffusion.simulation.scanner import load_scanners
from guided_diffusion.simulation.tracers import load_tracers
from guided_diffusion.simulation.trial import (
    GRID_PRESETS,
    Trial,
    VirtualSubject,
    is_complete,
    open_trial,
    plan_subject,
    simulate,
    subject_grid,
    write_subject,
)
from tests.mpi import assert_refused, needs_mpiexec, run_script, succeed

SCRIPT = "scripts/simulate.py"


def trial(**changes) -> Trial:
    settings = {
        "preset": "demo", "seed": 3, "tracers": list(load_tracers()), "scanners": list(load_scanners()),
        "doses": ["1/20"], "split": "auto",
    }  # fmt: skip
    return Trial(**settings | changes)


def test_every_tracer_meets_every_scanner():
    pairs = [(s.tracer, s.scanner) for s in (plan_subject(trial(), n) for n in range(16))]
    assert len(set(pairs)) == 16
    pairs = {plan_subject(trial(tracers=["fdg"]), n).scanner for n in range(4)}
    assert pairs == set(load_scanners())


def test_subjects_differ_and_do_not_depend_on_how_many_there_are():
    seeds = [plan_subject(trial(), n).seed for n in range(200)]
    assert len(set(seeds)) == 200
    assert seeds[:5] == [plan_subject(trial(doses=["1/2"]), n).seed for n in range(5)]
    assert plan_subject(trial(seed=4), 0).seed != seeds[0]


def test_splits_are_eight_to_one_to_one_in_every_ten():
    splits = [plan_subject(trial(), n).split for n in range(40)]
    for first in range(0, 40, 10):
        block = splits[first : first + 10]
        assert (block.count("train"), block.count("validation"), block.count("test")) == (8, 1, 1)
    assert {plan_subject(trial(split="test"), n).split for n in range(10)} == {"test"}


def test_field_of_view_lies_between_vertex_and_thigh():
    tops = []
    for n in range(30):
        subject = plan_subject(trial(), n)
        grid = subject_grid(subject, "demo")
        assert grid.shape == GRID_PRESETS["demo"][0]
        tops.append(grid.top_mm)
    assert -5 <= min(tops) < 100
    assert 300 < max(tops) < 700


@pytest.mark.parametrize("dose", ["1/3", "2", "abc", "1/20 "])
def test_unknown_dose_is_refused(dose):
    with pytest.raises(InputError, match=r"is not simulated; choose from 1, 1/2, 1/4, 1/10, 1/20, 1/50, 1/100"):
        trial(doses=[dose])


@pytest.mark.parametrize("text", ["1/4,1/20", "1/4, 1/20", "0.25,0.05,1/4", " 1/4 ,5e-2"])
def test_doses_may_be_written_in_several_ways(text, monkeypatch, tmp_path):
    """All of them name the same data set."""
    monkeypatch.setattr(simulate_command, "share_tasks", lambda *_, **__: None)
    simulate_command.simulate_trial(simulate_command.create_parser(""), ["--out", str(tmp_path), "--doses", text])
    assert json.loads((tmp_path / "trial.json").read_text())["doses"] == ["1/4", "1/20"]
    assert [row["pair"] for row in read_manifest(tmp_path)] == ["sub-0000/pair_1-4.npz", "sub-0000/pair_1-20.npz"]


def test_other_settings_in_the_same_folder_are_refused(tmp_path):
    open_trial(trial(), tmp_path)
    open_trial(trial(), tmp_path)
    with pytest.raises(InputError, match=r"trial\.json: this data set was begun with other settings"):
        open_trial(trial(seed=9), tmp_path)
    (tmp_path / "trial.json").write_text("{")
    with pytest.raises(InputError, match=r"trial\.json: is damaged"):
        open_trial(trial(), tmp_path)


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "trial.json")
    with pytest.raises(InputError, match=r"trial\.json: .*is a named pipe"):
        open_trial(trial(), tmp_path)
    subject = plan_subject(trial(), 0)
    (tmp_path / subject.name).mkdir()
    os.mkfifo(tmp_path / subject.name / "subject.json")
    assert not is_complete(subject, tmp_path)


def test_a_dose_does_not_depend_on_which_others_were_asked_for(monkeypatch):
    monkeypatch.setitem(GRID_PRESETS, "demo", ((48, 72, 60), 6.6))
    subject = VirtualSubject("s", 5, "fdg", "mct", "test")
    one = simulate(subject, "demo", [0.05])
    two = simulate(subject, "demo", [0.5, 0.05])
    np.testing.assert_array_equal(one.images[0.05], two.images[0.05])
    truth, normal = one.phantom.activity.sum(dtype=float), one.images[1.0].sum(dtype=float)
    assert normal == pytest.approx(truth, rel=0.02)


def test_a_subject_whose_files_were_deleted_is_made_again(monkeypatch, tmp_path):
    """As scratch disks do with old files, while subject.json stays."""
    monkeypatch.setitem(GRID_PRESETS, "demo", ((48, 72, 40), 6.6))
    settings = trial(doses=["1/4", "1/20"], tracers=["fdg"], scanners=["mct"])
    subject = plan_subject(settings, 0)
    write_subject(settings, subject, tmp_path)
    folder = tmp_path / subject.name
    before = {path.name: np.load(path)["arr_0"] for path in folder.glob("*.npz")}
    assert sorted(before) == ["pair_1-20.npz", "pair_1-4.npz"]
    listed = json.loads((folder / "subject.json").read_text())["files"]
    files = sorted(path.name for path in folder.iterdir())
    assert listed == [f"{subject.name}/{name}" for name in files if name != "subject.json"]
    (folder / "pair_1-4.npz").write_text("mine")
    write_subject(settings, subject, tmp_path)
    assert (folder / "pair_1-4.npz").read_text() == "mine"  # nothing is missing
    (folder / "truth.nii.gz").unlink()
    write_subject(settings, subject, tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == files
    for name, pair in before.items():
        np.testing.assert_array_equal(np.load(folder / name)["arr_0"], pair)
    assert is_complete(subject, tmp_path)
    for damaged in ('{"name', "[]", '{"files": [1]}', '{"files": 1}'):
        (folder / "subject.json").write_text(damaged)
        assert not is_complete(subject, tmp_path)


@pytest.fixture(scope="module")
def data_set(tmp_path_factory):
    """Two demo subjects made by two ranks."""
    out = tmp_path_factory.mktemp("trial")
    succeed(SCRIPT, *arguments(out), ranks=2)
    return out


def arguments(out, subjects=2) -> list[str]:
    return ["--subjects", str(subjects), "--seed", "3", "--doses", "1/20", "--out", str(out)]


@needs_mpiexec
def test_manifest_and_files(data_set):
    with (data_set / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["subject"], row["tracer"], row["scanner"]) for row in rows] == [
        ("sub-0000", "fdg", "quadra"), ("sub-0001", "psma", "uexplorer"),
    ]  # fmt: skip
    labels = json.loads((data_set / "labels.json").read_text())
    assert labels["lesion_01"] == 100
    assert labels["lesion_30"] == 129
    for row in rows:
        assert (float(row["dose"]), float(row["voxel_mm"])) == (0.05, 3.3)
        pair = np.load(data_set / row["pair"], allow_pickle=False)
        assert pair["arr_0"].shape == (2, 96, 144, 180)
        assert pair["arr_0"].dtype == np.float32
        assert str(pair["unit"]) == "SUV"
        for channel, column in enumerate(("low_dose", "normal_dose")):
            volume = load_volume(data_set / row[column])
            np.testing.assert_array_equal(volume.data, pair["arr_0"][channel])
            np.testing.assert_allclose(volume.affine, pair["affine"], atol=1e-4)
            assert nib.aff2axcodes(volume.affine) == ("P", "L", "S")
        image = nib.load(data_set / row["labels"])
        values = np.asarray(image.dataobj)
        assert values.dtype == np.uint8
        assert set(np.unique(values)) <= set(labels.values())
        truth = load_volume(data_set / row["truth"]).data
        liver = binary_erosion(values == labels["liver"], iterations=4)
        low, normal = (pair["arr_0"][channel][liver] for channel in (0, 1))
        assert normal.mean() == pytest.approx(truth[liver].mean(), rel=0.03)
        assert np.var(low - truth[liver]) > 4 * np.var(normal - truth[liver])


@needs_mpiexec
def test_one_rank_makes_the_same_data_and_finished_subjects_are_kept(data_set, tmp_path):
    folder = tmp_path / "one"
    folder.mkdir()
    for name in ("trial.json", "labels.json"):
        (folder / name).write_bytes((data_set / name).read_bytes())
    # Subject 0 counts as complete already; only subject 1 is made.
    (folder / "sub-0000").mkdir()
    (folder / "sub-0000" / "subject.json").write_text("{}")
    succeed(SCRIPT, *arguments(folder))
    assert [f.name for f in (folder / "sub-0000").iterdir()] == ["subject.json"]
    assert (folder / "manifest.csv").read_text() == (data_set / "manifest.csv").read_text()
    made = sorted(f.name for f in (folder / "sub-0001").iterdir())
    assert made == sorted(f.name for f in (data_set / "sub-0001").iterdir())
    np.testing.assert_array_equal(
        np.load(folder / "sub-0001" / "pair_1-20.npz")["arr_0"],
        np.load(data_set / "sub-0001" / "pair_1-20.npz")["arr_0"],
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--tracers", "water"], "no tracer is called 'water'; choose from fdg, psma, dotatate, fapi or all"),
        (["--scanners", "quadra,xyz"], "no scanner is called 'xyz'"),
        (["--doses", "1/7"], "dose '1/7' is not simulated"),
        (["--doses", "1/4,"], "dose '' is not simulated"),
        (["--subjects", "0"], "must be at least 1"),
        (["--seed", "-1"], "--seed -1: must be 0 or more"),
    ],
)
def test_bad_flags_are_refused_with_one_line(flags, message, tmp_path):
    assert_refused(run_script(SCRIPT, "--out", tmp_path / "out", *flags), message)


def test_unwritable_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    assert_refused(run_script(SCRIPT, "--out", tmp_path / "file" / "out"), "choose another")
