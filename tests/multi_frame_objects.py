"""Classic PET slices made one enhanced, or legacy-converted, object of many frames."""

import random
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    EnhancedPETImageStorage,
    ExplicitVRLittleEndian,
    LegacyConvertedEnhancedPETImageStorage,
    generate_uid,
)

from guided_diffusion.errors import InputError
from guided_diffusion.pet.formats.frame_header import CORRECTIONS
from guided_diffusion.pet.volume import load_volume
from tests.dicom_series import write_series

PATIENT = ("PatientName", "PatientBirthDate", "PatientWeight", "PatientSize", "PatientSex", "Modality", "Manufacturer")
OBJECT = ("StudyInstanceUID", "FrameOfReferenceUID", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription")
PIXELS = (
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
)
CODES = {"BQML": "Bq/ml", "GML": "{SUVbw}g/ml", "CNTS": "{counts}"}


def enhanced(path: Path, slices: list[Path], unit: str | None = None, **changes) -> Dataset:
    """Writes classic slices as an Enhanced PET object, a frame each in this order; changes: top-level tags.

    unit: the code of UCUM; that of the slices' Units if None.
    """
    headers = [pydicom.dcmread(one) for one in slices]
    whole = _object(headers, EnhancedPETImageStorage)
    first = headers[0]
    for keyword, term in CORRECTIONS.items():
        setattr(whole, keyword, "YES" if term in first.CorrectedImage else "NO")
    whole.AcquisitionDateTime = f"{first.AcquisitionDate}{first.AcquisitionTime}"
    drug = Dataset()
    drug.update(first.RadiopharmaceuticalInformationSequence[0])
    drug.RadiopharmaceuticalStartDateTime = f"{first.SeriesDate}{drug.RadiopharmaceuticalStartTime}"
    del drug.RadiopharmaceuticalStartTime
    drug.RadionuclideTotalDose = float(drug.RadionuclideTotalDose) / 1e6
    drug.RadiopharmaceuticalAgentNumber = 1
    whole.RadiopharmaceuticalInformationSequence = Sequence([drug])
    if first.DecayCorrection != "NONE":
        at = f"{first.SeriesDate}{first.SeriesTime}"
        whole.DecayCorrectionDateTime = (
            at if first.DecayCorrection == "START" else drug.RadiopharmaceuticalStartDateTime
        )
    shared = whole.SharedFunctionalGroupsSequence[0]
    shared.RadiopharmaceuticalUsageSequence = Sequence([item(RadiopharmaceuticalAgentNumber=1)])
    for header, frame in zip(headers, whole.PerFrameFunctionalGroupsSequence, strict=True):
        content = frame.FrameContentSequence[0]
        content.FrameAcquisitionDateTime = f"{header.AcquisitionDate}{header.AcquisitionTime}"
        content.FrameReferenceDateTime = content.FrameAcquisitionDateTime
        content.FrameAcquisitionDuration = float(header.get("ActualFrameDuration") or 60000)
        value = unit or CODES[first.Units]
        code = item(CodingSchemeDesignator="UCUM", CodeMeaning="unit")
        setattr(code, "CodeValue" if len(value) <= 16 else "LongCodeValue", value)
        mapping = item(RealWorldValueSlope=float(header.RescaleSlope), RealWorldValueIntercept=0.0)
        mapping.MeasurementUnitsCodeSequence = Sequence([code])
        frame.RealWorldValueMappingSequence = Sequence([mapping])
    return save(whole, path, **changes)


def legacy_converted(path: Path, slices: list[Path], **changes) -> Dataset:
    """Writes classic slices as a Legacy Converted Enhanced PET object: what no group has a place for is unassigned."""
    headers = [pydicom.dcmread(one) for one in slices]
    whole = _object(headers, LegacyConvertedEnhancedPETImageStorage)
    assigned = (*PATIENT, *OBJECT, *PIXELS, "SOPClassUID", "SOPInstanceUID", "SeriesDate", "SeriesTime", "PixelData")
    placed = ("PixelSpacing", "SliceThickness", "ImagePositionPatient", "ImageOrientationPatient")
    differing = ("AcquisitionDate", "AcquisitionTime", "ActualFrameDuration", "InstanceNumber", "DecayFactor")
    gone = (*assigned, *placed, *differing, "RescaleSlope", "RescaleIntercept", "ImageType")
    unassigned = Dataset()
    unassigned.update({e.tag: e for e in headers[0] if e.keyword not in gone})
    whole.SharedFunctionalGroupsSequence[0].UnassignedSharedConvertedAttributesSequence = Sequence([unassigned])
    for header, frame in zip(headers, whole.PerFrameFunctionalGroupsSequence, strict=True):
        own = item(**{keyword: header[keyword].value for keyword in differing if keyword in header})
        frame.UnassignedPerFrameConvertedAttributesSequence = Sequence([own])
    return save(whole, path, **changes)


def save(whole: Dataset, path: Path, **changes) -> Dataset:
    for keyword, value in changes.items():
        setattr(whole, keyword, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    whole.save_as(path, enforce_file_format=True)
    return whole


def item(**tags) -> Dataset:
    dataset = Dataset()
    for keyword, value in tags.items():
        setattr(dataset, keyword, value)
    return dataset


def _object(headers: list[Dataset], sop_class: str) -> Dataset:
    first, whole = headers[0], Dataset()
    for keyword in (*PATIENT, *OBJECT, *PIXELS, "SeriesDate", "SeriesTime"):
        if keyword in first:
            setattr(whole, keyword, first[keyword].value)
    whole.SOPClassUID = sop_class
    whole.SOPInstanceUID = generate_uid(entropy_srcs=[str(header.SOPInstanceUID) for header in headers])
    whole.ImageType, whole.InstanceNumber = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"], 1
    whole.NumberOfFrames = len(headers)
    shared = Dataset()
    shared.PixelMeasuresSequence = Sequence(
        [item(PixelSpacing=first.PixelSpacing, SliceThickness=first.SliceThickness)]
    )
    shared.PlaneOrientationSequence = Sequence([item(ImageOrientationPatient=first.ImageOrientationPatient)])
    whole.SharedFunctionalGroupsSequence = Sequence([shared])
    frames = []
    for header in headers:
        frame = item(FrameContentSequence=Sequence([item(StackID="1", TemporalPositionIndex=1)]))
        frame.PlanePositionSequence = Sequence([item(ImagePositionPatient=header.ImagePositionPatient)])
        line = {"RescaleSlope": header.RescaleSlope, "RescaleIntercept": header.RescaleIntercept, "RescaleType": "US"}
        frame.PixelValueTransformationSequence = Sequence([item(**line)])
        frames.append(frame)
    whole.PerFrameFunctionalGroupsSequence = Sequence(frames)
    whole.PixelData = b"".join(header.PixelData for header in headers)
    whole["PixelData"].VR = "OW"
    whole.file_meta = FileMetaDataset()
    whole.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return whole


STORED = np.random.default_rng(0).permutation(5 * 7 * 6).reshape(5, 7, 6).astype(np.int16) * 100
SLOPES = np.array([0.5, 1, 0.2, 0.1, 0.3, 0.7141])
KINDS = pytest.mark.parametrize("write", [enhanced, legacy_converted])


def classic(tmp_path, **changes):
    """A classic series in tmp_path/classic, its files in an order of their own."""
    slopes = SLOPES / 1000 if changes.get("Units") == "GML" else SLOPES
    paths = write_series(tmp_path / "classic", STORED, slopes=slopes, **changes)
    return random.Random(0).sample(paths, len(paths))


def refused(path, message, error=InputError, **options):
    with pytest.raises(error, match=message) as caught:
        load_volume(path, **options)
    text = str(caught.value)
    assert text.isprintable()
    assert "Sentinel" not in text
    assert "1948" not in text


def assert_same_as_classic(tmp_path, name="s"):
    expected, volume = load_volume(tmp_path / "classic"), load_volume(tmp_path / name)
    np.testing.assert_allclose(volume.data, expected.data, rtol=1e-6)
    np.testing.assert_array_equal(volume.affine, expected.affine)
    np.testing.assert_allclose(volume.source["suv_factor"], expected.source["suv_factor"], rtol=1e-9)
    for key in ("slices", "stored_units", "spacing", "suv", "suv_basis_ratios"):
        assert volume.source[key] == expected.source[key], key
    assert [notice.split(": ")[1:] for notice in volume.source["notices"]] == [
        notice.split(": ")[1:] for notice in expected.source["notices"]
    ]


def edit(path, change):
    whole = pydicom.dcmread(path)
    change(whole)
    whole.save_as(path)


def frames(whole):
    return whole.PerFrameFunctionalGroupsSequence
