"""Which names of files and folders say that a volume is no PET image, and which do not."""

import nibabel as nib
import numpy as np
import pytest

from guided_diffusion.errors import InputError
from guided_diffusion.pet.not_pet import why_not_pet
from guided_diffusion.pet.volume import load_volume

SUV = np.random.default_rng(0).uniform(0, 9, (4, 5, 6)).astype(np.float32)


def reasons(root, *names):
    """What is said of each of these files, all of which are there."""
    paths = [root / f"{name}.nii.gz" for name in names]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return [why_not_pet(path, path.name.removesuffix(".nii.gz"), root) for path in paths]


@pytest.mark.parametrize(
    ("name", "is_mask"),
    [
        ("Segmentation study/p1/scan", False),
        ("patient_07 (roi)/pet", False),
        ("p3/masks/fdg", False),
        ("Roi^Marie/scan", True),
        ("p2/labels/lesion", True),
        ("p2/pet_seg", True),
    ],
)
def test_only_the_nearest_folder_makes_a_mask_and_none_of_what_is_called_pet(tmp_path, name, is_mask):
    assert reasons(tmp_path, name) == ["by its name a mask" if is_mask else None]


def test_images_of_mr_are_no_pet_beside_a_pet_image(tmp_path):
    other = "by its name no PET"
    assert reasons(tmp_path, "a/PET", "a/T1", "a/t2_dixon", "a/adc", "a/pet_t1") == [None, other, other, other, None]
    assert reasons(tmp_path, "b/t1", "b/t2", "T1/scan", "Dixon^Jo/scan", "c/mprage") == [None, None, None, None, other]


def saved(path, data=SUV):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, np.diag([-4.0, -4, 4, 1])), path)


@pytest.mark.parametrize("name", ["WB_CTAC_Body", "Mr_Smith", "mr_0012", "p1/WB_MRAC_AC", "no_mask_pet"])
def test_the_only_image_is_taken_though_its_name_has_a_word_of_others(tmp_path, name):
    saved(tmp_path / f"{name}.nii.gz")
    (tmp_path / "notes.txt").write_text("text")
    volume = load_volume(tmp_path)
    np.testing.assert_array_equal(volume.data, SUV)
    kind = "a mask" if "mask" in name else "no PET"
    file = f"{name.split('/')[-1]}.nii.gz"
    assert f"taken though by its name {kind}, since nothing else here is an image: {file}" in volume.source["notices"]
    saved(tmp_path / "scan.nii.gz", SUV / 2)
    np.testing.assert_array_equal(load_volume(tmp_path).data, SUV / 2)


@pytest.mark.parametrize(
    "names", [["CT"], ["ctac_t1w"], ["anat/Mr_Smith"], ["CT/ctac"], ["Mr_Smith", "Mr_Miller"], ["Mr_Smith", "PET_NAC"]]
)
def test_what_other_words_call_no_pet_is_not_taken(tmp_path, names):
    for name in names:
        saved(tmp_path / f"{name}.nii.gz")
    with pytest.raises(InputError, match=r"no volume: left out \(by its name no PET\)"):
        load_volume(tmp_path)


@pytest.mark.parametrize(
    ("name", "data"), [("pet_seg", SUV), ("no_mask_pet", (SUV > 1).astype(np.uint8)), ("no_mask", SUV)]
)
def test_a_mask_is_not_taken_though_called_pet(tmp_path, name, data):
    saved(tmp_path / f"{name}.nii.gz", data)
    with pytest.raises(InputError, match="by its name a mask"):
        load_volume(tmp_path)
