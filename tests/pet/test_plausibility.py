"""One rule for what can be SUV, at every door: scans in each format, and volumes that are evaluated."""

import re

import nibabel as nib
import numpy as np
import pytest
import scipy.io

from evaluation.compared_files import SubjectFiles, published_peak, read_pair, to_suv
from guided_diffusion.errors import InputError
from guided_diffusion.pet.grid import Volume, centred_affine
from guided_diffusion.pet.plausibility import check_suv, typical_of
from guided_diffusion.pet.suv import SUVOverrides
from guided_diffusion.pet.volume import load_volume, save_volume
from tests.dicom_series import write_series


def body(scale=1.0):
    """Air, a body of `scale` and an organ of six times that: [24, 20, 16]."""
    data = np.zeros((24, 20, 16), np.float32)
    data[4:20, 4:16] = scale
    data[10:14, 8:12, 6:10] = 6 * scale
    return data


DOORS = {
    "nii": lambda path, data: nib.save(nib.Nifti1Image(data, np.diag([-4.0, 4, 4, 1])), path),
    "npz": lambda path, data: np.savez(path, data),
    "mat": lambda path, data: scipy.io.savemat(path, {"suv": data}),
}


def scan(suffix):
    def check(folder, data):
        path = folder / f"v.{suffix}"
        DOORS[suffix](path, data)
        assert load_volume(path).source["notices"] == []

    return check


def evaluated(folder, data):
    to_suv(data, "suv", folder / "v.nii", "--gtr_units")


def unclipped(folder, data):
    scipy.io.savemat(folder / "v.mat", {"suv": data})
    assert published_peak(folder / "v.mat") == data.max()


@pytest.mark.parametrize("door", [scan("nii"), scan("npz"), scan("mat"), evaluated, unclipped])
def test_all_doors_answer_alike(tmp_path, door):
    for scale in (0.3, 1.1, 12.1):
        door(tmp_path, body(scale))
    for scale, message in (
        (1 / 16, "values up to 0.375 are too low for SUV"),
        (1 / 6, "values up to 1 are too low for SUV"),
        (2500, r"values up to 1.5e\+04 can't be SUV, they are probably Bq/mL"),
        (100, "values up to 600 can't be SUV"),  # a late scan of Zr-89 in Bq/mL
        (1e-5, "values up to 6e-05 are too low for SUV"),
    ):
        with pytest.raises(InputError, match=rf"v\.(nii|npz|mat): {message}"):
            door(tmp_path, body(scale))
    hot = body()
    hot[12, 10, 8] = 1200  # no bladder is as hot
    with pytest.raises(InputError, match="values up to 1200 can't be SUV"):
        door(tmp_path, hot)


@pytest.mark.parametrize(
    ("scale", "notice"),
    [
        (1.0, None),
        (0.1, r"SUV up to 0\.6\d* .* is low; check weight, dose and unit"),
        (150, r"SUV up to 900 is seldom"),
    ],
)
def test_a_header_that_leads_to_doubtful_suv_is_told_of(tmp_path, scale, notice):
    stored = np.rint(body() * 3000).astype(np.int16)
    write_series(tmp_path / "s", stored, slopes=np.full(16, scale / 3000 / 4e-4))
    notices = load_volume(tmp_path / "s").source["notices"]
    assert len(notices) == (notice is not None)
    if notice:
        assert re.search(notice, notices[0])


@pytest.mark.parametrize(
    ("scale", "message"), [(1e-8, "too low for SUV; check weight"), (2000, "can't be SUV.*or check")]
)
def test_no_header_vouches_for_the_impossible(tmp_path, scale, message):
    stored = np.rint(body() * 3000).astype(np.int16)
    write_series(tmp_path / "s", stored, slopes=np.full(16, scale / 3000 / 4e-4))
    with pytest.raises(InputError, match=message):
        load_volume(tmp_path / "s")


def test_standardised_values_and_hounsfield_units_are_no_suv(tmp_path):
    standardised = (body() - body().mean()) / body().std()
    for name, data in (("z", standardised), ("ct", body(900.0) - 1000)):
        DOORS["nii"](tmp_path / f"{name}.nii", data.astype(np.float32))
        with pytest.raises(InputError, match=rf"{name}\.nii: is as much below zero as above, like standardised values"):
            load_volume(tmp_path / f"{name}.nii")


def test_values_from_minus_one_to_one_are_not_suv_over_16(tmp_path):
    normalised = body() / 16
    noise = np.random.default_rng(0).normal(size=normalised.shape).astype(np.float32) * np.float32(0.005)
    for data in (normalised, normalised + noise, 0 * normalised):
        to_suv(data, "normalised", tmp_path / "v.npz", "--gen_units")
    with pytest.raises(InputError, match=r"v\.npz: is as much below zero as above, but SUV/16 is from 0 to 1"):
        to_suv(2 * normalised - 1, "normalised", tmp_path / "v.npz", "--gen_units")


def save_scaled(path, data):
    image = nib.Nifti1Image((2 * data).astype(np.int16), np.diag([-4.0, 4, 4, 1]))
    image.header.set_slope_inter(0.5, 0)
    nib.save(image, path)


LABEL_DOORS = {**DOORS, "nii.gz": save_scaled, "u1.npz": lambda path, data: np.savez(path, data.astype(np.uint8))}


@pytest.mark.parametrize("suffix", LABEL_DOORS)
def test_labels_are_noticed_in_whatever_type_they_are_stored(tmp_path, suffix):
    path = tmp_path / f"v.{suffix}"
    for count in (3, 90):
        LABEL_DOORS[suffix](path, (np.arange(8000) % count).reshape(20, 20, 20).astype(np.float32))
        (notice,) = (text for text in load_volume(path).source["notices"] if "label" in text)
        assert f"v.{suffix}: holds {count} whole numbers only, as label maps do" in notice


