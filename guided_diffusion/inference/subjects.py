"""Subjects: the scans at a path, and the folder of results that each of them has."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from guided_diffusion import logger
from guided_diffusion.errors import InputError
from guided_diffusion.files import writable_folder
from guided_diffusion.gate import open_regular, read_small
from guided_diffusion.pet.contents import contents_of, names_of
from guided_diffusion.pet.trial_manifest import is_trial, read_cases

DENOISED_NAME = "denoised.nii.gz"
MANIFEST_NAME = "run.json"
UNCERTAINTY_NAME = "uncertainty.nii.gz"
REPORT_NAME = "report.html"
DICOM_FOLDER = "denoised_dicom"


@dataclass(frozen=True)
class Subject:
    """A scan to denoise and the folder for its results.

    notices: on files that were left out. dose: as a fraction of the normal dose by a trial's manifest, None without a
    manifest.
    """

    path: str
    folder: Path
    notices: tuple[str, ...] = ()
    dose: float | None = None

    def is_finished(self, key: str) -> bool:
        """Whether the folder has complete results of the run with this key.

        All files listed in the manifest, which is written last, must be there with the listed digests; if not, the log
        says so.
        """
        listed = self._listed_digests(key)
        if not listed:
            return False
        for name, expected in listed.items():
            path = self.folder / name
            try:
                fits = digest_of(path) == expected
            except InputError:
                fits = False
            if not fits:
                logger.log(f"notice: {path} is missing or damaged: the subject is done again")
                return False
        return True

    def _listed_digests(self, key: str) -> dict[str, str]:
        """Digest of every result by its name, as the manifest of the run with this key has them; else none."""
        try:
            manifest = json.loads(read_small(self.folder / MANIFEST_NAME))
            if manifest["key"] != key:
                return {}
            listed = {str(name): str(digest) for name, digest in manifest["sha256"].items()}
            return listed if set(listed) == set(manifest["files"]) and _are_plain(listed) else {}
        except (InputError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return {}  # there is none, it is another program's, or damaged

    def read_manifest(self) -> dict[str, Any]:
        """Contents of `run.json` of a finished subject."""
        return json.loads(read_small(self.folder / MANIFEST_NAME))


def place_of(path: str) -> str:
    """The absolute path of a scan, by which a later run recognises it; an address on a server as it is."""
    return path if "://" in path else str(Path(path).resolve())


def digest_of(path: Path) -> str:
    """SHA-256 of a file, or of a folder: of the names and digests of its files. Raises InputError for anything else."""
    if path.is_dir() and not path.is_symlink():
        listing = [f"{file.name} {digest_of(file)}\n" for file in sorted(path.iterdir())]
        return hashlib.sha256("".join(listing).encode("utf-8", "surrogateescape")).hexdigest()
    with open_regular(path, follow=False) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _are_plain(names: Iterable[str]) -> bool:
    """Whether all are plain file names, without a path."""
    return all(name not in ("", ".", "..") and Path(name).name == name for name in names)


def find_subjects(base_samples: str, save_dir: str) -> list[Subject]:
    """The scans at a path: a file, a DICOM folder, a folder of subjects (volume files or DICOM folders), or a trial.

    The results of a single scan go into `save_dir`, those of several into one folder each, and those of a virtual trial
    into folders named after the low doses, such as sub-0000/low_dose_1-20; folders are made when needed. A `save_dir`
    within the folder of subjects does not count as a subject. Raises InputError if there is no scan, or if nothing can
    be written.
    """
    if not base_samples:
        raise InputError(
            "--base_samples is missing: give an .npz, a NIfTI file, a DICOM folder or a folder of subjects"
        )
    out = writable_folder(save_dir)
    if "://" in base_samples:
        return [Subject(base_samples, out)]
    path = Path(base_samples)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if is_trial(path):
        return [Subject(str(case.low_dose), out / case.name, dose=case.dose) for case in read_cases(path)]
    if path.resolve() == out.resolve():
        raise InputError(f"{path}: the results would lie among the scans; choose another --save_dir")
    found = contents_of(path, excluded=out)
    if found.scans == (path,):
        return [Subject(str(path), out)]
    if not found.scans:
        why = f"holds no scan: {'; '.join(found.notices)}" if found.notices else "the folder is empty"
        raise InputError(f"{path}: {why}")
    names = names_of(found.scans, path)
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise InputError(f"{path}: several files are called {sorted(twice)[0]}; their results would share a folder")
    subjects = [Subject(str(scan), out / name) for scan, name in zip(found.scans, names, strict=True)]
    return [replace(subjects[0], notices=found.notices), *subjects[1:]]
