"""Only regular files are opened, what unfolds is bounded, checksums count, and texts are safe to print."""

import gzip
import io
import os
import socket
import time
import zipfile

import numpy as np
import pytest
import urllib3

from guided_diffusion import gate
from guided_diffusion.errors import InputError, one_line
from guided_diffusion.files import atomic_write, open_appending, sweep, temporary_beside, writable_folder


def irregular(folder):
    """One of each kind that is no regular file."""
    os.mkfifo(folder / "pipe")
    (folder / "folder").mkdir()
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(folder / "socket"))
    listening.close()
    return [(folder / "pipe", "a named pipe"), (folder / "folder", "a folder"), (folder / "socket", "a socket")]


def test_nothing_but_regular_files_is_opened(tmp_path):
    for path, kind in (*irregular(tmp_path), ("/dev/zero", "a device"), ("/dev/full", "a device")):
        with pytest.raises(InputError, match=f"is {kind}, not a file"):
            gate.admit(path)
    with pytest.raises(InputError, match="cannot be read: No such file"):
        gate.admit(tmp_path / "missing")
    with pytest.raises(InputError, match="cannot be read"):
        gate.admit("a\0b")


def test_links_are_followed_to_a_users_files_and_not_to_our_own(tmp_path):
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("file")
    assert gate.admit(tmp_path / "link") == 5
    with pytest.raises(InputError, match="is a link, not a file"):
        gate.read_small(tmp_path / "link")
    assert gate.read_small(tmp_path / "file", 5) == b"12345"
    with pytest.raises(InputError, match="larger than"):
        gate.read_small(tmp_path / "file", 4)


@pytest.mark.parametrize("make", ["zip", "gzip"])
def test_every_flipped_bit_of_the_content_is_noticed(make, tmp_path):
    content = np.random.default_rng(0).bytes(200)
    whole = gzip.compress(content)
    if make == "zip":
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            archive.writestr("a", content)
        whole = stream.getvalue()
    (tmp_path / "file").write_bytes(whole)
    assert gate.admit(tmp_path / "file") == 200
    first = whole.index(content[:8]) if make == "zip" else 10
    for place in range(first, first + 200):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        (tmp_path / "file").write_bytes(damaged)
        with pytest.raises(InputError, match="checksum"):
            gate.admit(tmp_path / "file")


@pytest.mark.parametrize("make", ["zip", "gzip"])
def test_what_unfolds_to_too_much_is_given_up(make, tmp_path, monkeypatch):
    monkeypatch.setattr(gate, "UNFOLDED_BYTES", 2**20)
    if make == "gzip":
        (tmp_path / "bomb").write_bytes(gzip.compress(bytes(2**23)))
    else:
        with zipfile.ZipFile(tmp_path / "bomb", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a", bytes(2**23))
    unfolded = []
    read = gzip.GzipFile.read
    monkeypatch.setattr(gzip.GzipFile, "read", lambda *a: unfolded.append(read(*a)) or unfolded[-1])
    with pytest.raises(InputError, match=r"bomb: .* would unfold to"):
        gate.admit(tmp_path / "bomb")
    assert sum(map(len, unfolded)) < 4 * 2**20  # and not the eight that are there


def test_zips_that_no_writer_of_ours_makes(tmp_path):
    with zipfile.ZipFile(tmp_path / "lzma.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a", b"1" * 100)
    with pytest.raises(InputError, match="unusual way"):
        gate.admit(tmp_path / "lzma.zip")
    with zipfile.ZipFile(tmp_path / "locked.zip", "w") as archive:
        archive.writestr("a", b"1" * 100)
    locked = bytearray((tmp_path / "locked.zip").read_bytes())
    locked[locked.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "locked.zip").write_bytes(locked)
    with pytest.raises(InputError, match="encrypted"):
        gate.admit(tmp_path / "locked.zip")


def test_more_memory_than_there_is_is_refused(monkeypatch):
    monkeypatch.setattr(gate, "available_bytes", lambda: 3 * 2**30)
    gate.check_memory(3 * 2**30, "a.nii")
    with pytest.raises(InputError, match=r"a\.nii: takes 4\.0 GiB of memory, but 3\.0 GiB are free"):
        gate.check_memory(4 * 2**30, "a.nii")


def test_messages_hold_no_commands_of_a_terminal():
    assert one_line("a\nb\x1b[31m\u202e\udc80 ü") == "a?b?[31m?? ü"
    assert str(InputError("file\r\n\x1b]0;gone\x07.nii: is damaged")) == "file???]0;gone?.nii: is damaged"


def test_a_link_in_place_of_a_file_is_replaced_and_what_it_leads_to_stays(tmp_path):
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "result").symlink_to("precious")
    with atomic_write(tmp_path / "result") as temporary:
        assert temporary.name != "result"
        temporary.write_text("new")
    assert (tmp_path / "precious").read_text() == "mine"
    assert not (tmp_path / "result").is_symlink()
    assert (tmp_path / "result").read_text() == "new"


def test_a_folder_in_place_of_a_file_is_named(tmp_path):
    (tmp_path / "result").mkdir()
    with pytest.raises(InputError, match="result: a folder of this name"), atomic_write(tmp_path / "result"):
        pass


def test_temporary_names_cannot_be_guessed_and_are_swept(tmp_path):
    names = {temporary_beside(tmp_path / "a.npz").name for _ in range(50)}
    assert len(names) == 50
    for name in names:
        (tmp_path / name).touch()
    temporary_beside(tmp_path / "series").mkdir()
    (tmp_path / ".hidden~of_mine").touch()
    sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".hidden~of_mine"]


def test_no_link_leads_out_of_the_folder_of_results(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "subject").symlink_to(tmp_path / "outside")
    with pytest.raises(InputError, match="subject: a link leads from there"):
        writable_folder(tmp_path / "out" / "subject", within=tmp_path / "out")
    assert writable_folder(tmp_path / "out" / "other", within=tmp_path / "out").is_dir()
    assert list((tmp_path / "outside").iterdir()) == []


def test_a_log_is_appended_to_a_regular_file_only(tmp_path):
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "link").symlink_to("precious")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe"):
        with pytest.raises(InputError, match=f"cannot write .*{name}"):
            open_appending(tmp_path / name)
    assert (tmp_path / "precious").read_text() == "mine"
    with open(open_appending(tmp_path / "log"), "a") as file:
        file.write("line")
    assert (tmp_path / "log").read_text() == "line"


def test_remote_storage_is_not_tried_for_ever_without_a_network(monkeypatch):
    """As on the nodes of a cluster; blobfile's own default is to try until there is one."""
    tries = []

    def without_network(*_args, **_request):
        tries.append(1)
        raise urllib3.exceptions.ProtocolError("no network")

    monkeypatch.setattr(urllib3.PoolManager, "request", without_network)
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)
    storage = gate.remote_storage()
    with pytest.raises(storage.Error, match="no network"):
        storage.exists("gs://bucket/model.pt")
    assert 1 < len(tries) < 20
