"""Slices in space: what their headers round and leave out."""

import numpy as np
import pydicom
import pytest

from guided_diffusion.pet.volume import load_volume
from tests.dicom_series import write_series

SUV_PER_BQML = 4e-4  # of tests.dicom_series.pet_header


@pytest.fixture
def stored():
    return np.random.default_rng(0).permutation(5 * 7 * 6).reshape(5, 7, 6).astype(np.int16) * 100


@pytest.mark.parametrize("rounded", [0, 1])
def test_an_orientation_that_some_slices_round_is_that_of_the_others(tmp_path, stored, rounded):
    turn = np.deg2rad(1)
    exact = (np.cos(turn), 0.0, np.sin(turn), 0.0, 1.0, 0.0)
    normal = np.cross(exact[:3], exact[3:])
    paths = write_series(tmp_path / "s", stored, orientation=exact, steps=np.outer(np.arange(6), 3 * normal))
    for path in paths[rounded::2]:
        dataset = pydicom.dcmread(path)
        dataset.ImageOrientationPatient = [f"{v:.3f}" for v in exact]
        dataset.save_as(path)
    volume = load_volume(tmp_path / "s")
    np.testing.assert_allclose(volume.data, stored * SUV_PER_BQML, rtol=1e-6)
    np.testing.assert_allclose(volume.affine[:3, 0], 4 * np.array(exact[:3]) * (-1, -1, 1), atol=1e-6)


@pytest.mark.parametrize(
    ("gap", "step", "told"), [(6.0, 2, True), (9.0, 3, True), (6.0, 1, False), (3.0, 2, False), (6.0, None, False)]
)
def test_every_second_slice_missing_is_told(tmp_path, stored, gap, step, told):
    paths = write_series(tmp_path / "s", stored, steps=np.outer(np.arange(6), (0, 0, gap)))
    for k, path in enumerate(paths):
        dataset = pydicom.dcmread(path)
        dataset.InstanceNumber = None if step is None else 1 + step * k
        dataset.save_as(path)
    notices = load_volume(tmp_path / "s").source["notices"]
    between = f"slices are 3 mm thick, but lie {gap:g} mm apart, and their InstanceNumber (0020,0013) goes up by {step}"
    assert notices == ([f"{tmp_path / 's'}: {between}: those between may be missing"] if told else [])


@pytest.mark.parametrize(
    ("first", "stated", "told"),
    [(3, None, True), (3, 9, True), (3, 6, False), (1, None, False), (7, None, False), (1001, None, False)],
)
def test_numbers_that_begin_late_are_told_unless_those_of_another_frame(tmp_path, stored, first, stated, told):
    """Slices 9 of which are stated in one of two headers only: others state 6, as a series of beds may."""
    paths = write_series(tmp_path / "s", stored)
    for k, path in enumerate(paths):
        dataset = pydicom.dcmread(path)
        dataset.InstanceNumber = first + k
        if stated is not None:
            dataset.NumberOfSlices = stated if k % 2 else 6
        dataset.save_as(path)
    volume = load_volume(tmp_path / "s")
    np.testing.assert_allclose(volume.data, stored * SUV_PER_BQML, rtol=1e-6)
    doubt = "InstanceNumber (0020,0013) of its 6 slices begins at 3: 2 may be missing at an end; if so, copy the series"
    assert volume.source["notices"] == ([f"{tmp_path / 's'}: {doubt} again"] if told else [])
