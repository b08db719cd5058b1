"""Subjects: which scans a path holds, and the files that a denoised scan becomes."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from guided_diffusion.atomic import atomic_write, writable_folder
from guided_diffusion.errors import InputError
from guided_diffusion.inference import Denoised
from guided_diffusion.pet.suv_bases import SUVBasis
from guided_diffusion.pet.volume import in_suv_basis, save_volume

VOLUME_SUFFIXES = (".npz", ".nii", ".nii.gz", ".mat", ".zip")
DICOM_FOLDER = "denoised_dicom"


@dataclass(frozen=True)
class Subject:
    """A scan to denoise and the folder for its results."""

    path: str
    folder: Path

    def is_finished(self, key: str) -> bool:
        """Whether the results of the run with this key are here: its manifest is written last."""
        try:
            return json.loads((self.folder / "run.json").read_text())["key"] == key
        except (OSError, ValueError, KeyError):
            return False

    def remove_results(self) -> None:
        """Remove what an earlier run left, so that nothing stale stands beside the new."""
        for pattern in ("samples_*.npz", "denoised.nii.gz", "run.json"):
            for old in self.folder.glob(pattern):
                old.unlink()
        shutil.rmtree(self.folder / DICOM_FOLDER, ignore_errors=True)


def find_subjects(base_samples: str, save_dir: str) -> list[Subject]:
    """The scans at a path: a file, a DICOM folder, or a folder of subjects (volume files or DICOM folders).

    A single scan's results go into `save_dir`, those of several into a folder each. Raises InputError if there is
    nothing, or if nothing can be written.
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
    scans = list(_scans(path))
    if not scans:
        raise InputError(f"{path}: the folder is empty")
    if scans == [path]:
        return [Subject(str(path), out)]
    names = [_plain_name(scan) for scan in scans]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise InputError(f"{path}: several files are called {sorted(twice)[0]}; their results would share a folder")
    return [Subject(str(scan), writable_folder(out / name)) for scan, name in zip(scans, names, strict=True)]


def _scans(path: Path) -> Iterator[Path]:
    """The path itself, or the scans in it if it is a folder of subjects."""
    if not path.is_dir():
        yield path
        return
    entries = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    volumes = [entry for entry in entries if entry.name.endswith(VOLUME_SUFFIXES)]
    folders = [entry for entry in entries if entry.is_dir()]
    if volumes:
        yield from volumes
    elif folders and len(folders) == len(entries):
        yield from folders
    elif entries:
        yield path


def _plain_name(path: Path) -> str:
    """File name without the suffix of its format."""
    suffix = next((suffix for suffix in (".nii.gz", *VOLUME_SUFFIXES) if path.name.endswith(suffix)), "")
    return path.name.removesuffix(suffix)


def write_results(
    subject: Subject, denoised: Denoised, manifest: dict[str, Any], description: str, suv_basis: SUVBasis
) -> list[Path]:
    """Write a subject's files and return their paths, the manifest last.

    Always `samples_<X>x<Y>x<Z>.npz` (`arr_0` [X, Y, Z] float32, normalised, on the model's grid) and `run.json`; for
    an input that knows its place in space also `denoised.nii.gz` (SUV on that basis, on the input's own grid).
    """
    written = [subject.folder / f"samples_{'x'.join(str(size) for size in denoised.samples.shape)}.npz"]
    with atomic_write(written[0]) as temporary:
        np.savez(temporary, arr_0=denoised.samples)
    if not _is_bare(subject.path):
        written.append(subject.folder / "denoised.nii.gz")
        save_volume(in_suv_basis(denoised.volume, suv_basis), written[-1], description=description)
    written.append(subject.folder / "run.json")
    with atomic_write(written[-1]) as temporary:
        temporary.write_text(json.dumps(manifest, indent=2, default=str) + "\n")
    return written


def _is_bare(path: str) -> bool:
    """Whether a file is a bare array: on the model's grid already, with no other grid to go back to."""
    return path.endswith((".npz", ".mat"))
