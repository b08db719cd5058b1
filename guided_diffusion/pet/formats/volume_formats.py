"""The registry of volume formats: which files are volumes, which format a file has, and how it is read."""

from collections.abc import Iterable
from pathlib import Path

from guided_diffusion.errors import InputError
from guided_diffusion.gate import pointer_remark
from guided_diffusion.pet.formats import arrays, nifti
from guided_diffusion.pet.formats.declaration import Format, Request, StoredArray
from guided_diffusion.pet.formats.dicom_files import is_dicom
from guided_diffusion.pet.formats.opening import head_of

FORMATS: tuple[Format, ...] = (*arrays.FORMATS, *nifti.FORMATS)
_SUFFIXES = sorted((suffix for known in FORMATS for suffix in known.suffixes), key=len, reverse=True)


def format_of(path: Path) -> Format | None:
    """The format of a file: by its first bytes, else by its suffix in whatever case; None for no volume.

    Raises:
        InputError: the file cannot be opened.
    """
    head = head_of(path)
    for known in FORMATS:
        if known.recognises(head):
            return known
    return format_by_name(path.name)


def format_by_name(name: str) -> Format | None:
    """The format that a file's name claims."""
    suffix = suffix_of(name)
    return next((known for known in FORMATS if suffix in known.suffixes), None)


def names_array(name: str) -> bool:
    """Whether a file's name claims an array, `.npz` or `.mat`; every other format places its voxels in space."""
    known = format_by_name(name)
    return known is not None and known.name in arrays.NAMES


def suffix_of(name: str) -> str:
    """The suffix of a volume's name in lower case, `.nii.gz` whole; "" where it has none that is known."""
    return next((suffix for suffix in _SUFFIXES if name.lower().endswith(suffix)), "")


def stem_of(name: str) -> str:
    """A volume's name without the suffix of its format."""
    return name[: len(name) - len(suffix_of(name))]


def volumes_among(paths: Iterable[Path]) -> list[Path]:
    """Those of a folder's files whose names claim to be volumes, sorted; of a volume in two files only the image."""
    claiming = {path for path in paths if suffix_of(path.name)}
    companions = {path for image in claiming for path in companions_of(image) if path in claiming}
    return sorted(claiming - companions)


def companions_of(path: Path) -> list[Path]:
    """The files beside an `.img` that belong to it: its header, and the matrix that SPM writes."""
    if not suffix_of(path.name).startswith(".img"):
        return []
    found = (nifti.find_sibling(path, suffix) for suffix in (".hdr", ".mat"))
    return [sibling for sibling in found if sibling is not None]


def read(path: Path, request: Request = Request()) -> StoredArray:  # noqa: B008 (frozen)
    """Reads one volume of whatever format.

    Raises:
        InputError: no format that is known, or as its reader says.
    """
    known = format_of(path)
    pointer = pointer_remark(head_of(path))
    if pointer is not None:
        raise InputError(f"{path}: {pointer}")
    if known is None and is_dicom(head_of(path)):
        raise InputError(f"{path}: is one DICOM file; give the folder of its series")
    if known is None:
        raise InputError(f"{path}: no format that is known; give .npz, .mat, NIfTI or a DICOM folder or .zip")
    return known.read(path, request)
