"""`.mat` of versions 5 and 7.3: what SciPy and h5py write comes back; damage and what is hidden in it do not get in."""

import subprocess
import sys

import h5py
import nibabel as nib
import numpy as np
import pytest
import scipy.io
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from guided_diffusion.errors import InputError
from guided_diffusion.pet.contents import contents_of, names_of
from guided_diffusion.pet.formats import matlab
from guided_diffusion.pet.volume import load_volume
from tests.mpi import ROOT

TYPES = ("f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8")


@given(
    shape=st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(2, 5)),
    kind=st.sampled_from(TYPES),
    packed=st.booleans(),
    others=st.booleans(),
    seed=st.integers(0, 999),
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_what_scipy_writes_comes_back(tmp_path, shape, kind, packed, others, seed):
    data = np.random.default_rng(seed).integers(0, 99, shape).astype(kind)
    more = {"a_name": "text", "before": {"in": [1, 2]}, "cells": np.array([1, "a"], dtype=object)} if others else {}
    scipy.io.savemat(tmp_path / "v.mat", more | {"suv": data}, do_compression=packed)
    np.testing.assert_array_equal(matlab.read(tmp_path / "v.mat"), data.astype(np.float32))


def test_numbers_stored_in_a_smaller_type_and_in_big_endian(tmp_path):
    """As MATLAB stores doubles that are whole numbers."""
    element = b"".join(
        [
            (6).to_bytes(4, "big") + (8).to_bytes(4, "big") + (6).to_bytes(4, "big") + bytes(4),  # class double
            (5).to_bytes(4, "big") + (12).to_bytes(4, "big") + b"".join(n.to_bytes(4, "big") for n in (2, 1, 3)),
            bytes(4),
            (3).to_bytes(2, "big") + (1).to_bytes(2, "big") + b"suv\0",  # a small element: size, type, text
            (2).to_bytes(4, "big") + (6).to_bytes(4, "big") + bytes([1, 2, 3, 4, 5, 250]) + bytes(2),
        ]
    )
    head = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x01\x00MI"
    tag = (14).to_bytes(4, "big") + len(element).to_bytes(4, "big")
    (tmp_path / "v.mat").write_bytes(head + tag + element)
    data = matlab.read(tmp_path / "v.mat")
    assert data.tolist() == [[[1, 3, 5]], [[2, 4, 250]]]


def test_hdf5_comes_back_with_matlabs_axes(tmp_path):
    data = np.random.default_rng(0).uniform(size=(4, 5, 6))
    with h5py.File(tmp_path / "v.mat", "w", userblock_size=512) as file:
        file.create_dataset("suv", data=data.T, chunks=(2, 2, 2), compression="gzip", shuffle=True)
    np.testing.assert_array_equal(matlab.read(tmp_path / "v.mat"), data.astype(np.float32))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"suv": np.ones((2, 2))}, "has shape"),
        ({"suv": np.ones((2, 2, 2)) * 1j}, "no array of real numbers"),
        ({"suv": "text"}, "no array of real numbers"),
        ({"suv": {"x": 1}}, "no array of real numbers"),
        ({"pet": np.ones((2, 2, 2))}, "no array named suv"),
    ],
)
def test_what_is_no_volume_is_named(content, words, tmp_path):
    scipy.io.savemat(tmp_path / "v.mat", content)
    with pytest.raises(InputError, match=rf"v\.mat: .*{words}"):
        matlab.read(tmp_path / "v.mat")


@pytest.mark.parametrize("packed", [True, False])
def test_damage_never_ends_otherwise_than_in_one_line(tmp_path, packed):
    """SciPy's reader dies of some of these."""
    scipy.io.savemat(tmp_path / "v.mat", {"suv": np.arange(24.0).reshape(2, 3, 4)}, do_compression=packed)
    whole = (tmp_path / "v.mat").read_bytes()
    refused = 0
    for place in range(124, len(whole)):
        for value in (0, 255, whole[place] ^ 1):
            (tmp_path / "v.mat").write_bytes(whole[:place] + bytes([value]) + whole[place + 1 :])
            try:
                matlab.read(tmp_path / "v.mat")
            except InputError:
                refused += 1
    assert refused > 100


def bomb_of_zeros(folder):
    """A thousand bytes that unfold to gigabytes: chunks that were never written."""
    with h5py.File(folder / "v.mat", "w") as file:
        file.create_dataset("suv", (512, 1024, 1024), "f8", chunks=(1, 1024, 1024), compression="gzip")


