"""NIfTI and the other volume formats that nibabel reads."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError

from guided_diffusion.errors import InputError
from guided_diffusion.files import atomic_write
from guided_diffusion.pet.damage import damage_as
from guided_diffusion.pet.formats.arrays import check_size
from guided_diffusion.pet.suv import SUVOverrides, suvbw_of_bqml

DAMAGED = "{}: is damaged or shorter than its header says; copy it again"


def read(path: Path, *, overrides: SUVOverrides | None = None) -> tuple[np.ndarray, np.ndarray, str, dict[str, object]]:
    """Reads one 3D volume slice by slice -> data float32 [i, j, k], affine (mm, RAS+), unit, source.

    These formats name no unit: the values are taken as SUV, unless `overrides` give weight and dose, which says that
    they are Bq/mL decay-corrected to the injection.

    Raises:
        InputError: the file cannot be read, is truncated, or is no single volume; or `overrides` say what cannot be
            used here.
    """
    _check_usable(path, overrides)
    try:
        with damage_as(DAMAGED.format(path), ImageFileError), _quiet_nibabel():
            image = _open(path)
            shape = image.shape
    except ImageFileError:
        raise InputError(f"{path}: no format that is known; give .npz, .mat, NIfTI or a DICOM folder or .zip") from None
    if len(shape) < 3 or any(n != 1 for n in shape[3:]):
        raise InputError(f"{path}: has shape {list(shape)}; one 3D volume is needed (split a dynamic series first)")
    check_size(shape[:3], path)
    with damage_as(DAMAGED.format(path)):
        data = _read_slices(image, shape, path)
    affine = np.array(image.affine, dtype=np.float64)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise InputError(f"{path}: its affine does not place the voxels in space; repair the header")
    source: dict[str, object] = {"format": type(image).__name__.removesuffix("Image")}
    if not _says_orientation(image):
        source["orientation"] = "assumed: the header has none"
    if overrides is not None and overrides.given():
        factor = suvbw_of_bqml(overrides.weight_kg, overrides.dose_bq)
        data *= np.float32(factor)
        source |= {
            "suv_factor": factor,
            "suv": "taken as Bq/mL, decay-corrected to the injection; weight and dose given",
        }
    else:
        source["suv"] = "taken as SUV: the format names no unit"
    return data, affine, "SUV", source


def write(path: Path, data: np.ndarray, affine: np.ndarray, *, description: str) -> None:
    """Writes float32 [i, j, k] with sform and qform, both as scanner coordinates, whole or not at all."""
    image = nib.Nifti1Image(np.asarray(data, dtype=np.float32), affine)
    image.set_sform(affine, code="scanner")
    image.set_qform(affine, code="scanner")
    image.header.set_xyzt_units("mm", "sec")
    image.header["descrip"] = description.encode("ascii", "replace")[:79]
    with atomic_write(path) as temporary:
        nib.save(image, temporary)


def _check_usable(path: Path, overrides: SUVOverrides | None) -> None:
    """Weight and dose together, or nothing."""
    given = overrides.given() if overrides is not None else {}
    for name in ("injection_time", "half_life_s"):
        if name in given:
            raise InputError(
                f"{path}: --{name} is for DICOM: this format does not say when the scan began, so its values must be"
                f" SUV, or Bq/mL decay-corrected to the injection; leave --{name} out"
            )
    if given and not overrides.gives_factor:
        there, missing = ("weight_kg", "dose_bq") if "weight_kg" in given else ("dose_bq", "weight_kg")
        raise InputError(
            f"{path}: --{there} alone makes no SUV of Bq/mL; give --{missing} too, or neither if the values are SUV"
        )


@contextmanager
def _quiet_nibabel() -> Iterator[None]:
    """nibabel logs each oddity of a header on a line of its own; the user shall get one line, from us."""
    logger = nib.imageglobals.logger
    was, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = was


def _open(path: Path) -> nib.spatialimages.SpatialImage:
    if path.suffix == ".v":  # nibabel reads ECAT7, but its load does not recognise it
        return nib.ecat.load(path)
    if path.name.endswith((".nii", ".nii.gz")):
        # One open file for all slices: reopening a .gz for each would decompress it from the start each time.
        return nib.load(path, keep_file_open=True)
    return nib.load(path)


def _says_orientation(image: nib.spatialimages.SpatialImage) -> bool:
    """Whether the header places the voxels in space. nibabel takes i to run to the left where it does not."""
    if isinstance(image, nib.Nifti1Pair):
        return bool(image.header["sform_code"] or image.header["qform_code"])
    return not isinstance(image, nib.AnalyzeImage)


def _read_slices(image: nib.spatialimages.SpatialImage, shape: tuple[int, ...], path: Path) -> np.ndarray:
    data = np.empty(shape[:3], np.float32)
    rest = (0,) * (len(shape) - 3)
    for k in range(shape[2]):
        part = np.asanyarray(image.dataobj[(slice(None), slice(None), k, *rest)])
        if part.dtype.kind not in "fiu":
            raise InputError(f"{path}: holds {part.dtype} values, not real numbers")
        data[..., k] = part
    return data
