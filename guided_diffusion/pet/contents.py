"""What a path contains: a volume, a series or study, or subjects. All commands decide this here.

If a folder holds DICOM slices and volumes, only the DICOM counts, since the volumes were presumably made from it.
Everything that is left out is reported.
"""

import zipfile
from dataclasses import dataclass, field
from pathlib import Path

from guided_diffusion.errors import InputError
from guided_diffusion.pet.formats import dicom_files, folder_walk, matlab, volume_formats
from guided_diffusion.pet.formats import dicom_tags as tags
from guided_diffusion.pet.formats.archives import needs_unpacking
from guided_diffusion.pet.formats.folder_walk import Folder, LeftOut
from guided_diffusion.pet.formats.opening import head_of
from guided_diffusion.pet.formats.series_checks import is_of_pet
from guided_diffusion.pet.not_pet import is_beside_subjects, may_be_pet, why_not_pet

SHOWN_PATHS = 6
BESIDE_DICOM = "beside a DICOM scan, which counts"

# Values that distinguish one study of one patient from others; None for those that its headers do not state.
Study = tuple[str | None, str | None]


@dataclass(frozen=True)
class Contents:
    """The contents of a path.

    scans: each a path to load by itself: a volume, a zip, or the folder of a DICOM series or study. notices: a line for
    each reason why something was left out.
    """

    scans: tuple[Path, ...]
    notices: tuple[str, ...] = ()


@dataclass
class _Held:
    """The contents of a folder, before they are interpreted.

    study: of PET slices that lie right in it. other_dicom: whether slices of something else do. damaged: whether a file
    there may have been a slice. empty: whether no file lies right in it. volumes: files right in it that may be PET
    images, or hold some. archives: zips of DICOM with their studies. below: the folders in it.
    """

    path: Path
    study: Study | None = None
    other_dicom: bool = False
    damaged: bool = False
    empty: bool = False
    volumes: list[Path] = field(default_factory=list)
    archives: dict[Path, Study] = field(default_factory=dict)
    below: list["_Held"] = field(default_factory=list)

    def studies(self) -> set[Study]:
        own = set() if self.study is None else {self.study}
        return own.union(self.archives.values(), *(held.studies() for held in self.below))

    def all_volumes(self) -> list[Path]:
        return sorted(self.volumes + [path for held in self.below for path in held.all_volumes()])

    def has_other_dicom(self) -> bool:
        return self.other_dicom or any(held.has_other_dicom() for held in self.below)

    def is_damaged_or_empty(self) -> bool:
        """Whether files here or below may have been slices, or there is no file: to be refused, not passed over."""
        return self.damaged or self.is_empty() or any(held.is_damaged_or_empty() for held in self.below)

    def is_empty(self) -> bool:
        return self.empty and all(held.is_empty() for held in self.below)


def contents_of(path: Path, excluded: Path | None = None) -> Contents:
    """The scans that a local path holds; `excluded` is a folder below it that does not count.

    A file holds itself. A folder with slices right in it, or with folders of one study, is one scan. Other folders hold
    a scan for each study and each volume below. Sorted by path.

    Raises:
        InputError: the path may be read in two ways, or cannot be read.
    """
    if not path.is_dir():
        return Contents((path,))
    reader = _Reader(path)
    held = reader.look_at(folder_walk.walk(path, excluded))
    scans = reader.scans_of(held)
    if not scans and (held.has_other_dicom() or (held.is_damaged_or_empty() and not held.is_empty())):
        scans = [path]  # whose reader says which modality it is, or names the damaged file
    elif not scans and (only := reader.only_image()) is not None:
        notice = f"taken though {only.reason}, since nothing else here is an image: {Path(only.path).name}"
        return Contents((Path(only.path),), (*folder_walk.notices(reader.left_out, path), notice))
    return Contents(tuple(scans), tuple(folder_walk.notices(reader.left_out, path)))


