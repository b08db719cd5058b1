"""Files that say little and unfold to much, change by a bit, or are no files: refused at once, whoever reads them."""

import gzip
import io
import os
import subprocess
import sys
import zipfile
import zlib

import nibabel as nib
import numpy as np
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian

from guided_diffusion.errors import InputError
from guided_diffusion.image_datasets import open_pair
from guided_diffusion.pet.contents import contents_of
from guided_diffusion.pet.formats.arrays import read_channel
from guided_diffusion.pet.volume import load_volume
from tests.dicom_series import write_series


def npy_of_zeros(shape, kind, fortran_order=False):
    """The header and the first bytes of an array; the rest are zeros."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"descr": np.dtype(kind).str, "fortran_order": fortran_order, "shape": shape}
    )
    return stream.getvalue()


def npz_bomb(folder):
    """A quarter of a megabyte that unfolds to a quarter of a gigabyte."""
    with (
        zipfile.ZipFile(folder / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("arr_0.npy", "w") as stream,
    ):
        stream.write(npy_of_zeros((2, 128, 512, 256), "f8", fortran_order=True))
        for _ in range(2**8):
            stream.write(bytes(2**20))
    return folder / "bomb.npz"


def zip_bomb(folder):
    paths = write_series(folder / "s", np.ones((4, 4, 3), np.int16))
    with zipfile.ZipFile(folder / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(paths[0], "a.dcm")
        with archive.open("b.dcm", "w") as stream:
            for _ in range(2**8):
                stream.write(bytes(2**20))
    return folder / "bomb.zip"


def nifti_bomb(folder):
    header = nib.Nifti1Image(np.ones((4, 4, 4), np.float32), np.eye(4)).header
    header["vox_offset"], header["magic"] = 2**28, b"n+1"
    with gzip.open(folder / "bomb.nii.gz", "wb") as stream:
        stream.write(header.binaryblock + bytes(4))
        for _ in range(2**8 + 1):
            stream.write(bytes(2**20))
    return folder / "bomb.nii.gz"


def dicom_bomb(folder):
    stored = np.full((4, 4, 3), 20000, np.int16)
    paths = write_series(folder / "s", stored, syntax=DeflatedExplicitVRLittleEndian)
    assert load_volume(folder / "s").data.shape == (4, 4, 3)
    whole = paths[0].read_bytes()
    start = 144 + int.from_bytes(whole[140:144], "little")
    packer = zlib.compressobj(9, wbits=-15)
    packed = b"".join(packer.compress(bytes(2**20)) for _ in range(2**8)) + packer.flush()
    paths[0].write_bytes(whole[:start] + packed)
    return folder / "s"


LOAD = """
import resource, sys, time
from guided_diffusion.errors import InputError
from guided_diffusion.pet.volume import load_volume
for path in sys.argv[1:]:
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    try:
        load_volume(path)
    except InputError as error:
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, time.perf_counter() - began, error)
"""


def test_bombs_are_refused_quickly_and_without_the_memory(tmp_path):
    bombs = []
    for make in (npz_bomb, zip_bomb, nifti_bomb, dicom_bomb):
        folder = tmp_path / make.__name__
        folder.mkdir()
        bombs.append(make(folder))
    done = subprocess.run([sys.executable, "-c", LOAD, *bombs], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == len(bombs)
    for bomb, line in zip(bombs, lines, strict=True):
        kibibytes, seconds, message = line.split(" ", 2)
        assert message.startswith(str(bomb))
        assert "would unfold to" in message
        assert int(kibibytes) < 100 * 1024
        assert float(seconds) < 10


def refused(load, path, whole, places):
    """How many of the files with one bit flipped at these places are refused."""
    count = 0
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        try:
            load(path)
        except InputError:
            count += 1
    path.write_bytes(whole)
    return count


@pytest.mark.parametrize("name", ["v.nii.gz", "pair.npz", "packed.npz"])
def test_every_flipped_bit_of_the_voxels_is_refused(name, tmp_path):
    pair = np.random.default_rng(0).uniform(1, 9, (2, 5, 6, 7)).astype(np.float32)
    nib.save(nib.Nifti1Image(pair[0], np.eye(4)), tmp_path / "v.nii.gz")
    np.savez(tmp_path / "pair.npz", pair)
    np.savez_compressed(tmp_path / "packed.npz", pair)
    path = tmp_path / name
    whole = path.read_bytes()
    places = range(len(whole) // 4, 3 * len(whole) // 4, 29)
    loads = [load_volume] if name == "v.nii.gz" else [load_volume, open_pair, lambda path: read_channel(path, 0)]
    for load in loads:
        load(path)
        assert refused(load, path, whole, places) == len(places)


def test_nobody_waits_for_a_pipe_in_a_folder_of_slices(tmp_path):
    write_series(tmp_path / "s", np.full((4, 4, 3), 20000, np.int16))
    os.mkfifo(tmp_path / "s" / "0000.dcm")
    assert load_volume(tmp_path / "s").data.shape == (4, 4, 3)
    assert contents_of(tmp_path / "s").scans == (tmp_path / "s",)


def test_more_memory_than_is_free_is_refused_before_it_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr("guided_diffusion.gate.available_bytes", lambda: 1000)
    np.savez(tmp_path / "v.npz", np.ones((9, 9, 9), np.float32))
    nib.save(nib.Nifti1Image(np.ones((9, 9, 9), np.float32), np.eye(4)), tmp_path / "v.nii")
    write_series(tmp_path / "s", np.ones((9, 9, 9), np.int16))
    for name in ("v.npz", "v.nii", "s"):
        with pytest.raises(InputError, match=f"{name}: takes .* GiB of memory, but"):
            load_volume(tmp_path / name)
