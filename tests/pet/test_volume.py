"""Volumes from files and back."""

import sys
import time
import tracemalloc
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pytest
import scipy.io

from guided_diffusion.errors import InputError
from guided_diffusion.pet.formats import arrays, nifti
from guided_diffusion.pet.grid import Volume
from guided_diffusion.pet.preparation import ModelGrid, describe
from guided_diffusion.pet.suv import SUVOverrides
from guided_diffusion.pet.volume import load_volume, save_pair, save_volume
from tests.bad_files import npy
from tests.bucket import Bucket
from tests.dicom_series import write_series
from tests.pairs import read_pair


@pytest.fixture
def pair():
    """float32 [2, X, Y, Z], every voxel different."""
    return np.random.default_rng(0).uniform(0, 12, (2, 5, 7, 9)).astype(np.float32)


@pytest.fixture
def oblique():
    turned = np.array([[0.94, -0.342, 0, -40], [0.342, 0.94, 0, 12], [0, 0, 1, -300], [0, 0, 0, 1]])
    data = np.random.default_rng(1).uniform(0, 12, (6, 5, 4)).astype(np.float32)
    return Volume(data, turned @ np.diag([-2.0, -3, 4, 1]))


def test_published_npz_is_channel_0_on_the_models_grid(tmp_path, pair):
    np.savez(tmp_path / "s.npz", pair)
    volume = load_volume(tmp_path / "s.npz")
    np.testing.assert_array_equal(volume.data, pair[0])
    assert volume.data.dtype == np.float32
    assert "".join(nib.aff2axcodes(volume.affine)) == "PLS"
    np.testing.assert_allclose(volume.voxel_mm, 1.65)
    centre = volume.affine @ [2, 3, 4, 1]
    np.testing.assert_allclose(centre[:3], 0, atol=1e-12)


def test_bare_arrays_take_the_voxel_size_and_directions_they_are_given(tmp_path, pair):
    np.savez_compressed(tmp_path / "s.npz", pair[0].astype(np.float64))
    volume = load_volume(tmp_path / "s.npz", bare_voxel_mm=(2, 3, 4), bare_axis_codes="ARI")
    np.testing.assert_array_equal(volume.data, pair[0])
    np.testing.assert_allclose(volume.affine[:3, :3], [[0, 3, 0], [2, 0, 0], [0, 0, -4]])


def test_fortran_ordered_pairs_are_read_right(tmp_path, pair):
    np.savez(tmp_path / "s.npz", np.asfortranarray(pair))
    low, normal = read_pair(tmp_path / "s.npz")
    np.testing.assert_array_equal(low.data, pair[0])
    np.testing.assert_array_equal(normal.data, pair[1])


def test_an_affine_in_fortran_order_is_not_transposed(tmp_path, oblique):
    np.savez(tmp_path / "s.npz", arr_0=oblique.data, affine=np.asfortranarray(oblique.affine))
    np.testing.assert_array_equal(load_volume(tmp_path / "s.npz").affine, oblique.affine)


def test_fortran_ordered_arrays_are_read_no_further_than_they_reach(tmp_path, pair):
    """What follows the array in its member may be a bomb."""
    content = npy(np.asfortranarray(pair[0]))
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("arr_0.npy", content + bytes(100_000_000))
    tracemalloc.start()
    np.testing.assert_array_equal(load_volume(tmp_path / "bomb.npz").data, pair[0])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000_000


@pytest.mark.parametrize("order", ["C", "F"])
def test_uncompressed_arrays_are_mapped(tmp_path, pair, order):
    stored = np.asarray(pair.astype(np.float16), order=order)
    np.savez(tmp_path / "s.npz", unit=np.array("SUV"), arr_0=stored, affine=np.eye(4))
    mapped = arrays.map_npz(tmp_path / "s.npz")
    assert isinstance(mapped, np.memmap)
    assert mapped.dtype == np.float16
    assert not mapped.flags.writeable
    np.testing.assert_array_equal(mapped, stored)
    np.savez_compressed(tmp_path / "small.npz", stored)
    assert arrays.map_npz(tmp_path / "small.npz") is None


