"""Whether the files of a series are slices of one examination of one patient."""

from collections import Counter
from collections.abc import Sequence

from pydicom import Dataset
from pydicom.uid import (
    UID,
    EnhancedPETImageStorage,
    LegacyConvertedEnhancedPETImageStorage,
    PositronEmissionTomographyImageStorage,
    UID_dictionary,
)

from guided_diffusion.errors import InputError
from guided_diffusion.pet.formats import dicom_tags as tags
from guided_diffusion.pet.text import printable

PET_CLASSES = (
    PositronEmissionTomographyImageStorage,
    EnhancedPETImageStorage,
    LegacyConvertedEnhancedPETImageStorage,
)
# All that these checks need of a header.
CHECKED_TAGS = ["SOPClassUID", "PatientID", "StudyInstanceUID", "FrameOfReferenceUID", "Rows", "Modality"]
# Tags that distinguish bodies, examinations and places in space. The values identify a patient: no message shows them.
SAME_PATIENT = ("PatientID", "StudyInstanceUID", "FrameOfReferenceUID")


def is_of_pet(header: Dataset) -> bool:
    """Whether an object is one of PET: by its modality, which some call PET, or where that is missing by its class."""
    modality = tags.code(header, "Modality")
    if modality is None:
        return tags.text(header, "SOPClassUID") in PET_CLASSES
    return modality in ("PT", "PET")


def is_pet_image(header: Dataset) -> bool:
    """Whether an object is a slice of PET: by its class, or where that is missing by modality and size."""
    kind = tags.text(header, "SOPClassUID")
    if kind is not None:
        return kind in PET_CLASSES
    return is_of_pet(header) and bool(tags.number(header, "Rows"))


def why_no_image(header: Dataset) -> str:
    """Names the class of an object that is no PET image: 'no PET image (SOP class Secondary Capture ...)'."""
    kind = tags.text(header, "SOPClassUID")
    if kind not in UID_dictionary:  # nothing that may be a name is shown
        return f"no PET image ({tags.state(header, 'SOPClassUID')})"
    return f"no PET image (SOP class {printable(UID(kind).name)})"


def images_only(headers: Sequence[Dataset], names: Sequence[str]) -> tuple[list[int], list[str]]:
    """The numbers of a series' PET images, and a line per file that is something else and is left out.

    Reports, presentation states and screenshots may carry the series' UID. A series without a single PET image is kept
    whole: secondary captures of a PET are taken for what they say, and the rest is refused for what it lacks.
    """
    images = [k for k, header in enumerate(headers) if is_pet_image(header)]
    if not images:
        return list(range(len(headers))), []
    others = [f"{names[k]}: left out, {why_no_image(header)}" for k, header in enumerate(headers) if k not in images]
    return images, others


def check_one_patient(headers: Sequence[Dataset], names: Sequence[str]) -> None:
    """Refuses slices of several patients, studies or frames of reference under one SeriesInstanceUID.

    A UID that no two slices share says nothing: anonymisers draw one for each file.

    Raises:
        InputError: names two of the files and the tag that differs, without its values.
    """
    for keyword in SAME_PATIENT:
        values = [tags.text(header, keyword) for header in headers]
        common, count = Counter(values).most_common(1)[0]
        if count == len(values) or (count == 1 and keyword.endswith("UID")):
            continue
        other = names[next(k for k, value in enumerate(values) if value != common)]
        usual = names[values.index(common)]
        raise InputError(f"{usual} and {other}: one series, but {tags.name_tag(keyword)} differs; separate the two")
