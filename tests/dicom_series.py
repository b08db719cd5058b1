"""PET series for tests: a data set with all tags that lead to SUV, and a folder of slices with known voxels."""

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, PositronEmissionTomographyImageStorage, generate_uid

HALF_LIFE_S = 6586.2
ISOTOPE_TAGS = (
    "RadionuclideTotalDose",
    "RadionuclideHalfLife",
    "RadiopharmaceuticalStartTime",
    "RadiopharmaceuticalStartDateTime",
)

# A DICOM file whose header ends in the middle of a tag, as a copy that was broken off.
BROKEN_OFF = (
    bytes(128) + b"DICM\x02\x00\x10\x00UI\x14\x001.2.840.10008.1.2.1\x00"
    b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 100\x08\x00\x06\x00SQ\x00\x00\x01"
)


def pet_header(**changes) -> Dataset:
    """A BQML header: 70 kg, 350 MBq of F-18 one half-life before the scan. A change to None removes a tag."""
    dataset = Dataset()
    tags = {
        "SOPClassUID": PositronEmissionTomographyImageStorage,
        "Modality": "PT",
        "PatientName": "Sentinel^Secret",
        "PatientBirthDate": "19481231",
        "PatientWeight": "70",
        "PatientSize": "1.75",
        "PatientSex": "M",
        "Units": "BQML",
        "DecayCorrection": "START",
        "CorrectedImage": ["DECY", "ATTN", "SCAT"],
        "SeriesDate": "20240110",
        "SeriesTime": "120000",
        "AcquisitionDate": "20240110",
        "AcquisitionTime": "120000",
        "RadionuclideTotalDose": "350000000",
        "RadionuclideHalfLife": str(HALF_LIFE_S),
        "RadiopharmaceuticalStartTime": "101013.8",
    } | changes
    isotope = Dataset()
    for keyword, value in tags.items():
        if value is not None:
            setattr(isotope if keyword in ISOTOPE_TAGS else dataset, keyword, value)
    dataset.RadiopharmaceuticalInformationSequence = Sequence([isotope])
    return dataset


def write_series(
    folder: Path,
    stored: np.ndarray,
    *,
    orientation=(1, 0, 0, 0, 1, 0),
    origin=(-50.0, -60.0, 10.0),
    spacing=(4.0, 5.0),
    steps=None,
    slopes=None,
    uid: str | None = None,
    thickness: float = 3.0,
    syntax: str = ExplicitVRLittleEndian,
    headers=None,
    **changes,
) -> list[Path]:
    """Writes int16 `stored` [column, row, slice]; `steps` are the slices' offsets from the origin, [slice, 3] mm (LPS).

    spacing: mm between columns, mm between rows. headers: one dict of changed tags per slice. The files are numbered
    against the order of the slices, so that neither names nor instance numbers sort them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    count = stored.shape[2]
    normal = np.cross(orientation[:3], orientation[3:])
    steps = np.outer(np.arange(count), normal * thickness) if steps is None else np.asarray(steps)
    slopes = np.full(count, 1.0) if slopes is None else slopes
    uid = uid or generate_uid(entropy_srcs=["series", str(folder)])
    paths = []
    for k in range(count):
        dataset = pet_header(**changes, **(headers[k] if headers else {}))
        dataset.StudyInstanceUID = generate_uid(entropy_srcs=["study"])
        dataset.FrameOfReferenceUID = generate_uid(entropy_srcs=["frame"])
        dataset.SeriesInstanceUID = uid
        dataset.SOPInstanceUID = generate_uid(entropy_srcs=[uid, str(k)])
        if "SeriesNumber" not in dataset:
            dataset.SeriesNumber = 4
        dataset.InstanceNumber = count - k
        dataset.SeriesDescription = "PET AC"
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        dataset.ImageOrientationPatient = [f"{v:.12g}" for v in orientation]
        dataset.ImagePositionPatient = [f"{v:.12g}"[:16] for v in np.add(origin, steps[k])]
        dataset.PixelSpacing = [spacing[1], spacing[0]]
        dataset.SliceThickness = thickness
        dataset.Columns, dataset.Rows = stored.shape[:2]
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
        dataset.RescaleSlope, dataset.RescaleIntercept = f"{slopes[k]:.12g}", "0"
        dataset.PixelData = stored[..., k].T.astype("<i2").tobytes()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = syntax
        paths.append(folder / f"{count - k:04d}.dcm")
        dataset.save_as(paths[-1], enforce_file_format=True)
    return paths
