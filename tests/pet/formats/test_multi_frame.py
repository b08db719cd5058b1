"""Enhanced and legacy-converted PET objects: the same volume, factor and derived series as from classic slices."""

import zipfile
from dataclasses import replace

import numpy as np
import pydicom
import pytest
from pydicom.sequence import Sequence
from pydicom.uid import PositronEmissionTomographyImageStorage, RLELossless

from guided_diffusion.errors import InputError
from guided_diffusion.pet.formats.dicom import Series
from guided_diffusion.pet.formats.dicom_files import DicomFile, Slices, file_at, header_of
from guided_diffusion.pet.formats.dicom_writer import check_derivable, save_dicom_series
from guided_diffusion.pet.formats.multi_frame import frames_as_slices
from guided_diffusion.pet.volume import load_volume
from tests.denoising import denoise
from tests.dicom_series import HALF_LIFE_S
from tests.multi_frame_objects import (
    KINDS,
    assert_same_as_classic,
    classic,
    edit,
    enhanced,
    frames,
    item,
    refused,
)


@KINDS
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"DecayCorrection": "ADMIN"},
        {"AcquisitionTime": "123000", "ActualFrameDuration": "120000"},
        {"DecayCorrection": "NONE", "CorrectedImage": ["ATTN"], "ActualFrameDuration": "120000"},
        {"Units": "GML"},
    ],
)
def test_it_is_the_same_scan_as_the_classic_series(tmp_path, write, changes):
    write(tmp_path / "s" / "whole.dcm", classic(tmp_path, **changes))
    assert_same_as_classic(tmp_path)


def test_each_frame_has_its_own_time_where_decay_is_not_corrected(tmp_path):
    headers = [{"AcquisitionTime": f"12{5 * k:02}00"} for k in range(6)]
    changes = {"DecayCorrection": "NONE", "CorrectedImage": ["ATTN"], "ActualFrameDuration": "120000"}
    enhanced(tmp_path / "s" / "whole.dcm", classic(tmp_path, headers=headers, **changes))
    assert_same_as_classic(tmp_path)
    low, high = load_volume(tmp_path / "s").source["suv_factor"]
    assert high / low == pytest.approx(2 ** (1500 / HALF_LIFE_S))


@KINDS
@pytest.mark.parametrize("parts", [(2, 4), (1, 1, 1, 1, 1, 1)])
def test_a_volume_may_be_split_over_files_and_zipped(tmp_path, slices, write, parts):
    for number, first in enumerate(np.cumsum((0, *parts[:-1]))):
        write(tmp_path / "s" / f"{number}.dcm", slices[first : first + parts[number]])
    assert_same_as_classic(tmp_path)
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as archive:
        for path in (tmp_path / "s").iterdir():
            archive.write(path, path.name)
    assert_same_as_classic(tmp_path, "s.zip")


@KINDS
def test_the_path_of_its_only_file_is_enough(tmp_path, slices, write):
    write(tmp_path / "s" / "whole.dcm", slices)
    (tmp_path / "s" / "copy.dcm").write_bytes((tmp_path / "s" / "whole.dcm").read_bytes())
    write(tmp_path / "s" / "of_another_series.dcm", slices, SeriesInstanceUID="1.2.3")
    (tmp_path / "s" / "empty.dcm").touch()
    assert_same_as_classic(tmp_path, "s/whole.dcm")


@KINDS
def test_one_file_of_several_is_sent_to_its_folder(tmp_path, slices, write):
    for number, part in enumerate((slices[:2], slices[2:])):
        write(tmp_path / "s" / f"{number}.dcm", part)
    with pytest.raises(InputError, match=r"0\.dcm: is one DICOM file; give the folder of its series"):
        load_volume(tmp_path / "s" / "0.dcm")


def test_an_object_is_read_once_for_its_pixels_and_then_let_go(tmp_path, slices, monkeypatch):
    enhanced(tmp_path / "s" / "whole.dcm", slices)
    reads = []
    read = DicomFile.read

    def counting(self, **options):
        reads.append(options)
        return read(self, **options)

    monkeypatch.setattr(DicomFile, "read", counting)
    for count in (1, 2):
        load_volume(tmp_path / "s")
        assert [options for options in reads if not options] == [{}] * count