def test_one_thread_at_a_time_parses_a_header(tmp_path, monkeypatch):
    """CPython now and then raises SystemError where several do."""
    np.savez(tmp_path / "s.npz", arr_0=np.ones((2, 2, 2), np.float32))
    read, inside, most = np.lib.format.read_array_header_1_0, [], []

    def read_slowly(stream):
        inside.append(stream)
        time.sleep(0.005)
        most.append(len(inside))
        inside.remove(stream)
        return read(stream)

    monkeypatch.setattr(np.lib.format, "read_array_header_1_0", read_slowly)
    with ThreadPoolExecutor(4) as pool:
        shapes = {array.shape for array in pool.map(arrays.map_npz, [tmp_path / "s.npz"] * 8)}
    assert shapes == {(2, 2, 2)}
    assert most == [1] * 8


def test_a_saved_pair_comes_back(tmp_path, oblique):
    normal = Volume(oblique.data * 2, oblique.affine)
    save_pair(oblique, normal, tmp_path / "s.npz")
    low, again = read_pair(tmp_path / "s.npz")
    np.testing.assert_array_equal(low.data, oblique.data)
    np.testing.assert_array_equal(again.data, normal.data)
    np.testing.assert_array_equal(low.affine, oblique.affine)


def test_a_pair_needs_one_grid(tmp_path, oblique):
    moved = Volume(oblique.data, oblique.affine @ np.diag([1, 1, 2, 1]))
    with pytest.raises(InputError, match="different grids"):
        save_pair(oblique, moved, tmp_path / "s.npz")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["v.nii", "v.nii.gz", "v.npz"])
def test_saved_volumes_come_back(tmp_path, oblique, name):
    save_volume(oblique, tmp_path / name)
    again = load_volume(tmp_path / name)
    np.testing.assert_array_equal(again.data, oblique.data)
    np.testing.assert_allclose(again.affine, oblique.affine, atol=1e-4)
    assert again.unit == "SUV"
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_nifti_has_sform_qform_and_says_what_made_it(tmp_path, oblique):
    save_volume(oblique, tmp_path / "v.nii.gz", description="demo model")
    image = nib.load(tmp_path / "v.nii.gz")
    assert image.get_sform(coded=True)[1] == image.get_qform(coded=True)[1] == 1
    np.testing.assert_allclose(image.get_qform(), oblique.affine, atol=1e-3)
    np.testing.assert_allclose(image.get_sform(), oblique.affine, atol=1e-4)
    assert image.header["descrip"].item() == b"demo model [SUV]"


def test_mat_v5_and_v73_hold_suv(tmp_path, pair):
    scipy.io.savemat(tmp_path / "old.mat", {"suv": pair[0]}, do_compression=True)
    with h5py.File(tmp_path / "new.mat", "w") as file:
        file["suv"] = pair[0].T  # MATLAB writes its columns first
    for name in ("old.mat", "new.mat"):
        np.testing.assert_array_equal(load_volume(tmp_path / name).data, pair[0])


def test_nifti_scaling_and_trailing_axes(tmp_path):
    image = nib.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4, 1), np.eye(4))
    image.header.set_slope_inter(0.5, 0.25)
    nib.save(image, tmp_path / "v.nii.gz")
    stored = nib.load(tmp_path / "v.nii.gz")
    np.testing.assert_array_equal(load_volume(tmp_path / "v.nii.gz").data, stored.get_fdata()[..., 0])


def test_weight_and_dose_turn_nifti_in_bqml_into_suv(tmp_path):
    data = np.full((3, 3, 3), 5000, np.float32)
    nib.save(nib.Nifti1Image(data, np.eye(4)), tmp_path / "v.nii")
    volume = load_volume(tmp_path / "v.nii", overrides=SUVOverrides(weight_kg=70, dose_bq=350e6))
    np.testing.assert_allclose(volume.data, 1.0, rtol=1e-6)  # 5000 x 70,000 g / 350 MBq


