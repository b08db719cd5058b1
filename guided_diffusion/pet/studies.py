"""Which DICOM folders belong to one study."""

import os
from pathlib import Path

from guided_diffusion.errors import InputError
from guided_diffusion.gate import open_regular
from guided_diffusion.pet.damage import damage_as
from guided_diffusion.pet.formats import dicom_tags as tags
from guided_diffusion.pet.formats.dicom import DicomFile


def study_of(folder: Path) -> str | None:
    """StudyInstanceUID of the first DICOM file below a folder, None if there is none."""
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            study = _study_of_file(Path(parent) / name)
            if study is not None:
                return study
    return None


def _study_of_file(path: Path) -> str | None:
    """None for a file that is no DICOM, or a damaged one: reading the series will name it."""
    try:
        with damage_as(f"{path}: is damaged"):
            file = DicomFile(str(path), lambda: open_regular(path))
            dataset = file.read(stop_before_pixels=True, specific_tags=["StudyInstanceUID"])
            return tags.text(dataset, "StudyInstanceUID")
    except InputError:
        return None


def are_one_study(folders: list[Path]) -> bool:
    """Whether folders hold series of one study: one subject, then, rather than several."""
    studies = {study_of(folder) for folder in folders}
    return len(studies) == 1 and None not in studies
