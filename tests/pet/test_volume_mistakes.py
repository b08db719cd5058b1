"""What bad files and flags that do not fit them are answered with."""

import zipfile

import nibabel as nib
import numpy as np
import pytest
import scipy.io

from guided_diffusion.errors import InputError
from guided_diffusion.pet.formats import arrays
from guided_diffusion.pet.suv import SUVOverrides
from guided_diffusion.pet.volume import load_volume
from tests.bad_files import write_bad_files
from tests.dicom_series import write_series


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
    write_bad_files(tmp_path)
    with pytest.raises(InputError, match=message):
        arrays.map_npz(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("v.nii", {"weight_kg": 70.0}, "--weight_kg alone .* give --dose_bq too"),
        ("v.nii", {"dose_bq": 350e6}, "--dose_bq alone .* give --weight_kg too"),
        ("v.nii", {"weight_kg": 70.0, "dose_bq": 350e6, "injection_time": "101013"}, "give --scan_start too"),
        ("v.nii", {"half_life_s": 6586.2}, "--half_life_s alone .* give --weight_kg and --dose_bq too"),
        ("v.nii", {"weight_kg": 70.0, "dose_bq": 350e6, "half_life_s": 6586.2}, "without --injection_time and --scan"),
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


@pytest.mark.parametrize("name", ["v.npz", "v.nii", "v.mat"])
def test_a_series_of_what_is_no_dicom_is_refused(tmp_path, name):
    data = np.random.default_rng(0).uniform(0, 5, (3, 3, 3)).astype(np.float32)
    nib.save(nib.Nifti1Image(data, np.eye(4)), tmp_path / "v.nii")
    np.savez(tmp_path / "v.npz", data)
    scipy.io.savemat(tmp_path / "v.mat", {"suv": data})
    load_volume(tmp_path / name)
    with pytest.raises(InputError, match=rf"{name}: is no DICOM, so --series has no use; leave it out"):
        load_volume(tmp_path / name, series="5")


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
    write_bad_files(tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        load_volume(tmp_path / name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


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


def test_a_header_without_a_voxel_is_refused(tmp_path):
    nib.save(nib.Nifti1Image(np.ones((4, 5, 6), np.float32), np.eye(4)), tmp_path / "v.nii")
    content = bytearray((tmp_path / "v.nii").read_bytes())
    content[40:50] = np.array([4, 4, 5, 6, 0], np.int16).tobytes()
    (tmp_path / "v.nii").write_bytes(content)
    with pytest.raises(InputError, match=r"v\.nii: has shape \[4, 5, 6, 0\], that is no voxel; copy or convert it"):
        load_volume(tmp_path / "v.nii")
