"""Slices that a partial copy left without pixels, in part or all, and slices that are so by themselves."""

import numpy as np
import pytest

from guided_diffusion.pet.volume import load_volume
from tests.dicom_series import write_series


@pytest.fixture
def body():
    """Stored values [column, row, slice] of noisy tissue between the rows 5 and 25 of 30; 0 in air."""
    stored = np.zeros((20, 30, 9), np.int16)
    stored[4:16, 5:25] = np.random.default_rng(0).integers(2000, 3000, (12, 20, 9))
    return stored


def notices_of(folder, stored, **how):
    """The notices on a series, each from the name of the file on; files are numbered against the slices, from 9."""
    write_series(folder / "s", stored, **how)
    return [line.removeprefix(f"{folder}/s/") for line in load_volume(folder / "s").source["notices"]]


@pytest.mark.parametrize("value", [0, -1])
def test_a_slice_without_pixels_is_named(tmp_path, body, value):
    body[..., 3] = value
    assert notices_of(tmp_path, body) == [
        "0006.dcm: all pixels of the slice are equal, though slices on both sides have an image; copy it again, unless"
        " the image was masked"
    ]


def test_slices_without_pixels_are_counted_and_those_at_the_ends_are_not(tmp_path, body):
    body[..., [0, 3, 4, 6, 8]] = 0
    (notice,) = notices_of(tmp_path, body)
    assert notice.startswith("0006.dcm and 2 more: all pixels of the slice are equal")


@pytest.mark.parametrize("value", [0, -1])
@pytest.mark.parametrize(("row", "column", "first"), [(12, 0, 13), (17, 9, 19), (0, 6, 2)])
def test_a_slice_whose_last_rows_are_lost_is_named(tmp_path, body, row, column, first, value):
    """Copied up to a pixel of a row; rows are counted from 1."""
    body[:, :5] = 7
    body[:, row + 1 :, 5] = value
    body[column:, row, 5] = value
    (notice,) = notices_of(tmp_path, body)
    assert notice.startswith(f"0004.dcm: all pixels from row {first} on are equal, though slices on both sides have")


def test_the_slices_beside_are_those_with_an_image(tmp_path, body):
    """A copy that ended within one slice and left the next ones empty."""
    body[:, 14:, 2] = 0
    body[..., 3:5] = 0
    blank, cut = notices_of(tmp_path, body)
    assert blank.startswith("0006.dcm and 1 more: all pixels of the slice")
    assert cut.startswith("0007.dcm: all pixels from row 15 on")


def test_slices_at_unequal_distances_are_judged_as_they_are_stored(tmp_path, body):
    body[..., 3] = 0
    z = 3.0 * np.arange(9) + np.where(np.arange(9) == 5, 0.2, 0)
    (notice,) = notices_of(tmp_path, body, steps=np.outer(z, (0, 0, 1)))
    assert notice.startswith("0006.dcm: all pixels of the slice")


def less_of_the_body(stored):
    """Outlines differ by a few rows, and a focus of one slice drowns what little is in its air."""
    stored[:, 23:, 4] = 0
    stored += stored == 0
    stored[8, 12, 6] = 32000
    stored[:, 25:, 6] = 0


def masked_at_both_ends(stored):
    stored[..., [0, 1, 7, 8]] = 0


def one_value(stored):
    stored[...] = 5000


@pytest.mark.parametrize("make", [less_of_the_body, masked_at_both_ends, one_value])
def test_intact_slices_give_no_notice(tmp_path, body, make):
    make(body)
    assert notices_of(tmp_path, body) == []
