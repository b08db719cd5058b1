"""scripts/prepare.py: any image in, the model's grid out; hostile input gets one line and exit code 2."""

import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from guided_diffusion.commands.prepare import create_parser, prepare_image
from guided_diffusion.errors import InputError
from guided_diffusion.pet.geometry import to_model_grid
from guided_diffusion.pet.grid import Volume
from guided_diffusion.pet.preparation import ModelGrid, describe, load, prepare
from guided_diffusion.pet.suv_bases import lean_body_mass_kg
from guided_diffusion.pet.volume import load_volume, save_volume
from tests.dicom_series import write_series
from tests.pairs import read_pair

ROOT = Path(__file__).parents[2]


@pytest.fixture
def stored():
    """Stored values [column, row, slice] of a body of SUV 2 with a bladder of SUV 20."""
    values = np.zeros((40, 30, 24), np.int16)
    values[10:30, 8:22] = 5000
    values[18:22, 12:16, 10:14] = 20000
    return values


def _run(*flags):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "scripts/prepare.py", *map(str, flags)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.filterwarnings("ignore:Invalid value")
def test_the_script_tells_what_an_image_is_and_prepares_it(tmp_path, stored):
    write_series(tmp_path / "s", stored, slopes=np.full(24, 2.5), PatientName="Sentinel\x1b[31m^Secret\n")
    flags = ("--weight_kg", "35", "--half_life_s", "6586.2")
    done = _run("--input", tmp_path / "s", "--info", "--output", tmp_path / "out.npz", *flags)
    assert done.returncode == 0, done.stderr
    rows = dict(line.split("  ", 1) for line in done.stdout.splitlines())
    rows = {name: value.strip() for name, value in rows.items()}
    assert rows["grid"] == "40 x 30 x 24"
    assert rows["voxel (mm)"] == "4 x 5 x 3"
    assert rows["orientation"] == "LPS"
    assert rows["units"] == "BQML -> SUV"
    assert float(rows["SUV factor"]) == pytest.approx(2e-4)
    assert "given by the user: weight_kg, half_life_s" in rows["how found"]
    assert float(rows["peak SUV"]) == pytest.approx(10)
    assert rows["patches"].startswith("1 of")
    assert rows["network calls"].startswith("1000 per realisation")
    record = json.loads((tmp_path / "out.npz.json").read_text())
    assert record["source"]["suv_overrides"] == {"weight_kg": 35.0, "half_life_s": 6586.2}
    model = to_model_grid(load_volume(tmp_path / "s"))
    written = load_volume(tmp_path / "out.npz")
    np.testing.assert_allclose(written.data, model.data / 2, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(written.affine, model.affine)
    for output in (done.stdout, done.stderr, json.dumps(record)):
        assert "Sentinel" not in output
        assert "1948" not in output


@pytest.mark.filterwarnings("ignore:Invalid value")
def test_the_script_ends_with_one_line_and_exit_code_2(tmp_path, stored):
    write_series(tmp_path / "s", stored, PatientName="Sentinel\x1b[31m^Secret\n", PatientWeight="0")
    done = _run("--input", tmp_path / "s", "--output", tmp_path / "out.npz")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ")
    assert "PatientWeight (0010,1030) is '0'" in done.stderr
    assert "Sentinel" not in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s"]


def test_the_table_has_the_clipped_volume_and_obliqueness(tmp_path, stored):
    turned = (0.939692620786, 0.342020143326, 0, -0.342020143326, 0.939692620786, 0)
    write_series(tmp_path / "s", stored, slopes=np.full(24, 2.5), orientation=turned)
    rows = dict(describe(load(str(tmp_path / "s"), ModelGrid()), ModelGrid()))
    assert rows["above SUV 16"] == "64 voxels, 3.84 mL"  # 4 x 4 x 4 voxels of 4 x 5 x 3 mm
    assert rows["orientation"] == "LPS, 20.0 degrees oblique"


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        (ModelGrid(voxel_mm=(1.65, 0, 1.65)), "voxels of 1.65 x 0 x 1.65 mm"),
        (ModelGrid(axis_codes="RRS"), "axis codes 'RRS'"),
        (ModelGrid(margin_mm=-5), "a margin of -5 mm"),
        (ModelGrid(bare_voxel_mm=(-1, 1, 1)), "an array without affine: no PET image has voxels of -1 x 1 x 1 mm"),
    ],
)
def test_grids_that_make_no_sense_are_refused(tmp_path, grid, message):
    np.savez(tmp_path / "v.npz", np.full((20, 20, 20), 2, np.float32))
    with pytest.raises(InputError, match=message):
        prepare(load(str(tmp_path / "v.npz"), grid), tmp_path / "out.npz", grid)
    assert [p.name for p in tmp_path.iterdir()] == ["v.npz"]


