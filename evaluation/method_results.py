"""The images that methods made of the compared scans: where they lie and how they are read."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.compared_scans import Arrays, ComparedScan, image_on_grid_of
from guided_diffusion.errors import InputError
from guided_diffusion.gate import open_regular, read_small
from guided_diffusion.inference.subjects import DENOISED_NAME, MANIFEST_NAME
from guided_diffusion.pet.contents import contents_of
from guided_diffusion.pet.formats import volume_formats
from guided_diffusion.pet.formats.stated_units import sidecar_files
from guided_diffusion.pet.grid import Volume
from guided_diffusion.pet.patches import PatchPlan

SAMPLES = "samples_*.npz"  # the normalised array that scripts/test.py writes
_CHUNK_BYTES = 2**20
_NO_MANIFEST = (InputError, OSError, ValueError, LookupError, TypeError, RecursionError)


@dataclass(frozen=True)
class ComparedMethod:
    """A method under comparison and the folder of its images, or one folder per realisation."""

    name: str
    folders: tuple[Path, ...]
    has_realisations: bool = False

    @classmethod
    def of_realisations(cls, name: str, folder: Path) -> "ComparedMethod":
        """A method of which `folder` holds a folder per realisation. Raises InputError for fewer than two.

        Hidden folders, such as those of notebooks, do not count.
        """
        below = folder.iterdir() if folder.is_dir() else ()
        found = sorted(path for path in below if path.is_dir() and not path.name.startswith("."))
        if len(found) < 2:
            raise InputError(f"{folder}: holds {len(found)} folders; each of two or more realisations has its own")
        return cls(name, tuple(found), has_realisations=True)

    def files(self, scan: ComparedScan) -> list[Path]:
        """Its image of a scan, or each realisation. Raises InputError where one is missing or ambiguous."""
        return [result_file(folder, scan) for folder in self.folders]

    def images(self, scan: ComparedScan, grid: Volume) -> Iterator[np.ndarray]:
        """Its image of a scan, or each realisation, float32 [X, Y, Z] in SUV; raises InputError as `files`."""
        for path in self.files(scan):
            units = "normalised" if path.match(SAMPLES) else scan.arrays.units
            yield image_on_grid_of(grid, path, Arrays(units, scan.arrays.voxel_mm))


@dataclass(frozen=True)
class StatedPlan:
    """The patches from which scripts/test.py made an image, and the shape of the grid on which they lie."""

    shape: tuple[int, ...]
    patches: PatchPlan

    def on(self, grid: Volume) -> PatchPlan | None:
        """The patches, None if they lie on another grid."""
        return self.patches if self.shape == grid.data.shape else None


def plan_of(path: Path) -> StatedPlan | None:
    """The patches of an image by the manifest of the run beside it, None if there is no manifest."""
    try:
        manifest = _manifest_beside(path)
        plan = manifest["plan"]
        patches = PatchPlan(plan["length"], plan["patch_size"], plan["overlap"], tuple(plan["starts"]))
        return StatedPlan(tuple(manifest["model_grid"]["shape"]), patches)
    except _NO_MANIFEST:
        return None


def scan_of(path: Path) -> str | None:
    """The `fingerprint` of the scan from which scripts/test.py made an image, by the manifest of the run beside it.

    None if there is no manifest that lists the image.
    """
    try:
        manifest = _manifest_beside(path)
        return str(manifest["input"]["sha256_of_voxels_and_affine"]) if path.name in manifest["files"] else None
    except _NO_MANIFEST:
        return None


def _manifest_beside(path: Path) -> dict[str, Any]:
    """What the run that made an image says of itself. Raises one of `_NO_MANIFEST`."""
    return json.loads(read_small(path.parent / MANIFEST_NAME))


def result_file(folder: Path, scan: ComparedScan) -> Path:
    """The image of a scan among a method's results.

    <folder>/<scan>/ contains the output of scripts/test.py (of which the NIfTI is used, or else the array), one volume,
    or a DICOM series; alternatively <folder>/<scan>.nii.gz, .nii, .npz and so on is a volume. Raises InputError if
    there is none, or more than one.
    """
    place = folder / scan.name
    found = _in_folder(place) if place.is_dir() else []
    if scan.name and place.parent.is_dir():
        beside = volume_formats.volumes_among(path for path in place.parent.iterdir() if path.is_file())
        found += [path for path in beside if volume_formats.stem_of(path.name) == place.name]
    if not found:
        raise InputError(
            f"{place}: holds no image of this scan; denoise it with scripts/test.py --save_dir {folder}, or put a"
            f" volume there as {place.name}.nii.gz"
        )
    if len(found) > 1:
        raise InputError(f"{place}: may be {' or '.join(path.name for path in found)}; leave one of them")
    return found[0]


def _in_folder(place: Path) -> list[Path]:
    if (place / DENOISED_NAME).is_file():
        return [place / DENOISED_NAME]
    return sorted(place.glob(SAMPLES)) or list(contents_of(place).scans)


def digest_of_image(path: Path) -> str:
    """SHA-256 of a volume with the files that belong to it (header, sidecars), or of a DICOM series by its names."""
    digest = hashlib.sha256()
    for file in _files_of(path):
        with open_regular(file) as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                digest.update(chunk)
    return digest.hexdigest()


def _files_of(path: Path) -> list[Path]:
    if path.is_file():
        return [path, *volume_formats.companions_of(path), *sidecar_files(path)]
    return sorted(below for below in path.rglob("*") if below.is_file())