def link_elsewhere(folder):
    with h5py.File(folder / "other.mat", "w") as file:
        file["suv"] = np.ones((2, 2, 2))
    with h5py.File(folder / "v.mat", "w") as file:
        file["suv"] = h5py.ExternalLink("other.mat", "suv")


def virtual(folder):
    layout = h5py.VirtualLayout((2, 2, 2), "f8")
    layout[:] = h5py.VirtualSource("other.mat", "suv", (2, 2, 2))
    with h5py.File(folder / "v.mat", "w") as file:
        file.create_virtual_dataset("suv", layout)


def huge_chunks(folder):
    with h5py.File(folder / "v.mat", "w") as file:
        file.create_dataset("suv", (2, 2, 2), "f8", chunks=(1024, 1024, 16), maxshape=(None, None, None))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (bomb_of_zeros, "would unfold to 4,294,967,296"),
        (link_elsewhere, "no array named suv"),
        (virtual, "unusual way"),
        (huge_chunks, "unusual way"),
    ],
)
def test_what_hdf5_can_hide_is_not_followed(make, words, tmp_path):
    make(tmp_path)
    with pytest.raises(InputError, match=rf"v\.mat: .*{words}"):
        matlab.read(tmp_path / "v.mat")


def test_damage_does_not_make_hdf5_take_memory(tmp_path):
    """A superblock without addresses before the whole file: found by fuzzing, 280 MB for 6 KB."""
    with h5py.File(tmp_path / "v.mat", "w", userblock_size=512) as file:
        file.create_dataset("suv", data=np.ones((5, 6, 7)), chunks=(2, 3, 4), compression="gzip", fletcher32=True)
    whole = (tmp_path / "v.mat").read_bytes()
    superblock = whole[512:560] + b"\xff" + bytes(101)
    (tmp_path / "v.mat").write_bytes(whole[:512] + superblock + whole[512:])
    script = (
        "import resource, sys\nfrom pathlib import Path\nfrom guided_diffusion.errors import InputError\n"
        "from guided_diffusion.pet.formats import matlab\n"
        "own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try:\n    matlab.read(Path(sys.argv[1]))\nexcept InputError as error:\n    print(error)\n"
        "print(own, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - own,"
        " resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "v.mat"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    refusal, sizes = done.stdout.splitlines()
    assert "is no complete .mat file" in refusal
    libraries, taken, of_child = map(int, sizes.split())  # in KiB
    assert taken < 20_000
    assert of_child < libraries + 200_000


def test_matrices_of_registration_are_no_scans(tmp_path):
    """As SPM, ANTs and FLIRT write them. A small image in a `.mat` is one, and what is damaged is refused by name."""
    (tmp_path / "a").mkdir()
    image = np.random.default_rng(0).uniform(0, 9, (4, 5, 6)).astype(np.float32)
    nib.save(nib.Nifti1Image(image, np.diag([-4.0, -4, 4, 1])), tmp_path / "a" / "PET.nii.gz")
    scipy.io.savemat(tmp_path / "a" / "PET.mat", {"mat": np.eye(4)})
    affine = {"AffineTransform_double_3_3": np.zeros((12, 1)), "fixed": np.zeros((3, 1))}
    scipy.io.savemat(tmp_path / "a" / "PET_0GenericAffine.mat", affine, format="4")
    (tmp_path / "a" / "PET2T1.mat").write_text("1 0 0 0\n0 1 0 0\n0 0 1.5e0 -2\n0 0 0 1\n")
    found = contents_of(tmp_path)
    assert (names_of(found.scans, tmp_path), found.notices) == (
        ["a"],
        ("left out (no array suv in it, but a matrix): a/PET.mat, a/PET2T1.mat, a/PET_0GenericAffine.mat",),
    )
    np.testing.assert_array_equal(load_volume(tmp_path / "a").data, image)
    (tmp_path / "b").mkdir()
    scipy.io.savemat(tmp_path / "b" / "image.mat", {"mat": np.eye(4), "suv": image})
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "short.mat").write_bytes((tmp_path / "b" / "image.mat").read_bytes()[:200])
    (tmp_path / "c" / "zeros.mat").write_bytes(bytes(300))
    scipy.io.savemat(tmp_path / "c" / "other_name.mat", {"pet": np.random.default_rng(0).uniform(size=(20, 20, 20))})
    assert names_of(contents_of(tmp_path).scans, tmp_path) == ["a", "b", "c/other_name", "c/short", "c/zeros"]
