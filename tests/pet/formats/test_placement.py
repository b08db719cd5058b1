"""Where a NIfTI says that its voxels lie: units of length, sform, qform and voxel sizes against each other."""

import nibabel as nib
import numpy as np
import pytest

from guided_diffusion.errors import InputError
from guided_diffusion.pet.volume import load_volume

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
