"""Writing on file systems that fail in the ways of clusters: without synchronisation, remounted, gone."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from guided_diffusion.errors import Failure, InputError
from guided_diffusion.files import atomic_write, sha256_of_code, writable_folder


def failing(number):
    """A function that raises the error of a number, as the system does."""

    def fail(*_args, **_kwargs):
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_that_cannot_synchronise_is_written(number, monkeypatch, tmp_path):
    monkeypatch.setattr(os, "fsync", failing(number))
    with atomic_write(tmp_path / "result") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "result").read_text() == "new"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT])
@pytest.mark.parametrize("is_gone", [False, True])
def test_a_disk_that_fails_is_no_fault_of_the_program(number, is_gone, monkeypatch, tmp_path):
    monkeypatch.setattr(os, "fsync", failing(number))
    if is_gone:
        monkeypatch.setattr(shutil, "disk_usage", failing(number))
    refused = pytest.raises(Failure, match=f"result: {os.strerror(number)}.*run it again")
    with refused, atomic_write(tmp_path / "result") as temporary:
        temporary.write_text("new")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("s3://bucket/out", "written to local folders"),
        ("gs:/out", "local folders"),
        ("~/out", "has not replaced ~"),
        ("out\r", "Windows line ends"),
    ],
)
def test_names_that_mean_another_place_are_not_made_here(name, words, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=words):
        writable_folder(name)
    with pytest.raises(InputError, match=words), atomic_write(Path(name) / "result.csv"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_the_digest_of_code_is_that_of_its_python_files(tmp_path):
    (tmp_path / "package" / "part").mkdir(parents=True)
    (tmp_path / "package" / "part" / "a.py").write_text("one = 1\n")
    (tmp_path / "b.py").write_text("two = 2\n")
    places = [tmp_path / "package", tmp_path / "b.py"]
    before = sha256_of_code(places)
    (tmp_path / "package" / "notes.txt").write_text("three")
    assert sha256_of_code(places) == before
    (tmp_path / "package" / "part" / "a.py").write_text("one = 2\n")
    assert sha256_of_code(places) != before
