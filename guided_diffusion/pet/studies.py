"""Which DICOM folders belong to one study."""

import os
from pathlib import Path

import pydicom
from pydicom.errors import InvalidDicomError

from guided_diffusion.pet.dicom import quiet_pydicom


def study_of(folder: Path) -> str | None:
    """StudyInstanceUID of the first DICOM file below a folder, None if there is none."""
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            try:
                with quiet_pydicom():
                    dataset = pydicom.dcmread(
                        Path(parent) / name, stop_before_pixels=True, specific_tags=["StudyInstanceUID"]
                    )
            except (InvalidDicomError, OSError, ValueError):
                continue
            if "StudyInstanceUID" in dataset:
                return str(dataset.StudyInstanceUID)
    return None


def are_one_study(folders: list[Path]) -> bool:
    """Whether folders hold series of one study: one subject, then, rather than several."""
    studies = {study_of(folder) for folder in folders}
    return len(studies) == 1 and None not in studies