def single_scan(path: Path) -> Contents:
    """As `contents_of`, for what must be one scan.

    Raises:
        InputError: there are several; lists them.
    """
    found = contents_of(path)
    if len(found.scans) > 1:
        raise InputError(f"{path}: holds {len(found.scans)} scans; give the path of one: {_shown(found.scans, path)}")
    if not found.scans:
        why = f": {'; '.join(found.notices)}" if found.notices else ""
        raise InputError(f"{path}: no DICOM files in it and no volume{why}; give the path of a scan")
    return found


def arrays_below(folder: Path) -> tuple[list[Path], list[str]]:
    """The `.npz` files below a folder, sorted, and a line for each reason why another file is left out.

    Raises:
        InputError: a folder cannot be read.
    """
    paths, left_out = [], []
    for below in folder_walk.walk(folder).walk():
        left_out += below.left_out
        files = set(below.files)
        for path in below.files:
            if volume_formats.suffix_of(path.name) == ".npz":
                paths.append(path)
            elif path.suffix != ".json" or path.with_suffix("") not in files:  # the record of scripts/prepare.py
                left_out.append(LeftOut(str(path), "no .npz"))
    return sorted(paths), folder_walk.notices(left_out, folder)


def names_of(scans: tuple[Path, ...], root: Path) -> list[str]:
    """A name for each scan below a folder: as much of its path there as no other scan shares, without suffixes."""
    parts = [scan.relative_to(root).parts for scan in scans]
    named = []
    for scan, own in zip(scans, parts, strict=True):
        length = next((n for n in range(1, len(own)) if sum(other[:n] == own[:n] for other in parts) == 1), len(own))
        name = "/".join(own[:length])
        named.append(without_suffix(name) if length == len(own) and not scan.is_dir() else name)
    return named


def without_suffix(name: str) -> str:
    """The name of a scan's file as `names_of` gives it: without the suffix of its format, or of an archive."""
    return name[: -len(".zip")] if name.lower().endswith(".zip") else volume_formats.stem_of(name)


def _shown(paths: tuple[Path, ...] | list[Path], root: Path) -> str:
    names = [str(path.relative_to(root)) for path in paths[:SHOWN_PATHS]]
    return ", ".join(names) + (f" and {len(paths) - SHOWN_PATHS} more" if len(paths) > SHOWN_PATHS else "")


