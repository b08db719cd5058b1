"""Where a NIfTI says that its voxels lie: units of length, sform, qform and voxel sizes against each other."""

import gzip

import nibabel as nib
import numpy as np
import pytest

from guided_diffusion.errors import InputError
from guided_diffusion.pet.grid import Volume
from guided_diffusion.pet.volume import load_volume, save_volume

SIX_MM = np.array([[-6.0, 0, 0, 60], [0, -6, 0, 50], [0, 0, 6, -300], [0, 0, 0, 1]])


def saved(path, affine=SIX_MM, *, sform=None, qform=None, codes=(1, 1), change=None):
    image = nib.Nifti1Image(np.random.default_rng(0).uniform(0, 9, (5, 6, 7)).astype(np.float32), affine)
    image.set_qform(affine if qform is None else qform, code=codes[1])
    image.set_sform(affine if sform is None else sform, code=codes[0])
    if change:
        change(image.header)
    nib.save(image, path)
    return path


@pytest.mark.parametrize(("unit", "size"), [("meter", 0.006), ("mm", 6.0), ("micron", 6000.0), ("unknown", 6.0)])
def test_the_unit_of_length_is_believed(tmp_path, unit, size):
    affine = SIX_MM.copy()
    affine[:3] *= size / 6
    path = saved(tmp_path / "v.nii.gz", affine, change=lambda header: header.set_xyzt_units(unit, "sec"))
    np.testing.assert_allclose(load_volume(path).affine, SIX_MM, atol=1e-3)


def test_a_code_that_is_no_unit_of_length_is_refused(tmp_path):
    path = saved(tmp_path / "v.nii", change=lambda header: header.__setitem__("xyzt_units", 5))
    with pytest.raises(InputError, match=r"v\.nii: its xyzt_units name no unit of length \(code 5\); set them to mm"):
        load_volume(path)


def pixdim(*sizes):
    return lambda header: header["pixdim"].__setitem__(slice(1, 4), sizes)


@pytest.mark.parametrize(
    ("sform", "change", "message"),
    [
        (np.eye(4), pixdim(6, 6, 6), r"its sform says voxels of 1 x 1 x 1, its pixdim 6 x 6 x 6"),
        (SIX_MM, pixdim(1, 1, 1), r"its sform says voxels of 6 x 6 x 6, its pixdim 1 x 1 x 1"),
        (SIX_MM @ np.diag([1, 1, 0.5, 1]), pixdim(6, 6, 6), r"sform says voxels of 6 x 6 x 3, its pixdim 6 x 6 x 6"),
        (SIX_MM @ np.diag([-1, 1, 1, 1]), None, r"sform and qform contradict each other \(mirrored\)"),
    ],
)
def test_forms_that_contradict_each_other(tmp_path, sform, change, message):
    path = saved(tmp_path / "v.nii", sform=sform, change=change)
    with pytest.raises(InputError, match=rf"v\.nii: .*{message}"):
        load_volume(path)


def test_two_places_in_one_space_are_refused_and_of_two_spaces_the_sform_counts(tmp_path):
    shifted = SIX_MM.copy()
    shifted[0, 3] += 40
    with pytest.raises(InputError, match=r"contradict each other \(in another place\)"):
        load_volume(saved(tmp_path / "same.nii", sform=shifted, codes=(1, 1)))
    aligned = load_volume(saved(tmp_path / "aligned.nii", sform=shifted, codes=(2, 1)))
    np.testing.assert_allclose(aligned.affine, shifted, atol=1e-4)
    near = SIX_MM.copy()
    near[0, 3] += 1.0  # a sixth of a voxel
    np.testing.assert_allclose(load_volume(saved(tmp_path / "near.nii", sform=near)).affine, near, atol=1e-4)


def test_what_has_only_one_form_or_no_sizes_is_read(tmp_path):
    qform_only = saved(tmp_path / "q.nii", sform=np.eye(4), codes=(0, 1), change=pixdim(6, 6, 6))
    np.testing.assert_allclose(load_volume(qform_only).affine, SIX_MM, atol=1e-4)
    sform_only = saved(tmp_path / "s.nii", qform=np.eye(4), codes=(1, 0), change=pixdim(0, 0, 0))
    np.testing.assert_allclose(load_volume(sform_only).affine, SIX_MM, atol=1e-4)
    rounded = saved(tmp_path / "r.nii", change=pixdim(6.001, 5.999, 6.0))
    np.testing.assert_allclose(load_volume(rounded).affine, SIX_MM, atol=1e-4)


