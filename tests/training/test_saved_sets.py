"""Sets of checkpoints: damaged ones are passed over, old ones removed, and no run replaces another one's."""

import importlib
import shutil

import pytest

from guided_diffusion.dist_util import SharedFailure
from guided_diffusion.errors import InputError
from guided_diffusion.folder_lock import FolderLock
from tests.mpi import assert_refused, run_script
from tests.training_runs import TINY, assert_same_weights, rows, run


def flip(path):
    """One bit in the middle of the file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-200])


def older(path):
    """The same file of the step before, as a copy that went wrong."""
    shutil.copy(path.with_name(path.name.replace("000004", "000002")), path)


@pytest.fixture(scope="module")
def trained(data_dir, tmp_path_factory):
    """A run of six steps, saved every second."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    run(data_dir, folder, max_steps=6, save_interval=2)
    return folder


@pytest.fixture
def four_steps(trained, tmp_path):
    """The same run as it was after four."""
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    for path in folder.glob("*000006*"):
        path.unlink()
    return folder


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("name", ["model000004.pt", "ema_0.9_000004.pt", "opt000004.pt"])
@pytest.mark.parametrize("damage", [flip, truncate, older, lambda path: path.unlink()])
def test_a_damaged_newest_set_gives_way_to_the_one_before(four_steps, trained, data_dir, name, damage, caplog):
    damage(four_steps / name)
    with caplog.at_level("INFO", logger="guided_diffusion"):
        run(data_dir, four_steps, max_steps=6, save_interval=2)
    assert f"{name}: is " in caplog.text
    assert "continuing" in caplog.text
    assert "at step 2" in caplog.text
    assert_same_weights(four_steps / "model000006.pt", trained / "model000006.pt")
    assert [row["loss"] for row in rows(four_steps / "progress.csv")] == [
        row["loss"] for row in rows(trained / "progress.csv")
    ]


@pytest.mark.parametrize("name", ["opt000003.pt", "ema_0.9_000003.pt"])
def test_a_run_killed_while_it_saves_its_first_set_begins_anew(trained, data_dir, tmp_path, monkeypatch, name):
    def full(path, *content):
        if path.name == name:
            raise RuntimeError("the power is out")
        write(path, *content)

    of_loop = "guided_diffusion.training.loop"
    writer = "save_plain" if name.startswith("opt") else "save_checkpoint"
    write = getattr(importlib.import_module(of_loop), writer)
    monkeypatch.setattr(f"{of_loop}.{writer}", full)
    with pytest.raises(SharedFailure, match="power"):
        run(data_dir, tmp_path / "run", max_steps=6, save_interval=3)
    monkeypatch.undo()
    assert (tmp_path / "run" / "model000003.pt").exists()
    run(data_dir, tmp_path / "run", max_steps=6, save_interval=2)
    assert_same_weights(tmp_path / "run" / "model000006.pt", trained / "model000006.pt")
    assert not list((tmp_path / "run").glob("*000003*"))


def test_a_run_of_damaged_sets_is_refused_and_stays(four_steps, data_dir):
    for step in (2, 4):
        flip(four_steps / f"model{step:06d}.pt")
    before = contents(four_steps)
    with pytest.raises(InputError, match=r"model000004\.pt: is damaged.*no older set.*choose another --save_dir"):
        run(data_dir, four_steps, max_steps=6)
    assert contents(four_steps) == before


@pytest.mark.parametrize("name", ["ema_0.9_000004.pt", "model000004.pt"])
def test_weights_that_do_not_continue_a_run_never_begin_one_in_its_folder(four_steps, data_dir, name):
    """A start at step 0 would replace its checkpoints and its progress."""
    (four_steps / "opt000004.pt").unlink()
    before = contents(four_steps)
    with pytest.raises(InputError, match=rf"{name}: does not continue the run in .*choose another --save_dir"):
        run(data_dir, four_steps, max_steps=6, resume_checkpoint=str(four_steps / name))
    assert contents(four_steps) == before


def test_weights_without_a_state_of_the_optimiser_are_not_trained_over(four_steps, data_dir, tmp_path):
    folder = tmp_path / "copied"
    folder.mkdir()
    shutil.copy(four_steps / "model000004.pt", folder)
    with pytest.raises(InputError, match=r"opt000004\.pt: is missing.*choose another --save_dir"):
        run(data_dir, folder, max_steps=1)
    assert [path.name for path in folder.iterdir()] == ["model000004.pt"]


def test_a_run_goes_on_only_from_the_weights_that_it_began_with(four_steps, data_dir, tmp_path):
    first, other = (four_steps / f"ema_{rate}_000004.pt" for rate in ("0.9", "0.99"))
    run(data_dir, tmp_path / "tuned", max_steps=1, resume_checkpoint=str(first))
    run(data_dir, tmp_path / "tuned", max_steps=2, resume_checkpoint=str(first))
    assert (tmp_path / "tuned" / "model000002.pt").exists()
    with pytest.raises(InputError, match=r"0\.99_000004\.pt: the run in .*tuned was begun from other weights"):
        run(data_dir, tmp_path / "tuned", max_steps=3, resume_checkpoint=str(other))
    with pytest.raises(InputError, match=r"was begun from no weights"):
        run(data_dir, four_steps, max_steps=6, resume_checkpoint=str(tmp_path / "tuned" / "model000002.pt"))


@pytest.mark.parametrize("tail", [b"\0" * 300, b"5,0.", b"5,0.1,x,,,,,,,,,,\n6,0.2,0.1,,,,,,,,,,\n", b"\xff\xfe,\n"])
def test_a_damaged_end_of_a_table_does_not_keep_a_run_from_going_on(four_steps, trained, data_dir, tail):
    table = four_steps / "progress.csv"
    lines = table.read_bytes().splitlines(keepends=True)[:5]
    table.write_bytes(b"".join(lines) + tail)
    run(data_dir, four_steps, max_steps=6, save_interval=2)
    assert [(row["step"], row["loss"]) for row in rows(table)] == [
        (row["step"], row["loss"]) for row in rows(trained / "progress.csv")
    ]


@pytest.mark.parametrize(("kept", "left"), [(0, [1, 2, 3, 4, 5]), (1, [5]), (3, [3, 4, 5])])
def test_old_sets_are_removed(data_dir, tmp_path, kept, left):
    run(data_dir, tmp_path, max_steps=5, save_interval=1, keep_sets=kept)
    for pattern in ("model{:06d}.pt", "ema_0.9_{:06d}.pt", "ema_0.99_{:06d}.pt", "opt{:06d}.pt", "digests{:06d}.json"):
        assert [step for step in range(1, 6) if (tmp_path / pattern.format(step)).exists()] == left


def test_the_set_that_a_command_names_stays(four_steps, data_dir):
    run(
        data_dir,
        four_steps,
        max_steps=6,
        save_interval=1,
        keep_sets=1,
        resume_checkpoint=f"{four_steps}/model000002.pt",
    )
    assert sorted(path.name for path in four_steps.glob("model*")) == ["model000002.pt", "model000006.pt"]


def test_a_folder_that_is_trained_into_is_refused(data_dir, tmp_path):
    lock = FolderLock(tmp_path)
    flags = [
        text for name, value in (TINY | {"data_dir": data_dir, "max_steps": 1}).items() for text in (f"--{name}", value)
    ]
    done = run_script("scripts/train.py", *flags, "--save_dir", tmp_path)
    lock.release()
    assert_refused(done, "is writing into this folder", "choose another folder")