def test_analyze_is_read(tmp_path, pair):
    nib.save(nib.AnalyzeImage(pair[0], np.diag([-2.0, 2, 2, 1])), tmp_path / "v.img")
    volume = load_volume(tmp_path / "v.img")
    np.testing.assert_array_equal(volume.data, pair[0])
    assert volume.source["orientation"] == "assumed: the header has none"
    placed = np.diag([2.0, 2, 2, 1])
    nib.save(nib.Spm99AnalyzeImage(pair[0], placed), tmp_path / "spm.img")  # with its matrix in spm.mat
    volume = load_volume(tmp_path / "spm.img")
    np.testing.assert_allclose(volume.affine, placed, atol=1e-6)
    assert "orientation" not in volume.source
    assert volume.source["notices"] == []


@pytest.mark.parametrize(("sform", "qform"), [(0, 0), (1, 0), (0, 1)])
def test_an_orientation_that_no_header_states_is_called_assumed(tmp_path, sform, qform):
    affine = np.diag([2.0, 2, 2, 1])
    image = nib.Nifti1Image(np.full((3, 4, 5), 2, np.float32), affine)
    image.set_sform(affine, code=sform)
    image.set_qform(affine, code=qform)
    nib.save(image, tmp_path / "v.nii")
    volume = load_volume(tmp_path / "v.nii")
    rows = dict(describe(volume, ModelGrid(voxel_mm=(2.0, 2.0, 2.0))))
    if sform or qform:
        assert rows["orientation"] == "RAS"
    else:
        assert rows["orientation"] == "LAS, assumed: the header has none"


def test_a_volume_is_no_pair_and_of_a_pair_channel_0_alone_is_checked(tmp_path, pair):
    pair[1, 2, 2, 2] = np.nan
    np.savez(tmp_path / "s.npz", pair)
    np.testing.assert_array_equal(load_volume(tmp_path / "s.npz").data, pair[0])
    np.savez(tmp_path / "one.npz", pair[0])
    with pytest.raises(InputError, match=r"not \[2, X, Y, Z\]"):
        read_pair(tmp_path / "one.npz")


def test_saving_refuses_other_names_and_unwritable_folders(tmp_path, oblique):
    with pytest.raises(InputError, match="must end in"):
        save_volume(oblique, tmp_path / "v.png")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write"):
        save_volume(oblique, tmp_path / "file" / "v.npz")


def test_ecat7_is_read():
    """nibabel's own sample of a single frame."""
    path = Path(nib.__file__).parent / "tests" / "data" / "tinypet.v"
    image = nib.ecat.load(path)
    said = SUVOverrides(weight_kg=70, dose_bq=350e6)
    data, affine, _, source = nifti.read(path, overrides=said)
    np.testing.assert_allclose(data, image.get_frame(0) * 2e-4, rtol=1e-5)
    np.testing.assert_array_equal(affine, image.affine)
    assert source["stored_units"] == "Bq/cc"
    with pytest.raises(InputError, match=r"its header is 'Bq/cc'; no SUV: .*--weight_kg"):
        load_volume(path)
    with pytest.raises(InputError, match="probably Bq/mL"):  # the sample's values are no activity of a body
        load_volume(path, overrides=said)


def test_remote_files_and_folders(tmp_path, monkeypatch, pair):
    np.savez(tmp_path / "s.npz", pair)
    stored = np.random.default_rng(0).integers(1, 30000, (4, 5, 3)).astype(np.int16)
    write_series(tmp_path / "series" / "deep", stored)
    monkeypatch.setitem(sys.modules, "blobfile", Bucket(tmp_path))
    np.testing.assert_array_equal(load_volume("gs://bucket/s.npz").data, pair[0])
    np.testing.assert_allclose(load_volume("gs://bucket/series").data, stored * 4e-4, rtol=1e-6)
    with pytest.raises(InputError, match=r"gs://bucket/none\.npz: cannot be fetched"):
        load_volume("gs://bucket/none.npz")