def test_images_of_few_or_whole_numbers_may_be_suv(tmp_path):
    """No notice on a uniform body, more values than an atlas has labels, fractions, and what is stated to be SUV."""
    many = (np.arange(8000) % 90).reshape(20, 20, 20)
    many[0, :3] = np.arange(100, 160).reshape(3, 20)
    for data in (2.0 * (body() > 0), many, 1.1 * body()):
        DOORS["npz"](tmp_path / "v.npz", data.astype(np.float32))
        assert not [text for text in load_volume(tmp_path / "v.npz").source["notices"] if "label" in text]
    save_volume(Volume(body(), np.diag([-4.0, 4, 4, 1])), tmp_path / "stated.nii.gz")
    assert not [text for text in load_volume(tmp_path / "stated.nii.gz").source["notices"] if "label" in text]


@pytest.mark.parametrize("dtype", [np.uint8, np.int16])
def test_masks_and_labels_in_whole_numbers_are_no_suv(tmp_path, dtype):
    labels = np.rint(body()).astype(dtype)
    nib.save(nib.Nifti1Image(labels, np.diag([-4.0, 4, 4, 1])), tmp_path / "v.nii.gz")
    with pytest.raises(InputError, match=r"v\.nii\.gz: holds whole numbers, as masks, labels and counts do"):
        load_volume(tmp_path / "v.nii.gz")
    counts = nib.Nifti1Image((5000 * body()).astype(np.int16), np.diag([-4.0, 4, 4, 1]))
    nib.save(counts, tmp_path / "bqml.nii")
    volume = load_volume(tmp_path / "bqml.nii", overrides=SUVOverrides(weight_kg=70, dose_bq=350e6))
    np.testing.assert_allclose(volume.data, body(), rtol=1e-5)


def test_the_evaluation_believes_a_stated_unit(tmp_path):
    affine = centred_affine((24, 20, 16), 3.3, "PLS")
    for unit, units, message in (
        ("SUVlbm", "suv", r"reference\.nii\.gz: is in SUVlbm; SUV by body weight is compared"),
        ("SUV", "normalised", r"reference\.nii\.gz: says that it is in SUV; pass --gtr_units suv"),
        ("SUV", "suv", None),
    ):
        save_volume(Volume(body(), affine, unit), tmp_path / "reference.nii.gz")
        save_volume(Volume(body(), affine), tmp_path / "generated.nii.gz")
        files = SubjectFiles("a", tmp_path / "reference.nii.gz", tmp_path / "generated.nii.gz", None)
        if message is None:
            np.testing.assert_array_equal(read_pair(files, units, "suv")[0], body())
        else:
            with pytest.raises(InputError, match=message):
                read_pair(files, units, "suv")


def test_a_hot_spot_in_dicom_is_told_and_taken():
    data = body()
    data[12, 10, 8] = 1200
    assert check_suv(data, "scan", stated=True) == [
        "scan: SUV up to 1200 is seldom true; check weight, dose and injection time"
    ]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_refused_everywhere(value):
    data = body()
    data[0, 0, 0] = value
    for stated in (True, False):
        with pytest.raises(InputError, match=r"scan: has NaN or infinite voxels; .*set them to 0"):
            check_suv(data, "scan", stated=stated)


def test_the_typical_value_is_that_of_the_voxels_above_zero():
    data = np.zeros((130, 120, 110), np.float32)
    data[20:110, 30:90, 10:100] = 2.0
    data[0, 0, 0] = -5.0
    assert typical_of(data) == pytest.approx(2.0)
    assert typical_of(np.zeros((4, 4, 4))) == 0.0


@pytest.mark.parametrize("suffix", ["nii.gz", "npz"])
@pytest.mark.parametrize(("scale", "weight"), [(1.1, None), (2.5, None), (5.2, 499)])
def test_a_body_that_is_too_heavy_is_told_where_nobody_states_the_unit(tmp_path, suffix, scale, weight):
    """96 L of SUV 1.1, and as much in kBq/mL. An array without an affine is of unknown size."""
    body = np.zeros((48, 48, 48), np.float32)
    body[4:44, 4:44, 4:34] = scale
    body[20, 20, 20] = 6 * scale
    path = tmp_path / f"v.{suffix}"
    if suffix == "npz":
        np.savez(path, body)
    else:
        nib.save(nib.Nifti1Image(body, np.diag([-12.5, 12.8, 12.5, 1])), path)
    told = [f"{path}: taken as SUV, it would be of a body of {weight} kg or more; is it in kBq/mL?"]
    assert load_volume(path).source["notices"] == (told if weight and suffix == "nii.gz" else [])
    save_volume(Volume(body, np.diag([-12.5, 12.8, 12.5, 1])), path)
    assert load_volume(path).source["notices"] == []


@pytest.mark.parametrize(("dose_mbq", "share"), [(350, None), (50, None), (40, "1.7"), (4, "17.3")])
def test_more_activity_than_was_injected_is_told(tmp_path, dose_mbq, share):
    """9000 Bq/mL in 3.84 L, one half-life after the injection."""
    stored = np.full((40, 40, 40), 9000, np.int16)
    write_series(tmp_path, stored, RadionuclideTotalDose=str(dose_mbq * 1_000_000), PatientWeight="20")
    notices = [n for n in load_volume(tmp_path).source["notices"] if "the injected activity" in n]
    expected = f"{tmp_path}: holds {share} times the injected activity; check dose, injection time and half-life"
    assert notices == ([] if share is None else [expected])
