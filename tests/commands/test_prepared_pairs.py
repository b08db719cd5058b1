"""What is doubtful about a pair is said when it is made, not only when it is trained on."""

import json

import nibabel as nib
import numpy as np
import pytest

from guided_diffusion.commands.prepare import create_parser, prepare_image
from guided_diffusion.errors import InputError
from guided_diffusion.pet.geometry import to_model_grid
from guided_diffusion.pet.grid import Volume, centred_affine
from guided_diffusion.pet.volume import save_volume
from tests.dicom_series import write_series
from tests.grids import tilted

BODY = np.zeros((16, 16, 12), np.float32)
BODY[2:14, 2:14] = 1.1
BODY[6:9, 6:9, 4:7] = 5.5
NOISE = np.random.default_rng(0).uniform(0.5, 1.5, BODY.shape).astype(np.float32)


def notices_of(low, normal, tmp_path, capsys):
    command = ["--input", str(low), "--normal_dose", str(normal), "--output", str(tmp_path / "pair.npz")]
    prepare_image(create_parser(""), [*command, "--voxel_mm", "4", "4", "4"])
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("notice: ")]


@pytest.mark.parametrize(
    ("low", "normal", "message"),
    [
        (BODY * NOISE, BODY, None),
        (BODY, BODY * NOISE, "the low dose is smoother than the normal dose; check that the two are not swapped"),
        (BODY, BODY, "the low dose and the normal dose are one and the same image"),
        (BODY * NOISE * 4, BODY, "check that both are in SUV and of one scan"),
    ],
)
def test_images_that_can_hardly_be_a_pair(tmp_path, capsys, low, normal, message):
    for name, image in (("low", low), ("normal", normal)):
        nib.save(nib.Nifti1Image(image, np.diag([-4.0, -4, 4, 1])), tmp_path / f"{name}.nii")
    notices = notices_of(tmp_path / "low.nii", tmp_path / "normal.nii", tmp_path, capsys)
    assert len(notices) == (message is not None)
    assert all("pair.npz: the low dose" in notice and message in notice for notice in notices)


@pytest.mark.parametrize("patient", ["A", "B"])
def test_series_of_two_patients(tmp_path, capsys, patient):
    stored = (BODY * NOISE * 2500).astype(np.int16)
    write_series(tmp_path / "low", stored, PatientID="A")
    write_series(tmp_path / "normal", (BODY * 2500).astype(np.int16), PatientID=patient)
    notices = notices_of(tmp_path / "low", tmp_path / "normal", tmp_path, capsys)
    expected = "notice: PatientID (0010,0020) of low dose and normal dose differ; check that both are of one scan"
    assert notices == ([expected] if patient == "B" else [])


@pytest.mark.parametrize(("weight", "noticed"), [("70.0", False), ("70.4", False), ("92", True)])
def test_series_of_two_weights(tmp_path, capsys, weight, noticed):
    write_series(tmp_path / "low", (BODY * NOISE * 2500).astype(np.int16), PatientWeight=weight)
    write_series(tmp_path / "normal", (BODY * 2500).astype(np.int16), PatientWeight="70")
    found = notices_of(tmp_path / "low", tmp_path / "normal", tmp_path, capsys)
    expected = "notice: PatientWeight (0010,1030) of low dose and normal dose differ; check that both are of one scan"
    assert found == ([expected] if noticed else [])


def uptake(seed, shape):
    return np.random.default_rng(seed).uniform(1, 3, shape).astype(np.float32)


@pytest.mark.parametrize(("axis", "name"), list(enumerate("XYZ")))
def test_what_the_normal_dose_does_not_show_is_left_out_of_both(tmp_path, capsys, axis, name):
    """Copies of its last slice would be a target that no patient has."""
    low = Volume(uptake(0, (20, 20, 20)), centred_affine((20, 20, 20), 4.0, "PLS"))
    affine = low.affine.copy()
    affine[:3, 3] += affine[:3, axis]  # it begins with the second slice of the low dose, and ends before the last
    shown = tuple(slice(1, 19) if own == axis else slice(None) for own in range(3))
    normal = Volume(uptake(1, low.data[shown].shape), affine)
    for kind, volume in (("low", low), ("normal", normal)):
        save_volume(volume, tmp_path / f"{kind}.nii.gz")
    (notice,) = notices_of(tmp_path / "low.nii.gz", tmp_path / "normal.nii.gz", tmp_path, capsys)
    text = f"2 of 20 slices along {name}, which the normal dose does not show"
    assert notice == f"notice: {tmp_path / 'pair.npz'}: lacks {text}"
    assert json.loads((tmp_path / "pair.npz.json").read_text())["source"]["left_out"] == text
    with np.load(tmp_path / "pair.npz") as pair:
        np.testing.assert_array_equal(pair["arr_0"][0], low.data[shown])
        np.testing.assert_array_equal(pair["arr_0"][1], normal.data)
        np.testing.assert_allclose(pair["affine"], affine, atol=1e-4)


