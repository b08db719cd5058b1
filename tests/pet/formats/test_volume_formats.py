"""The registry of formats: what a file is follows from its content, in single files, folders and evaluation alike."""

import gzip
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import scipy.io

from evaluation.compared_files import find_subject_files, read_pair
from guided_diffusion.errors import InputError
from guided_diffusion.pet.formats import volume_formats
from guided_diffusion.pet.volume import load_volume

AFFINE = np.array([[-4.0, 0, 0, 8], [0, 3, 0, -5], [0, 0, 2, 1], [0, 0, 0, 1]])


def saved(folder: Path, suv: np.ndarray) -> dict[str, Path]:
    """One volume in every format that can be written here."""
    nib.save(nib.Nifti1Image(suv, AFFINE), folder / "one.nii")
    nib.save(nib.Nifti2Image(suv, AFFINE), folder / "two.nii.gz")
    nib.save(nib.Nifti1Pair(suv, AFFINE), folder / "pair.img")
    nib.save(nib.MGHImage(suv, AFFINE), folder / "free.mgz")
    np.savez(folder / "array.npz", arr_0=suv, affine=AFFINE)
    scipy.io.savemat(folder / "matlab.mat", {"suv": suv})
    return {path.name: path for path in folder.iterdir() if path.suffix != ".hdr"}


def test_every_format_is_read_alike_with_capital_suffixes(tmp_path, suv):
    for name, path in saved(tmp_path, suv).items():
        if path.suffix == ".img":
            (tmp_path / "pair.hdr").rename(tmp_path / "PAIR.HDR")
        volume = load_volume(path.rename(tmp_path / name.upper()))
        np.testing.assert_array_equal(volume.data, suv, err_msg=name)
        if name != "matlab.mat":
            np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("name", ["plain.nii.gz", "plain.mgz", "packed.nii", "packed.mgh", "really.npz", "no_suffix"])
def test_content_decides_whatever_the_name_says(tmp_path, suv, name):
    kind = nib.MGHImage if "mg" in name else nib.Nifti1Image
    plain = tmp_path / ("x.mgh" if "mg" in name else "x.nii")
    nib.save(kind(suv, AFFINE), plain)
    packed = name.startswith("packed")
    (tmp_path / name).write_bytes(gzip.compress(plain.read_bytes()) if packed else plain.read_bytes())
    volume = load_volume(tmp_path / name)
    np.testing.assert_array_equal(volume.data, suv)
    np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-5)


def test_gzipped_halves_of_a_pair_are_read(tmp_path, suv):
    nib.save(nib.Nifti1Pair(suv, AFFINE), tmp_path / "v.img")
    for half in ("v.img", "v.hdr"):
        (tmp_path / f"{half}.gz").write_bytes(gzip.compress((tmp_path / half).read_bytes()))
        (tmp_path / half).unlink()
    for half in ("v.img.gz", "v.hdr.gz"):
        np.testing.assert_array_equal(load_volume(tmp_path / half).data, suv)


def test_half_a_pair_names_the_missing_half(tmp_path, suv):
    nib.save(nib.Nifti1Pair(suv, AFFINE), tmp_path / "v.img")
    (tmp_path / "v.hdr").unlink()
    with pytest.raises(InputError, match=r"v\.img: its other half \(\.hdr\) is not there"):
        load_volume(tmp_path / "v.img")


def test_of_a_folders_files_each_volume_is_listed_once(tmp_path):
    names = ("A.NII.GZ", "b.img", "b.hdr", "b.mat", "c.v", "d.mgz", "e.mat", "f.hdr", "LICENSE", "x.json")
    for name in names:
        (tmp_path / name).touch()
    listed = [path.name for path in volume_formats.volumes_among(tmp_path.iterdir())]
    assert listed == ["A.NII.GZ", "b.img", "c.v", "d.mgz", "e.mat", "f.hdr"]
    assert [volume_formats.stem_of(name) for name in listed] == ["A", "b", "c", "d", "e", "f"]


def test_evaluation_compares_what_the_registry_reads(tmp_path, suv):
    (tmp_path / "gtr").mkdir()
    (tmp_path / "gen" / "s").mkdir(parents=True)
    nib.save(nib.MGHImage(suv, AFFINE), tmp_path / "gtr" / "s.mgz")
    nib.save(nib.Nifti1Image(suv + 1, AFFINE), tmp_path / "gen" / "s" / "denoised.nii.gz")
    (subject,) = find_subject_files(tmp_path / "gtr", tmp_path / "gen", None)
    reference, generated = read_pair(subject, "suv", "suv")
    np.testing.assert_array_equal(reference, suv)
    np.testing.assert_allclose(generated, suv + 1)


@pytest.mark.parametrize("name", ["pipe.nii", "pipe.npz", "pipe.mat", "pipe.v"])
def test_what_is_no_regular_file_is_not_opened(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(InputError, match=rf"{name}: is a named pipe, not a file"):
        load_volume(tmp_path / name)


@pytest.mark.parametrize("name", ["pet.nii.gz", "pet.npz", "pet.v", "pet"])
@pytest.mark.parametrize(
    ("content", "remedy"),
    [
        ("version https://git-lfs.github.com/spec/v1\nsize 9\n", "git lfs pull"),
        ("/annex/objects/MD5E-s9", "datalad get"),
    ],
)
def test_what_was_not_fetched_is_told_with_the_command_that_does(tmp_path, name, content, remedy):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=rf"{name}: is a pointer of .* to a file that was not fetched; run {remedy}"):
        load_volume(tmp_path / name)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti1Pair, nib.Nifti2Image])
def test_an_intercept_that_is_no_number_is_named(tmp_path, suv, kind, order):
    path = tmp_path / f"v{kind.files_types[0][1]}"
    nib.save(kind(suv, AFFINE, kind.header_class(endianness=order)), path)
    header = path.with_suffix(".hdr") if kind is nib.Nifti1Pair else path
    content, size = header.read_bytes(), kind.header_class.template_dtype.itemsize
    stored = kind.header_class(content[:size], check=False)
    assert stored.endianness == order
    stored["scl_slope"], stored["scl_inter"] = 0.5, np.nan
    header.write_bytes(stored.binaryblock + content[size:])
    with pytest.raises(InputError, match=r"v\..*: its scl_inter is nan, not a number to add to its values; copy"):
        load_volume(path)
    stored["scl_slope"] = 0  # by the standard nothing is scaled then
    header.write_bytes(stored.binaryblock + content[size:])
    np.testing.assert_array_equal(load_volume(path).data, suv)
