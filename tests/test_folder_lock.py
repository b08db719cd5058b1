"""One writer per folder: a living one is respected, a dead one is not."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from guided_diffusion import folder_lock
from guided_diffusion.errors import InputError
from guided_diffusion.folder_lock import LOCK_NAME, FolderLock
from tests.mpi import ROOT, assert_refused, run_script

HOLDER = """
import sys, time
from pathlib import Path
from guided_diffusion.folder_lock import FolderLock
lock = FolderLock(Path(sys.argv[1]))
print("locked", flush=True)
time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock of a folder."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout.readline() == "locked\n"
        yield process
        process.kill()


def elsewhere(folder):
    """The lock as a process on another host would have written it."""
    lock = FolderLock(folder)
    marker = folder / LOCK_NAME
    text = marker.read_text()
    lock.release()
    mine = f"host={os.uname().nodename}"
    assert mine in text
    marker.write_text(text.replace(mine, "host=another-host"))
    return marker


def test_a_living_holder_is_named(tmp_path, holder):
    with pytest.raises(InputError, match=rf"process {holder.pid} on {os.uname().nodename} is writing into this folder"):
        FolderLock(tmp_path)


def test_a_killed_holder_is_followed_at_once_and_its_leftovers_go(tmp_path, holder):
    holder.kill()
    holder.wait()
    left = tmp_path / ".0123456789abcdef~samples.npz"
    left.write_bytes(b"half")
    (tmp_path / "samples.npz").write_bytes(b"whole")
    began = time.monotonic()
    FolderLock(tmp_path).release()
    assert time.monotonic() - began < 5
    assert [path.name for path in tmp_path.iterdir()] == ["samples.npz"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the state of a process is known from /proc")
def test_a_killed_holder_that_nobody_collects_is_followed(tmp_path, holder):
    """As where a launcher was killed before its ranks ended."""
    holder.kill()
    stat = Path(f"/proc/{holder.pid}/stat")
    while ") Z " not in stat.read_text():
        time.sleep(0.01)
    FolderLock(tmp_path).release()
    assert ") Z " in stat.read_text()


@pytest.mark.parametrize("content", [b"", b"proto", b"\0" * 40])
def test_a_lock_without_a_name_is_taken_over(tmp_path, monkeypatch, content):
    """As a process leaves it that is killed between making the file and writing into it."""
    monkeypatch.setattr(folder_lock, "_SPARE_SECONDS", 0.2)
    (tmp_path / LOCK_NAME).write_bytes(content)
    lock = FolderLock(tmp_path)
    with pytest.raises(InputError, match=f"process {os.getpid()} on"):
        FolderLock(tmp_path)
    lock.release()
    assert list(tmp_path.iterdir()) == []


def test_of_two_runs_that_take_over_a_lock_only_one_gets_it(tmp_path, monkeypatch):
    """As where the other one was faster, after both had found the lock of a run that has ended."""
    monkeypatch.setattr(folder_lock, "_SPARE_SECONDS", 0.2)
    (tmp_path / LOCK_NAME).write_bytes(b"")
    wait, faster = FolderLock._wait_for_a_name, []

    def wait_while_another_takes_it(_lock):
        monkeypatch.setattr(FolderLock, "_wait_for_a_name", wait)
        faster.append(FolderLock(tmp_path))

    monkeypatch.setattr(FolderLock, "_wait_for_a_name", wait_while_another_takes_it)
    with pytest.raises(InputError, match=f"process {os.getpid()} on"):
        FolderLock(tmp_path)
    named = (tmp_path / LOCK_NAME).read_text()
    assert f"host={os.uname().nodename}" in named
    assert [path.name for path in tmp_path.iterdir()] == [LOCK_NAME]
    faster[-1].release()
    assert list(tmp_path.iterdir()) == []


def test_a_silent_holder_on_another_host_is_followed_after_its_lease(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_lock, "LEASE_SECONDS", 1.0)
    elsewhere(tmp_path)
    began = time.monotonic()
    lock = FolderLock(tmp_path)
    assert time.monotonic() - began >= 1.0
    assert f"host={os.uname().nodename}" in (tmp_path / LOCK_NAME).read_text()
    lock.release()


def test_a_holder_on_another_host_that_gives_signs_of_life_is_respected(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_lock, "LEASE_SECONDS", 1.0)
    monkeypatch.setattr(folder_lock, "_SPARE_SECONDS", 0.5)
    marker = elsewhere(tmp_path)
    ended = threading.Event()

    def give_signs():
        while not ended.wait(0.1):
            os.utime(marker)

    thread = threading.Thread(target=give_signs)
    thread.start()
    try:
        with pytest.raises(InputError, match="on another-host is writing into this folder"):
            FolderLock(tmp_path)
    finally:
        ended.set()
        thread.join()


def test_a_run_whose_folder_was_taken_over_ends(tmp_path):
    """As after a long sleep of its machine, when another host did not see its signs of life."""
    code = HOLDER.replace(
        "lock = FolderLock", "import guided_diffusion.folder_lock as f; f.LEASE_SECONDS = 1.0\nlock = FolderLock"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as run:
        assert run.stdout.readline() == "locked\n"
        marker = tmp_path / LOCK_NAME
        other = tmp_path / "other"
        other.write_text(marker.read_text().replace("token=", "token=0"))
        other.replace(marker)
        _, errors = run.communicate(timeout=60)
    assert run.returncode == 1
    assert f"error: {tmp_path}: another run has taken this folder over" in errors


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/etc/hostname", path)])
def test_something_else_in_the_place_of_the_lock_is_refused(tmp_path, make):
    make(tmp_path / LOCK_NAME)
    with pytest.raises(InputError, match=r"\.lock: is no regular file; remove it"):
        FolderLock(tmp_path)


def test_a_second_run_into_a_folder_gets_one_line(small, tmp_path, holder):
    before = sorted(path.name for path in tmp_path.iterdir())
    files = ("--base_samples", small / "scan.npz", "--model_path", small / "small.pt", "--save_dir", tmp_path)
    assert_refused(run_script("scripts/test.py", *files), str(tmp_path), f"process {holder.pid}", "another folder")
    assert sorted(path.name for path in tmp_path.iterdir()) == before