def test_arrays_of_two_shapes_do_not_say_what_they_have_in_common(tmp_path, capsys):
    np.savez(tmp_path / "low.npz", uptake(0, (20, 20, 20)))
    np.savez(tmp_path / "normal.npz", uptake(1, (20, 20, 19)))
    with pytest.raises(InputError, match="arrays of 20 x 20 x 20 and 20 x 20 x 19 voxels, which do not say where"):
        notices_of(tmp_path / "low.npz", tmp_path / "normal.npz", tmp_path, capsys)
    assert not (tmp_path / "pair.npz").exists()
    np.savez(tmp_path / "normal.npz", uptake(1, (20, 20, 20)))
    assert notices_of(tmp_path / "low.npz", tmp_path / "normal.npz", tmp_path, capsys) == []


@pytest.mark.parametrize("shape", [(20, 20, 20), (20, 20, 19)])
def test_a_pair_of_two_units_is_refused(tmp_path, capsys, shape):
    """It was written as SUV by body weight, on one grid and on two."""
    low = Volume(uptake(0, (20, 20, 20)), centred_affine((20, 20, 20), 4.0, "LPS"))
    save_volume(low, tmp_path / "low.nii.gz")
    normal = Volume(0.7 * uptake(1, shape), centred_affine(shape, 4.0, "LPS"), "SUVlbm")
    save_volume(normal, tmp_path / "normal.nii.gz")
    with pytest.raises(InputError, match="the low dose is in SUV and the normal dose in SUVlbm"):
        notices_of(tmp_path / "low.nii.gz", tmp_path / "normal.nii.gz", tmp_path, capsys)


def test_a_pair_of_a_tilted_gantry(tmp_path, capsys):
    shape = (20, 20, 20)
    affine = tilted(centred_affine(shape, 4.0, "LPS"), 15)
    low, normal = Volume(uptake(0, shape), affine), Volume(uptake(1, shape) * 0.6 + 0.8, affine)
    for kind, volume in (("low", low), ("normal", normal)):
        save_volume(volume, tmp_path / f"{kind}.nii.gz")
    assert notices_of(tmp_path / "low.nii.gz", tmp_path / "normal.nii.gz", tmp_path, capsys) == []
    with np.load(tmp_path / "pair.npz") as pair:
        for stored, volume in zip(pair["arr_0"], (low, normal), strict=True):
            expected = to_model_grid(volume, voxel_mm=4.0)
            np.testing.assert_allclose(stored, expected.data, atol=1e-3)
            np.testing.assert_allclose(pair["affine"], expected.affine, atol=1e-4)


def test_a_pair_of_two_tilted_grids_is_refused(tmp_path, capsys):
    affine = tilted(centred_affine((20, 20, 20), 4.0, "LPS"), 15)
    save_volume(Volume(uptake(0, (20, 20, 20)), affine), tmp_path / "low.nii.gz")
    save_volume(Volume(uptake(1, (20, 20, 19)), affine), tmp_path / "normal.nii.gz")
    with pytest.raises(InputError, match=r"parallel axes .with a tilted gantry both must lie on one grid"):
        notices_of(tmp_path / "low.nii.gz", tmp_path / "normal.nii.gz", tmp_path, capsys)


def test_a_tilted_scan_is_thinned(tmp_path):
    scan = Volume(np.zeros((50, 48, 40), np.float32), tilted(centred_affine((50, 48, 40), 4.0, "LPS"), 10))
    inside = np.s_[5:45, 5:43, :]
    scan.data[inside] = 2 + 0.2 * np.random.default_rng(0).standard_normal(scan.data[inside].shape)
    save_volume(scan, tmp_path / "scan.nii.gz")
    command = ["--input", tmp_path / "scan.nii.gz", "--thin", "1/4", "--output", tmp_path / "p.npz"]
    prepare_image(create_parser(""), [str(word) for word in (*command, "--voxel_mm", 4, 4, 4)])
    with np.load(tmp_path / "p_1-4.npz") as pair:
        low, normal = pair["arr_0"]
    middle = tuple(slice(n // 3, 2 * n // 3) for n in low.shape)
    assert normal[middle].mean() == pytest.approx(2, rel=0.02)
    ratio = low[middle].std() / normal[middle].std()
    assert ratio == pytest.approx(2, rel=0.15)  # a quarter of the counts, twice the noise
