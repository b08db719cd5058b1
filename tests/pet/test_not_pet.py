"""Which names of files and folders say that a volume is no PET image, and which do not."""

import pytest

from guided_diffusion.pet.not_pet import why_not_pet


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
