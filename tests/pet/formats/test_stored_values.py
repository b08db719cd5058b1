"""From stored bits to values: padding, floating-point pixels, unused bits, slopes that are none."""

import numpy as np
import pydicom
import pytest

from guided_diffusion.errors import InputError
from guided_diffusion.pet.volume import load_volume
from tests.dicom_series import write_series

SUV_PER_BQML = 4e-4  # of tests.dicom_series.pet_header


@pytest.fixture
def stored():
    """Stored values [column, row, slice], every one different."""
    return np.random.default_rng(0).permutation(5 * 7 * 6).reshape(5, 7, 6).astype(np.int16) * 100


def edited(folder, stored, edit):
    """A series whose slices `edit` changes, each with its stored values [row, column]."""
    for path in write_series(folder, stored):
        dataset = pydicom.dcmread(path)
        edit(dataset, dataset.pixel_array.copy())
        dataset.save_as(path)
    return load_volume(folder).data


def test_padding_is_air(tmp_path, stored):
    def pad(dataset, pixels):
        pixels[0], pixels[1, 0] = -2000, -1990
        dataset.add_new("PixelPaddingValue", "SS", -2000)
        dataset.add_new("PixelPaddingRangeLimit", "SS", -1990)
        dataset.RescaleIntercept = "500"
        dataset.PixelData = pixels.tobytes()

    expected = (stored + 500.0) * SUV_PER_BQML
    expected[:, 0], expected[0, 1] = 0, 0
    np.testing.assert_allclose(edited(tmp_path / "s", stored, pad), expected, rtol=1e-6)


def test_an_empty_slice_needs_no_slope(tmp_path, stored):
    """Writers that scale each slice by its largest value give it a slope of 0."""
    stored[..., 2] = 0

    def empty(dataset, pixels):
        if not pixels.any():
            dataset.RescaleSlope = "0"

    np.testing.assert_allclose(edited(tmp_path / "s", stored, empty), stored * SUV_PER_BQML, rtol=1e-6)