@KINDS
def test_the_derived_series_is_a_classic_one_that_names_the_frames(tmp_path, slices, write):
    whole = write(tmp_path / "s" / "whole.dcm", slices)
    volume = load_volume(tmp_path / "s")
    check_derivable(volume.series, tmp_path / "out")
    half = replace(volume, data=volume.data / 2)
    save_dicom_series(half, volume.series, tmp_path / "out", model_description="m")
    again = load_volume(tmp_path / "out")
    np.testing.assert_allclose(again.data, half.data, atol=half.data.max() / 60000)
    np.testing.assert_array_equal(again.affine, volume.affine)
    assert again.source["suv_factor"] == pytest.approx(volume.source["suv_factor"], rel=1e-9)
    named, uids = {}, set()
    for path in (tmp_path / "out").iterdir():
        derived = pydicom.dcmread(path)
        assert derived.file_meta.MediaStorageSOPClassUID == PositronEmissionTomographyImageStorage
        assert derived.SOPClassUID == PositronEmissionTomographyImageStorage
        assert not any("FunctionalGroups" in element.keyword or "Unassigned" in element.keyword for element in derived)
        assert "NumberOfFrames" not in derived
        assert "ReferencedFrameNumber" not in derived
        assert (derived.SeriesType, derived.CountsSource) == (["STATIC", "IMAGE"], "EMISSION")
        assert (derived.NumberOfSlices, f"{derived.ImageIndex:05d}.dcm") == (6, path.name)
        assert derived.RadiopharmaceuticalInformationSequence[0].RadiopharmaceuticalStartTime.startswith("101013.8")
        (source,) = derived.SourceImageSequence
        assert source.ReferencedSOPClassUID == whole.SOPClassUID
        assert source.ReferencedSOPInstanceUID == whole.SOPInstanceUID
        named[source.ReferencedFrameNumber] = derived.ImagePositionPatient
        uids.add(derived.SOPInstanceUID)
    places = {
        number: frame.PlanePositionSequence[0].ImagePositionPatient for number, frame in enumerate(frames(whole), 1)
    }
    assert named == places
    assert len(uids) == 6


def test_compressed_frames_are_decoded_one_by_one(tmp_path, slices):
    path = tmp_path / "s" / "whole.dcm"
    enhanced(path, slices).compress(RLELossless)
    edit(path, lambda whole: whole.compress(RLELossless))
    assert_same_as_classic(tmp_path)
    volume = load_volume(tmp_path / "s")
    save_dicom_series(volume, volume.series, tmp_path / "out", model_description="m")
    np.testing.assert_allclose(load_volume(tmp_path / "out").data, volume.data, atol=volume.data.max() / 60000)

    def lose_a_frame(whole):
        parts = list(pydicom.encaps.generate_frames(whole.PixelData, number_of_frames=6))
        whole.PixelData = pydicom.encaps.encapsulate(parts[:5])

    edit(path, lose_a_frame)
    refused(tmp_path / "s", r"whole\.dcm: its pixel data are missing or truncated")


def test_frames_in_floating_point(tmp_path, slices):
    path = tmp_path / "s" / "whole.dcm"

    def to_float(whole):
        values = whole.pixel_array.astype("<f4")
        for gone in ("PixelData", "PixelRepresentation", "BitsStored", "HighBit"):
            delattr(whole, gone)
        whole.BitsAllocated, whole.FloatPixelData = 32, values.tobytes()

    enhanced(path, slices)
    edit(path, to_float)
    assert_same_as_classic(tmp_path)


def test_stacks_of_different_orientation_are_refused(tmp_path, slices):
    def turn(whole):
        content = frames(whole)[2]
        content.FrameContentSequence[0].StackID = "2"
        content.PlaneOrientationSequence = Sequence([item(ImageOrientationPatient=[1, 0, 0, 0, 0, -1])])

    enhanced(tmp_path / "s" / "whole.dcm", slices)
    edit(tmp_path / "s" / "whole.dcm", turn)
    refused(tmp_path / "s", r"frame 3: one series, but different orientation; separate the two")


