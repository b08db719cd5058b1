"""Volumes from files and back, and what bad files are answered with."""

import io
import os
import shutil
import tracemalloc
import zipfile
from pathlib import Path

import blobfile
import h5py
import nibabel as nib
import numpy as np
import pytest
import scipy.io

from guided_diffusion.errors import InputError
from guided_diffusion.pet import arrays, nifti, remote
from guided_diffusion.pet.suv import SUVOverrides
from guided_diffusion.pet.volume import Volume, load_volume, save_pair, save_volume
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
    content = _npy(np.asfortranarray(pair[0]))
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


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("text.nii", "no complete .npz"),
        ("pickled.npz", "pickled objects"),
        ("named.npz", "no arr_0"),
        ("lying.npz", "shorter than its header"),
        ("billion.npz", "1000 x 1000 x 1000"),
        ("complex.npz", "not real numbers"),
    ],
)
def test_what_cannot_be_mapped_gets_one_line(tmp_path, name, message):
    _bad_files(tmp_path)
    with pytest.raises(InputError, match=message):
        arrays.map_npz(tmp_path / name)


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


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("v.nii", {"weight_kg": 70.0}, "--weight_kg alone .* give --dose_bq too"),
        ("v.nii", {"dose_bq": 350e6}, "--dose_bq alone .* give --weight_kg too"),
        ("v.nii", {"weight_kg": 70.0, "dose_bq": 350e6, "injection_time": "101013"}, "--injection_time is for DICOM"),
        ("v.nii", {"half_life_s": 6586.2}, "--half_life_s is for DICOM"),
        ("v.npz", {"weight_kg": 70.0, "dose_bq": 350e6}, "--weight_kg --dose_bq has no use"),
        ("v.npz", {"injection_time": "101013"}, "--injection_time has no use"),
        ("v.mat", {"half_life_s": 6586.2}, "--half_life_s has no use"),
    ],
)
def test_what_the_user_says_is_refused_where_it_cannot_be_used(tmp_path, name, overrides, message):
    data = np.full((3, 3, 3), 5, np.float32)
    nib.save(nib.Nifti1Image(data, np.eye(4)), tmp_path / "v.nii")
    np.savez(tmp_path / "v.npz", data)
    scipy.io.savemat(tmp_path / "v.mat", {"suv": data})
    with pytest.raises(InputError, match=message) as caught:
        load_volume(tmp_path / name, overrides=SUVOverrides(**overrides))
    assert name in str(caught.value)
    load_volume(tmp_path / name, overrides=SUVOverrides())


def test_analyze_is_read(tmp_path, pair):
    nib.save(nib.AnalyzeImage(pair[0], np.diag([-2.0, 2, 2, 1])), tmp_path / "v.img")
    np.testing.assert_array_equal(load_volume(tmp_path / "v.img").data, pair[0])


class Hostile:
    """Unpickling this would leave a mark."""

    def __reduce__(self):
        return (pytest.fail, ("a pickled object was executed",))


def _npy(array, **changes):
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array)
    content = stream.getvalue()
    for old, new in changes.values():
        content = content.replace(old, new)
    return content