def test_flags_that_make_no_sense_end_with_one_line(tmp_path):
    np.savez(tmp_path / "v.npz", np.full((20, 20, 20), 2, np.float32))
    done = _run("--input", tmp_path / "v.npz", "--info", "--axis_codes", "XYZ")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "axis codes 'XYZ' name no three axes" in done.stderr


def test_low_and_normal_dose_become_a_training_pair(tmp_path, stored):
    write_series(tmp_path / "low", stored)
    write_series(tmp_path / "normal", stored * 1, slopes=np.full(24, 2.0))
    grid = ModelGrid()
    low, normal = load(str(tmp_path / "low"), grid), load(str(tmp_path / "normal"), grid)
    model = prepare(low, tmp_path / "pair.npz", grid, normal_dose=normal)
    first, second = read_pair(tmp_path / "pair.npz")
    np.testing.assert_array_equal(first.data, model.data)
    np.testing.assert_allclose(second.data, 2 * model.data, rtol=1e-4, atol=1e-4)
    with pytest.raises(InputError, match=r"suffix \.npz"):
        prepare(low, tmp_path / "pair.nii", grid, normal_dose=normal)


def test_what_a_normal_dose_lacks_is_no_matter_of_flags(tmp_path, stored):
    """They apply to the low dose, and recommending one that was given would lead nowhere."""
    write_series(tmp_path / "low", stored)
    write_series(tmp_path / "normal", stored, PatientWeight=None)
    flags = ["--input", str(tmp_path / "low"), "--normal_dose", str(tmp_path / "normal"), "--weight_kg", "70"]
    message = r"give --weight_kg \(flags of the image apply.*: give the path of that series' folder, or"
    with pytest.raises(InputError, match=message):
        prepare_image(create_parser("prepare"), [*flags, "--output", str(tmp_path / "pair.npz")])


def test_nifti_out_and_lean_body_mass(tmp_path, stored):
    write_series(tmp_path / "s", stored)
    volume = load(str(tmp_path / "s"), ModelGrid())
    prepare(volume, tmp_path / "lbm.nii.gz", ModelGrid(), suv_basis="lbm")
    image = nib.load(tmp_path / "lbm.nii.gz")
    ratio = lean_body_mass_kg(70, 1.75, "M") / 70
    np.testing.assert_allclose(image.get_fdata(), to_model_grid(volume).data * ratio, rtol=1e-5, atol=1e-6)
    assert b"SUVlbm" in image.header["descrip"].item()
    save_volume(volume, tmp_path / "bare.nii")
    with pytest.raises(InputError, match=r"SUVlbm needs .*PatientSex"):
        prepare(load(str(tmp_path / "bare.nii"), ModelGrid()), tmp_path / "x.nii", ModelGrid(), suv_basis="lbm")


def test_bare_arrays_take_the_voxel_size_they_are_given(tmp_path):
    np.savez(tmp_path / "v.npz", np.full((20, 20, 20), 2, np.float32))
    volume = load(str(tmp_path / "v.npz"), ModelGrid(bare_voxel_mm=(3.3, 3.3, 3.3)))
    model = prepare(volume, tmp_path / "out.npz", ModelGrid())
    assert isinstance(model, Volume)
    assert model.data.shape == (40, 40, 40)
    np.testing.assert_allclose(model.data, 2, rtol=1e-5)
