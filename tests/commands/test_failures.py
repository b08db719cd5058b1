"""`scripts/test.py` when the disk or the program fails: the other subjects are done, earlier results stay."""

import errno
import json
import shutil

import numpy as np
import pytest

from guided_diffusion.commands import denoise as denoise_command
from guided_diffusion.dist_util import SharedError, SharedFailure
from guided_diffusion.errors import Failure
from guided_diffusion.inference import blend_at_end, result_files, subjects
from guided_diffusion.inference.resume import FinishedPatches
from tests.denoising import arguments_of, denoise, samples_in
from tests.mpi import needs_mpiexec, run_script


@pytest.fixture
def two_subjects(small, tmp_path):
    """A folder of two scans, and the weights."""
    folder = tmp_path / "scans"
    folder.mkdir()
    for name in ("first", "second"):
        shutil.copy(small / "scan.npz", folder / f"{name}.npz")
    return folder, small / "small.pt"


def results_in(folder):
    """The bytes of all results by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name != "log.txt"}


def full(*_args, **_kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_at_one_subject_does_not_keep_the_next_from_being_done(two_subjects, tmp_path, monkeypatch, caplog):
    scans, weights = two_subjects
    save = np.savez

    def full_at_first(path, **arrays):
        return full() if "first" in str(path) else save(path, **arrays)

    monkeypatch.setattr(result_files.np, "savez", full_at_first)
    out = tmp_path / "out"
    with caplog.at_level("INFO"), pytest.raises(SharedFailure, match="1 of 2 subjects failed"):
        denoise(scans, weights, out)
    assert not list((out / "first").glob("*.npz"))
    assert not list((out / "first").glob(".*~*"))
    assert samples_in(out / "second").shape == (18, 21, 73)
    (line,) = [record.message for record in caplog.records if record.message.startswith("  failure")]
    assert "No space left on device" in line
    assert "make room" in line


def test_an_unforeseen_exception_at_one_subject_is_a_failure_of_that_one(two_subjects, tmp_path, monkeypatch, capfd):
    scans, weights = two_subjects
    describe = denoise_command.describe_run

    def fails_at_first(run, key, path, *others):
        if "first" in path:
            raise ZeroDivisionError("a fault of the program")
        return describe(run, key, path, *others)

    monkeypatch.setattr(denoise_command, "describe_run", fails_at_first)
    with pytest.raises(SharedFailure, match="1 of 2 subjects failed"):
        denoise(scans, weights, tmp_path / "out")
    assert samples_in(tmp_path / "out" / "second").shape == (18, 21, 73)
    assert "Traceback" in capfd.readouterr().err


def test_mistakes_in_the_input_alone_stay_mistakes(two_subjects, tmp_path):
    scans, weights = two_subjects
    (scans / "first.npz").write_bytes(b"no array")
    with pytest.raises(SharedError, match="1 of 2 subjects failed"):
        denoise(scans, weights, tmp_path / "out")


def test_results_of_an_earlier_run_stay_until_the_new_ones_are_complete(small, tmp_path, monkeypatch):
    files = (small / "scan.nii.gz", small / "small.pt", tmp_path / "out")
    denoise(*files)
    before = results_in(tmp_path / "out")
    monkeypatch.setattr(result_files, "save_volume", full)
    with pytest.raises(SharedFailure, match="No space left"):
        denoise(*files, "--seed", 11)
    assert results_in(tmp_path / "out") == before


def test_results_appear_together_and_the_manifest_last(small, tmp_path, monkeypatch):
    moved = []
    rename = subjects.Path.rename

    def watch(path, target):
        moved.append(subjects.Path(target).name)
        return rename(path, target)

    monkeypatch.setattr(subjects.Path, "rename", watch)
    denoise(small / "scan.nii.gz", small / "small.pt", tmp_path / "out")
    listed = json.loads((tmp_path / "out" / "run.json").read_text())["files"]
    assert sorted(moved[:-1]) == sorted(listed)
    assert moved[-1] == "run.json"


def test_a_disk_without_room_is_said_before_the_work(small, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=1000))
    monkeypatch.setattr(denoise_command, "denoise_volume", lambda *_args, **_kwargs: pytest.fail("work was begun"))
    with pytest.raises(Failure, match=r"out: about \d+ MiB will be written, and 0 MiB are free"):
        denoise(small / "scan.npz", small / "small.pt", tmp_path / "out")


@pytest.mark.parametrize("where", ["sample_batch", "kept patches"])
def test_a_failure_while_sampling_one_subject_does_not_end_the_others(two_subjects, tmp_path, monkeypatch, where):
    scans, weights = two_subjects
    if where == "sample_batch":
        sample = blend_at_end.sample_batch
        calls = []

        def fails_once(*arguments):
            calls.append(arguments)
            if len(calls) == 2:
                raise RuntimeError("an unforeseen failure")
            return sample(*arguments)

        monkeypatch.setattr(blend_at_end, "sample_batch", fails_once)
    else:
        save = FinishedPatches.save
        monkeypatch.setattr(
            FinishedPatches, "save", lambda kept, *batch: full() if "first" in str(kept.folder) else save(kept, *batch)
        )
    with pytest.raises(SharedFailure, match="1 of 2 subjects failed"):
        denoise(scans, weights, tmp_path / "out")
    assert not list((tmp_path / "out" / "first").glob("*.npz"))
    alone = denoise(scans / "second.npz", weights, tmp_path / "alone")
    np.testing.assert_array_equal(samples_in(tmp_path / "out" / "second"), samples_in(alone))


@needs_mpiexec
@pytest.mark.parametrize(
    ("fuse", "where", "rank"),
    [
        ("end", "sample_batch", 1),
        ("each_step", "sample_batch", 1),
        ("each_step", "sample_batch", 0),
        ("each_step", "make_task", 0),
        ("each_step", "Assembly.add", 0),
        ("each_step", "the network", 1),
    ],
)
def test_a_failure_on_one_rank_does_not_end_the_others(two_subjects, tmp_path, fuse, where, rank):
    """In a batch of two subjects on three ranks, the second of which has nothing to do, something fails once."""
    scans, weights = two_subjects
    script = tmp_path / "fails_once.py"
    script.write_text(
        "from guided_diffusion.commands.denoise import denoise_subjects\n"
        "from guided_diffusion.commands.denoise_flags import create_parser\n"
        "from guided_diffusion.dist_util import communicator, run_main\n"
        "from guided_diffusion.fast.fast_unet import FastUNet\n"
        "from guided_diffusion.inference import blend_at_end, blend_each_step\n"
        f"blending = blend_at_end if {fuse!r} == 'end' else blend_each_step\n"
        f"owner, name = {{'Assembly.add': (blending.Assembly, 'add'), 'the network': (FastUNet, 'forward')}}.get("
        f"{where!r}, (blending, {where!r}))\n"
        f"nth = 2 if {where!r} == 'the network' else 1\n"
        "function, calls = getattr(owner, name), []\n"
        "def fails_once(*arguments, **named):\n"
        "    calls.append(arguments)\n"
        f"    if communicator().rank == {rank} and len(calls) == nth:\n"
        f"        raise ValueError('on rank {rank} only')\n"
        "    return function(*arguments, **named)\n"
        "setattr(owner, name, fails_once)\n"
        "run_main(lambda: denoise_subjects(create_parser('')))\n"
    )
    flags = ("--fuse", fuse, "--batch_size", 4 if where == "sample_batch" else 1)
    done = run_script(str(script), *arguments_of(scans, weights, tmp_path / "out", *flags), ranks=3)
    assert done.returncode == 1, done.stderr
    assert f"on rank {rank} only" in done.stderr
    assert "1 of 2 subjects failed" in done.stderr
    assert not list((tmp_path / "out" / "first").glob("*.npz"))
    alone = denoise(scans / "second.npz", weights, tmp_path / "alone", *flags)
    np.testing.assert_array_equal(samples_in(tmp_path / "out" / "second"), samples_in(alone))


def test_a_file_where_a_subject_s_folder_goes_does_not_end_the_others(two_subjects, tmp_path):
    scans, weights = two_subjects
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "first").write_bytes(b"in the way")
    with pytest.raises(SharedError, match="1 of 2 subjects failed"):
        denoise(scans, weights, tmp_path / "out")
    assert (tmp_path / "out" / "first").read_bytes() == b"in the way"
    assert samples_in(tmp_path / "out" / "second").shape == (18, 21, 73)
