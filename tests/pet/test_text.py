"""Text of files and flags."""

import math

import pytest

from guided_diffusion.pet.text import number_of, number_of_cell


@pytest.mark.parametrize(("text", "number"), [("1/20", 0.05), (" 1/4 ", 0.25), ("0.1", 0.1), ("1e-2", 0.01), ("0", 0)])
def test_a_fraction_is_read_as_a_number(text, number):
    assert number_of(text) == pytest.approx(number)


@pytest.mark.parametrize("text", ["", "x", "1/0", "1/2/3", "nan", "1,4", "1/", "9e999", "1e999999999"])
def test_other_text_is_no_number(text):
    assert math.isnan(number_of(text))


@pytest.mark.parametrize("text", ["1/20", "0.05", "0,05", " 0,05"])
def test_a_cell_is_read_however_a_spreadsheet_saved_it(text):
    assert number_of_cell(text) == pytest.approx(0.05)