def test_a_copy_of_an_object_is_left_out(tmp_path, slices):
    enhanced(tmp_path / "s" / "whole.dcm", slices)
    (tmp_path / "s" / "whole (1).dcm").write_bytes((tmp_path / "s" / "whole.dcm").read_bytes())
    volume = load_volume(tmp_path / "s")
    np.testing.assert_array_equal(volume.data, load_volume(tmp_path / "classic").data)
    assert any("a copy of a slice" in notice for notice in volume.source["notices"])


def test_an_object_that_is_replaced_while_it_is_read_is_refused(tmp_path, slices):
    path = tmp_path / "s" / "whole.dcm"
    enhanced(path, slices)
    with frames_as_slices(Slices([(file_at(path), header_of(file_at(path)))])) as found:
        members = found.headers
        series = Series(*zip(*members, strict=True), stack=None, name="s")
        enhanced(path, slices[::-1])
        with pytest.raises(InputError, match=r"frame 3: was replaced by another file"):
            series.read(2)


def _more_frames(whole):
    whole.NumberOfFrames = 5000


def _fewer_frames(whole):
    whole.NumberOfFrames = 3


def _more_rows(whole):
    whole.Rows = 4000


def _fewer_rows(whole):
    whole.Rows = 3


def _no_pixels(whole):
    del whole.PixelData


def _no_position(whole):
    del frames(whole)[4].PlanePositionSequence


def _no_groups(whole):
    del whole.PerFrameFunctionalGroupsSequence


def _no_unit(whole):
    for frame in frames(whole):
        del frame.RealWorldValueMappingSequence


def _no_attenuation_correction(whole):
    whole.AttenuationCorrected = "NO"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_more_frames, r"frame 1: NumberOfFrames \(0028,0008\) is '5000', but it describes 6; export"),
        (_fewer_frames, r"frame 1: NumberOfFrames \(0028,0008\) is '3', but it describes 6; export"),
        (_more_rows, r"whole\.dcm: its pixel data are missing or truncated"),
        (_fewer_rows, r"whole\.dcm: NumberOfFrames \(0028,0008\) is '6', Rows .* but its pixels are more"),
        (_no_pixels, r"whole\.dcm: its pixel data are missing or truncated"),
        (_no_position, r"frame 5: ImagePositionPatient \(0020,0032\) is missing"),
        (_no_groups, r"whole\.dcm: is a multi-frame file"),
        (_no_unit, r"Units \(0054,1001\) is missing"),
        (_no_attenuation_correction, r"CorrectedImage \(0028,0051\) is 'DECY.*SCAT'; .*without attenuation"),
    ],
)
def test_what_is_wrong_with_an_object_is_named(tmp_path, slices, spoil, message):
    enhanced(tmp_path / "s" / "whole.dcm", slices)
    edit(tmp_path / "s" / "whole.dcm", spoil)
    refused(tmp_path / "s", message)


@pytest.mark.parametrize("kept", [0.5, 0.97, 0.999])
def test_a_truncated_object_is_refused(tmp_path, slices, kept):
    path = tmp_path / "s" / "whole.dcm"
    enhanced(path, slices)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    refused(tmp_path / "s", r"whole\.dcm.*(truncated|damaged|is missing)")


def test_no_memory_is_taken_for_pixels_that_are_not_there(tmp_path, slices, monkeypatch):
    """A header of 4000 x 4000 pixels asks for 400 MB."""
    enhanced(tmp_path / "s" / "whole.dcm", slices, Rows=4000, Columns=4000)
    monkeypatch.setattr(np, "empty", lambda *_args, **_options: pytest.fail("memory was taken"))
    refused(tmp_path / "s", r"whole\.dcm: its pixel data are missing or truncated")


def test_an_object_is_denoised_and_written_as_slices(tmp_path, small, slices):
    enhanced(tmp_path / "s" / "whole.dcm", slices)
    for name in ("s", "classic"):
        denoise(tmp_path / name, small / "small.pt", tmp_path / f"{name}_out", "--write_dicom", True)
    volumes = [load_volume(tmp_path / f"{name}_out" / "denoised_dicom") for name in ("s", "classic")]
    np.testing.assert_allclose(volumes[0].data, volumes[1].data, atol=volumes[1].data.max() / 60000)
    np.testing.assert_array_equal(volumes[0].affine, volumes[1].affine)