def test_padding_in_a_tag_of_the_wrong_sign_is_known(tmp_path, stored):
    def pad(dataset, pixels):
        pixels[0] = -2000
        dataset.add_new("PixelPaddingValue", "US", 65536 - 2000)
        dataset.PixelData = pixels.tobytes()

    expected = stored * SUV_PER_BQML
    expected[:, 0] = 0
    np.testing.assert_allclose(edited(tmp_path / "s", stored, pad), expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("slope", [None, "2"])
def test_pixels_in_floating_point(tmp_path, stored, dtype, slope):
    keyword, padding = {
        np.float32: ("FloatPixelData", "FloatPixelPaddingValue"),
        np.float64: ("DoubleFloatPixelData", "DoubleFloatPixelPaddingValue"),
    }[dtype]

    def to_float(dataset, pixels):
        for gone in ("PixelData", "RescaleSlope", "RescaleIntercept", "PixelRepresentation", "BitsStored", "HighBit"):
            delattr(dataset, gone)
        values = pixels / 8 + 0.25
        values[2, 3] = -7.5
        setattr(dataset, padding, -7.5)
        dataset.BitsAllocated = 8 * np.dtype(dtype).itemsize
        if slope:
            dataset.RescaleSlope = slope
        setattr(dataset, keyword, values.astype(dtype).tobytes())

    expected = (stored / 8 + 0.25) * float(slope or 1) * SUV_PER_BQML
    expected[3, 2] = 0
    np.testing.assert_allclose(edited(tmp_path / "s", stored, to_float), expected, rtol=1e-6)


@pytest.mark.parametrize("signed", [True, False])
def test_bits_above_those_stored_are_left_out(tmp_path, stored, signed):
    """12 of 16 bits hold the value; an overlay lies in the others."""
    small = stored // 10 - (500 if signed else 0)

    def pack(dataset, pixels):
        bits = (pixels.astype(np.int64) & 0xFFF) | 0xF000
        dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 12, 11, int(signed)
        dataset.PixelData = bits.astype(np.uint16).tobytes()

    np.testing.assert_allclose(edited(tmp_path / "s", small, pack), small * SUV_PER_BQML, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("case", ["overlay", "sign"])
def test_bits_above_those_stored_may_differ_as_an_overlay_or_the_sign(tmp_path, stored, case):
    small = stored // 10 - (500 if case == "sign" else 0)

    def pack(dataset, pixels):
        dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 12, 11, int(case == "sign")
        if case == "overlay":
            dataset.add_new((0x6002, 0x0102), "US", 13)
            pixels[::2] |= 1 << 13
        dataset.PixelData = pixels.tobytes()

    np.testing.assert_allclose(edited(tmp_path / "s", small, pack), small * SUV_PER_BQML, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("signed", [True, False])
def test_values_that_go_on_above_the_bits_stored_are_refused(tmp_path, stored, signed):
    def understate(dataset, _):
        dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 12, 11, int(signed)

    with pytest.raises(InputError, match=r"BitsStored \(0028,0101\) is '12', but its pixels use more bits"):
        edited(tmp_path / "s", stored, understate)


def test_unsigned_values_that_are_said_to_be_signed_are_refused(tmp_path):
    """A lesion above half the range would be the coldest place of the body."""
    i, j = np.indices((24, 24)) - 12
    profile = 9000 * (i**2 + j**2 < 81) + 36000 * np.exp(-(i**2 + j**2) / 8)
    stored = np.repeat(np.rint(profile)[..., None], 4, axis=2).astype(np.uint16)
    assert 40000 < stored.max() < 65536
    with pytest.raises(
        InputError, match=r"PixelRepresentation \(0028,0103\) is '1', signed, but its pixels are unsign"
    ):
        edited(tmp_path / "s", stored.view(np.int16), lambda *_: None)


@pytest.mark.parametrize("padding", [None, -32768])
def test_noise_and_padding_below_zero_are_signed(tmp_path, padding):
    """A scan of low dose, whose slices fill the range; and air that is marked."""
    noise = np.random.default_rng(0).normal(4000, 7000, (24, 24, 4)).clip(-30000, 30000)
    stored = np.rint(noise).astype(np.int16)
    if padding is not None:
        stored = np.abs(stored)
        stored[:4] = padding

    def pad(dataset, _):
        dataset.add_new("PixelPaddingValue", "SS", -32768)

    expected = np.where(stored == padding, 0, stored) * SUV_PER_BQML
    np.testing.assert_allclose(edited(tmp_path / "s", stored, pad), expected, rtol=1e-6, atol=1e-7)


def test_bits_that_lie_elsewhere_are_refused(tmp_path, stored):
    def shift(dataset, pixels):
        dataset.BitsStored, dataset.HighBit = 12, 15
        dataset.PixelData = (pixels << 4).tobytes()

    with pytest.raises(InputError, match=r"HighBit \(0028,0102\) is '15', but BitsStored \(0028,0101\) is '12'"):
        edited(tmp_path / "s", stored // 10, shift)


@pytest.mark.parametrize("keyword", ["Rows", "Columns"])
def test_more_pixels_than_the_header_says_are_no_padding(tmp_path, stored, keyword):
    def crop(dataset, _):
        setattr(dataset, keyword, 4)

    with pytest.raises(InputError, match=rf"{keyword} \(0028,00..\) is '4'.* but its pixels are more"):
        edited(tmp_path / "s", stored, crop)

    def pad(dataset, _):
        dataset.PixelData += bytes(4)

    np.testing.assert_allclose(edited(tmp_path / "padded", stored, pad), stored * SUV_PER_BQML, rtol=1e-6)


@pytest.mark.parametrize(
    ("keyword", "text", "message"),
    [
        ("RescaleSlope", "0,7 ", r"0004\.dcm: RescaleSlope \(0028,1053\) is '0,7'"),
        ("RescaleSlope", "0   ", r"RescaleSlope \(0028,1053\) is '0'"),
        ("RescaleSlope", "-0.7", r"RescaleSlope \(0028,1053\) is '-0.7'"),
        ("RescaleSlope", "Anna", r"RescaleSlope \(0028,1053\) is no value of its kind \(4 characters\)"),
        ("RescaleIntercept", "0,5 ", r"RescaleIntercept \(0028,1052\) is '0,5'"),
        ("PixelSpacing", "4,07\\4,07 ", r"PixelSpacing \(0028,0030\) is '4,07\\4,07'"),
        ("ImagePositionPatient", "-50,5\\1\\2 ", r"ImagePositionPatient \(0020,0032\) is '-50,5\\1\\2'"),
        ("RadionuclideTotalDose", "35,5e7", r"RadionuclideTotalDose \(0018,1074\) .*: 350000000 and 35,5e7;"),
        ("RadionuclideHalfLife", "6586,2", r"RadionuclideHalfLife \(0018,1075\) .*: 6586.2 and 6586,2;"),
        ("PatientWeight", "70,5", r"PatientWeight \(0010,1030\) .*70,5"),
    ],
)
def test_a_number_that_is_none_is_quoted(tmp_path, stored, keyword, text, message):
    paths = write_series(tmp_path / "s", stored)
    whole = paths[2].read_bytes()
    tag = pydicom.datadict.tag_for_keyword(keyword)
    start = whole.index((tag >> 16).to_bytes(2, "little") + (tag & 0xFFFF).to_bytes(2, "little") + b"DS")
    length = int.from_bytes(whole[start + 6 : start + 8], "little")
    if keyword.startswith("Radionuclide"):  # inside a sequence of stated length
        text = text.ljust(length)[:length]
    value = text.encode()
    whole = whole[: start + 6] + len(value).to_bytes(2, "little") + value + whole[start + 8 + length :]
    paths[2].write_bytes(whole)
    with pytest.raises(InputError, match=message) as caught:
        load_volume(tmp_path / "s")
    assert "Anna" not in str(caught.value)


@pytest.mark.parametrize("keyword", ["PixelRepresentation", "BitsStored", "SamplesPerPixel", "BitsAllocated"])
def test_pixels_that_no_tag_describes_are_refused_by_that_tag(tmp_path, stored, keyword):
    for path in write_series(tmp_path / "s", stored):
        dataset = pydicom.dcmread(path)
        delattr(dataset, keyword)
        dataset.save_as(path)
    with pytest.raises(InputError, match=rf"{keyword} \(0028,0...\) is missing, without which its pixels"):
        load_volume(tmp_path / "s")