class _Reader:
    """Reads a folder's files and decides. left_out: those that do not count; no_pet: the images among them."""

    def __init__(self, root: Path):
        self.root = root
        self.left_out: list[LeftOut] = []
        self.no_pet: list[Path] = []

    def only_image(self) -> LeftOut | None:
        """The one image, if it was left out by a word that names of PET images have too; it is left out no more."""
        if len(self.no_pet) != 1:
            return None
        (path,) = self.no_pet
        only = next(one for one in self.left_out if one.path == str(path))
        if not may_be_pet(path, volume_formats.stem_of(path.name), self.root, only.reason):
            return None
        self.left_out.remove(only)
        return only

    def look_at(self, folder: Folder) -> _Held:
        """Lists the contents of a folder and of those below it."""
        held = _Held(folder.path, empty=not folder.files and all(one.reason == "hidden" for one in folder.left_out))
        held.study, held.other_dicom = _study_in(folder.files)
        if held.study is None and not held.other_dicom:
            self._look_at_files(folder, held)
            self._look_for_absent(folder, held)
        self.left_out += [one for one in folder.left_out if Path(one.path) not in held.volumes]
        for below in folder.folders:
            if is_beside_subjects(below.path, self.root):
                self._leave_out([below.path], "of a BIDS data set, not a subject")
            else:
                held.below.append(self.look_at(below))
        return held

    def _look_at_files(self, folder: Folder, held: _Held) -> None:
        volumes = volume_formats.volumes_among(folder.files)
        companions = {other for path in volumes for other in volume_formats.companions_of(path)}
        for path in folder.files:
            if path in companions:
                continue
            study = _study_of_archive(path)
            reason = None if study else self._why_no_scan(path, path in volumes)
            if study:
                held.archives[path] = study
            elif reason is None:
                held.volumes.append(path)
            else:
                held.damaged |= path.name.lower().endswith(dicom_files.DICOM_SUFFIXES)
                self._leave_out([path], reason)

    def _look_for_absent(self, folder: Folder, held: _Held) -> None:
        """Counts what is called a scan and is elsewhere: it fails by name when its turn comes."""
        absent = [Path(one.path) for one in folder.left_out if one.is_elsewhere]
        held.damaged |= any(path.name.lower().endswith(dicom_files.DICOM_SUFFIXES) for path in absent)
        for path in volume_formats.volumes_among(absent):
            if why_not_pet(path, volume_formats.stem_of(path.name), self.root) is None:
                held.volumes.append(path)

    def _why_no_scan(self, path: Path, claims: bool) -> str | None:
        """Reason why a file is no volume to denoise, None for one that is. claims: whether its name says so."""
        try:
            known = volume_formats.format_of(path) is not None
        except InputError:
            known = False  # damaged: what is called a volume is refused when it is loaded
        stem = volume_formats.stem_of(path.name)
        if not known and needs_unpacking(path):
            return why_not_pet(path, stem, self.root)
        if path.suffix.lower() == ".zip" and not known:
            return "no DICOM in the zip" if zipfile.is_zipfile(path) else None
        if not (known or claims):
            return "no image that is known"
        if path.suffix.lower() == ".mat" and matlab.holds_matrix(path):
            return "no array suv in it, but a matrix"
        reason = why_not_pet(path, stem, self.root)
        self.no_pet += [path] if reason else []
        return reason

    def scans_of(self, held: _Held) -> list[Path]:
        """The scans in a folder and below."""
        if held.study is not None:
            beside = [*held.volumes, *held.archives, *(path for below in held.below for path in below.all_volumes())]
            self._leave_out(beside, BESIDE_DICOM)
            return [held.path]
        studies = held.studies()
        if len(studies) == 1 and not held.archives and next(iter(studies))[1] is not None:
            self._check_one_reading(held)
            self._leave_out(held.all_volumes(), BESIDE_DICOM)
            return [held.path]
        scans = [*held.volumes, *held.archives]
        for below in held.below:
            if below.studies() or below.all_volumes():
                scans += self.scans_of(below)
            elif below.is_damaged_or_empty():
                scans.append(below.path)
            elif below.has_other_dicom():
                self._leave_out([below.path], "DICOM, but no PET")
        return sorted(scans)

    def _check_one_reading(self, held: _Held) -> None:
        """Refuses one DICOM scan and volumes side by side: a study with what was made from it, or several subjects."""
        slices = [below.path for below in held.below if below.studies()]
        volumes = held.all_volumes()
        if len(slices) == 1 and held.path == self.root:
            volumes = [path for path in volumes if not path.is_relative_to(slices[0])]
            if volumes:
                raise InputError(
                    f"{held.path}: may be one DICOM study ({_shown(slices, self.root)}) with volumes made from it, or"
                    f" several subjects ({_shown(slices + volumes, self.root)}); give the path of the one that is meant"
                )

    def _leave_out(self, paths: list[Path], reason: str) -> None:
        self.left_out += [LeftOut(str(path), reason) for path in paths]


def _study_in(files: tuple[Path, ...]) -> tuple[Study | None, bool]:
    """The study of the first PET slice among a folder's files, and whether there is other DICOM instead."""
    other = False
    for path in files:
        study, of_pet = _study_of(path)
        if study is not None and of_pet:
            return study, False
        other |= study is not None
    return None, other


def _study_of(path: Path) -> tuple[Study | None, bool]:
    """A DICOM file's study, and whether it is of PET; None for a file that is none, or damaged: its reader names it."""
    try:
        if not dicom_files.is_dicom(head_of(path)):
            return None, False
        header = dicom_files.header_of(dicom_files.file_at(path))
    except InputError:
        return None, False
    if "DirectoryRecordSequence" in header:
        return None, False
    study = (tags.text(header, "PatientID"), tags.text(header, "StudyInstanceUID"))
    return study, is_of_pet(header)


def _study_of_archive(path: Path) -> Study | None:
    """A zip of DICOM counts as a study of its own: its patient is found when it is read."""
    if volume_formats.suffix_of(path.name):
        return None
    try:
        return (str(path), str(path)) if dicom_files.is_zip_of_dicom(path) else None
    except InputError:
        return None
