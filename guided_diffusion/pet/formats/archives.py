"""Archives that no reader opens: what may be a scan in one is refused by name, not passed over as a stray file."""

import zipfile
from pathlib import Path

from guided_diffusion.errors import InputError
from guided_diffusion.gate import open_regular
from guided_diffusion.pet.damage import damage_as
from guided_diffusion.pet.formats.dicom_files import is_zip_of_dicom
from guided_diffusion.pet.formats.volume_formats import suffix_of

PACKED_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".7z", ".rar")


def needs_unpacking(path: Path) -> bool:
    """Whether a file is an archive that may hold a scan and is not opened: no zip, an encrypted zip, or one of volumes.

    A zip of DICOM is opened, and of a damaged one its reader says so.
    """
    name = path.name.lower()
    if name.endswith(PACKED_SUFFIXES):
        return True
    if not name.endswith(".zip"):
        return False
    try:
        members = _members_of(path)
        if any(member.flag_bits & 1 for member in members):
            return True
        return any(suffix_of(member.filename) for member in members) and not is_zip_of_dicom(path)
    except InputError:
        return False


def check_opened(path: Path) -> None:
    """Refuses an archive that needs unpacking.

    Raises:
        InputError: names it.
    """
    if needs_unpacking(path):
        raise InputError(f"{path}: is an archive that is not opened; unpack it first")


def _members_of(path: Path) -> list[zipfile.ZipInfo]:
    with damage_as(f"{path}: is no complete .zip file"), open_regular(path) as file, zipfile.ZipFile(file) as archive:
        return archive.infolist()