def test_a_quaternion_that_is_none_and_sizes_that_no_scanner_makes(tmp_path):
    path = saved(tmp_path / "q.nii", change=lambda header: header.__setitem__("quatern_c", 2))
    with pytest.raises(InputError, match=r"q\.nii: its qform \(quatern_b, .*\) is no rotation"):
        load_volume(path)
    path = saved(tmp_path / "m.nii", change=lambda header: header.set_xyzt_units("meter", "sec"))
    with pytest.raises(InputError, match=r"m\.nii: no PET image has voxels of 6000 x 6000 x 6000 mm"):
        load_volume(path)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_headers_that_point_elsewhere_in_the_file_are_refused(tmp_path, kind, suffix):
    data = np.random.default_rng(0).uniform(1, 9, (5, 6, 7)).astype(np.float32)
    image = kind(data, SIX_MM)
    content = bytearray(image.to_bytes())
    at = image.header._structarr.dtype.fields
    smaller, inside = bytearray(content), bytearray(content)
    dim = np.array([3, 5, 6, 6, 1, 1, 1, 1], at["dim"][0].base).tobytes()
    smaller[at["dim"][1] : at["dim"][1] + len(dim)] = dim
    offset = np.array(16, at["vox_offset"][0]).tobytes()
    inside[at["vox_offset"][1] : at["vox_offset"][1] + len(offset)] = offset
    for name, bad, message in (
        ("longer", smaller, r"is longer than its header says \(5 x 6 x 6 voxels\)"),
        ("inside", inside, "vox_offset is 16, inside the header|is damaged"),
        ("right", content, None),
        ("padded", content + bytes(16), None),
    ):
        path = tmp_path / f"{name}{suffix}"
        path.write_bytes(gzip.compress(bytes(bad)) if suffix.endswith("gz") else bytes(bad))
        if message:
            with pytest.raises(InputError, match=rf"{name}\.nii.*: .*({message})"):
                load_volume(path)
        else:
            np.testing.assert_array_equal(load_volume(path).data, data)


def test_a_nifti_without_its_magic_is_no_analyze_and_a_missing_place_is_told(tmp_path):
    path = saved(tmp_path / "v.nii")
    content = bytearray(path.read_bytes())
    content[344:348] = bytes(4)
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"v\.nii: is called NIfTI, but its magic says none"):
        load_volume(path)
    (notice,) = load_volume(saved(tmp_path / "nowhere.nii", codes=(0, 0))).source["notices"]
    assert "nowhere.nii: its header places the voxels nowhere; its first axis is taken to run to the left" in notice


SHEARED = np.array([[-4.0, 0, 0, 50], [0, -4, 1.2, 60], [0, 0, 3, 0], [0, 0, 0, 1]])


def test_a_tilted_scan_is_written_without_qform_and_comes_back(tmp_path):
    """A qform holds rotations only: software that prefers it would put the far slices centimetres off."""
    data = np.random.default_rng(0).uniform(0, 9, (5, 6, 70)).astype(np.float32)
    save_volume(Volume(data, SHEARED), tmp_path / "v.nii.gz")
    image = nib.load(tmp_path / "v.nii.gz")
    assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (1, 0)
    np.testing.assert_allclose(load_volume(tmp_path / "v.nii.gz").affine, SHEARED, atol=1e-4)
    rounded = np.array([[-4.0, 0, 0, 0], [0, -4, 3e-4, 0], [0, 0, 3, 0], [0, 0, 0, 1]])
    save_volume(Volume(data, rounded), tmp_path / "rounded.nii.gz")  # ITK reads no rounded sform, but its qform
    assert int(nib.load(tmp_path / "rounded.nii.gz").header["qform_code"]) == 1


def test_a_qform_that_lacks_the_shear_of_the_sform_contradicts_nothing(tmp_path):
    path = saved(tmp_path / "v.nii", SHEARED)
    assert np.abs(nib.load(path).get_qform() - SHEARED).max() > 0.5
    np.testing.assert_allclose(load_volume(path).affine, SHEARED, atol=1e-4)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("sform_code", [0, 1])
@pytest.mark.parametrize(("excess", "taken"), [(5e-7, True), (8e-6, True), (1e-3, False)])
def test_a_half_turn_that_was_rounded_is_one(tmp_path, kind, sform_code, excess, taken):
    image = kind(np.full((5, 6, 7), 2, np.float32), SIX_MM)
    image.set_qform(SIX_MM, code=1)
    image.set_sform(SIX_MM, code=sform_code)
    header = image.header  # nibabel would not save it
    header["quatern_d"] = np.float32(np.sqrt(1 + excess))
    header["vox_offset"] = len(header.binaryblock) + 4
    (tmp_path / "v.nii").write_bytes(header.binaryblock + bytes(4) + image.get_fdata(dtype=np.float32).tobytes())
    if not taken:
        with pytest.raises(InputError):
            load_volume(tmp_path / "v.nii")
        return
    volume = load_volume(tmp_path / "v.nii")
    np.testing.assert_allclose(volume.affine, SIX_MM, atol=1e-4)
    assert volume.source["format"] == kind.__name__.removesuffix("Image")