def _bad_files(folder):
    good = np.ones((4, 4, 4), np.float32)
    np.savez_compressed(folder / "good.npz", np.random.default_rng(0).uniform(size=(9, 9, 9)))
    whole = (folder / "good.npz").read_bytes()
    (folder / "truncated.npz").write_bytes(whole[: len(whole) // 2])
    flipped = bytearray(whole)
    flipped[len(whole) // 3] ^= 0xFF
    (folder / "corrupt.npz").write_bytes(bytes(flipped))
    np.savez(folder / "pickled.npz", np.array([Hostile()], dtype=object))
    np.savez(folder / "named.npz", pet=good)
    np.savez(folder / "axes.npz", np.ones((4, 4), np.float32))
    np.savez(folder / "three.npz", np.ones((3, 4, 4, 4), np.float32))
    np.savez(folder / "complex.npz", good + 1j)
    for name, value in (("nan", np.nan), ("inf", np.inf), ("bqml", 34000.0), ("negative", -1.0)):
        array = good * (-1 if name == "negative" else 1)
        array[1, 2, 3] = value
        np.savez(folder / f"{name}.npz", array)
        nib.save(nib.Nifti1Image(array, np.eye(4)), folder / f"{name}.nii.gz")
    with zipfile.ZipFile(folder / "lying.npz", "w") as archive:
        archive.writestr("arr_0.npy", _npy(good, shape=(b"(4, 4, 4), }  ", b"(400, 4, 4), }")))
    with zipfile.ZipFile(folder / "billion.npz", "w") as archive:
        archive.writestr("arr_0.npy", _npy(good, shape=(b"(4, 4, 4), }         ", b"(1000, 1000, 1000), }")))
    np.savez(folder / "affine.npz", arr_0=good, affine=np.zeros((4, 4)))
    np.savez(folder / "affine_row.npz", arr_0=good, affine=np.eye(4) + np.eye(4)[[3, 2, 1, 0]])
    np.savez(folder / "affine_nan.npz", arr_0=good, affine=np.diag([1.65, np.nan, 1.65, 1]))
    np.savez(folder / "affine_text.npz", arr_0=good, affine=np.full((4, 4), "1"))
    np.savez(folder / "affine_3.npz", arr_0=good, affine=np.eye(3))
    (folder / "text.nii").write_text("this is no image")
    (folder / "text.mat").write_text("this is no matrix, but it is long enough to have a header" * 10)
    (folder / "unknown.xyz").write_text("what is this")
    scipy.io.savemat(folder / "other.mat", {"pet": good})
    nib.save(nib.Nifti1Image(good + 1j, np.eye(4)), folder / "complex.nii")
    nib.save(nib.Nifti1Image(np.ones((4, 4, 4, 3), np.float32), np.eye(4)), folder / "dynamic.nii")
    nib.save(nib.Nifti1Image(np.ones((40, 40, 40), np.float32), np.eye(4)), folder / "short.nii")
    short = (folder / "short.nii").read_bytes()
    (folder / "short.nii").write_bytes(short[: len(short) // 2])
    nib.save(nib.Nifti1Image(np.random.default_rng(0).uniform(size=(40, 40, 40)), np.eye(4)), folder / "short.nii.gz")
    short = (folder / "short.nii.gz").read_bytes()
    (folder / "short.nii.gz").write_bytes(short[: len(short) // 2])
    header = nib.Nifti1Header()
    header.set_data_dtype(np.uint8)
    header.set_data_shape((1000, 1000, 1000))
    header["vox_offset"], header["magic"] = 352, b"n+1"
    (folder / "billion.nii").write_bytes(header.binaryblock + bytes(4))
    (folder / "empty").mkdir()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.npz", "no such file"),
        ("truncated.npz", "no complete .npz"),
        ("corrupt.npz", "no complete .npz"),
        ("pickled.npz", "pickled objects"),
        ("named.npz", "no arr_0 .it holds pet"),
        ("axes.npz", r"shape \[4, 4\]"),
        ("three.npz", r"shape \[3, 4, 4, 4\]"),
        ("complex.npz", "not real numbers"),
        ("nan.npz", "NaN or infinite"),
        ("nan.nii.gz", "NaN or infinite"),
        ("inf.npz", "NaN or infinite"),
        ("inf.nii.gz", "NaN or infinite"),
        ("bqml.npz", "probably Bq/mL"),
        ("bqml.nii.gz", "probably Bq/mL"),
        ("negative.npz", "no voxel is above zero"),
        ("lying.npz", "shorter than its header"),
        ("billion.npz", "1000 x 1000 x 1000"),
        ("billion.nii", "1000 x 1000 x 1000"),
        ("affine.npz", "no invertible"),
        ("affine_row.npz", "last row 0 0 0 1"),
        ("affine_nan.npz", "4x4 matrix of finite numbers"),
        ("affine_text.npz", "4x4 matrix of finite numbers"),
        ("affine_3.npz", "4x4 matrix of finite numbers"),
        ("text.nii", "no format that is known"),
        ("text.mat", "no complete .mat"),
        ("unknown.xyz", "no format that is known"),
        ("other.mat", "no array named suv"),
        ("complex.nii", "not real numbers"),
        ("dynamic.nii", "one 3D volume"),
        ("short.nii", "shorter than its header"),
        ("short.nii.gz", "shorter than its header"),
        ("empty", "no DICOM files"),
    ],
)
def test_a_bad_file_gets_one_line_that_names_it(tmp_path, name, message):
    _bad_files(tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        load_volume(tmp_path / name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


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
    data, affine, _, _ = nifti.read(path)
    np.testing.assert_allclose(data, image.get_frame(0), rtol=1e-5)
    np.testing.assert_array_equal(affine, image.affine)
    with pytest.raises(InputError, match="probably Bq/mL"):
        load_volume(path)


class Bucket:
    """Stands for blobfile with a bucket at gs://bucket that lies in a local folder."""

    Error = blobfile.Error
    basename, join = staticmethod(blobfile.basename), staticmethod(blobfile.join)

    def __init__(self, folder):
        self.folder = folder

    def local(self, url):
        return self.folder / url.removeprefix("gs://bucket/")

    def isdir(self, url):
        return self.local(url).is_dir()

    def copy(self, url, target):
        shutil.copy(self.local(url), target)

    def walk(self, url):
        for parent, folders, names in os.walk(self.local(url)):
            yield "gs://bucket/" + str(Path(parent).relative_to(self.folder)), folders, names


def test_remote_files_and_folders(tmp_path, monkeypatch, pair):
    np.savez(tmp_path / "s.npz", pair)
    stored = np.random.default_rng(0).integers(1, 30000, (4, 5, 3)).astype(np.int16)
    write_series(tmp_path / "series" / "deep", stored)
    monkeypatch.setattr(remote, "blobfile", Bucket(tmp_path))
    np.testing.assert_array_equal(load_volume("gs://bucket/s.npz").data, pair[0])
    np.testing.assert_allclose(load_volume("gs://bucket/series").data, stored * 4e-4, rtol=1e-6)
    with pytest.raises(InputError, match=r"gs://bucket/none\.npz: cannot be fetched"):
        load_volume("gs://bucket/none.npz")


@pytest.mark.parametrize("name", ["v.npz", "v.nii", "v.nii.gz", "s/0002.dcm", "s.zip"])
def test_damaged_bytes_end_as_one_printable_line(tmp_path, name):
    """Bytes changed and cut at random: whatever the reading libraries trip over, the user gets one line."""
    data = np.random.default_rng(0).uniform(0, 9, (5, 6, 7)).astype(np.float32)
    np.savez_compressed(tmp_path / "v.npz", data)
    nib.save(nib.Nifti1Image(data, np.eye(4)), tmp_path / "v.nii")
    nib.save(nib.Nifti1Image(data, np.eye(4)), tmp_path / "v.nii.gz")
    paths = write_series(tmp_path / "s", (data[..., :3] * 100).astype(np.int16))
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as archive:
        for path in paths:
            archive.write(path, path.name)
    target = tmp_path / name
    whole = target.read_bytes()
    loaded = tmp_path / "s" if name.endswith("dcm") else target
    random = np.random.default_rng(5)
    messages = []
    for _ in range(60):
        damaged = bytearray(whole[: random.integers(1, len(whole))] if random.random() < 0.2 else whole)
        for position in random.integers(0, min(len(damaged), 900), 6):
            damaged[position] = random.integers(256)
        target.write_bytes(bytes(damaged))
        try:
            load_volume(loaded)
        except InputError as error:
            messages.append(str(error))
    assert len(messages) > 10
    assert all(message.isprintable() for message in messages)
