"""NIfTI and the other volume formats that nibabel reads."""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import FileHolder, ImageFileError

from guided_diffusion.errors import InputError
from guided_diffusion.files import atomic_write
from guided_diffusion.pet.damage import damage_as
from guided_diffusion.pet.formats.arrays import check_size
from guided_diffusion.pet.formats.declaration import Format, Request, StoredArray
from guided_diffusion.pet.formats.opening import HEAD_BYTES, open_unpacked
from guided_diffusion.pet.suv import SUVOverrides, suvbw_of_bqml

# FreeSurfer's volumes have 256 voxels a side; this leaves room.
MAX_MGH_SIZE = 4096
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
    """The image with its files open, one reader for all slices: a gzip is unpacked once, whatever its name."""
    header_path, image_path = _files_of_pair(path)
    header = open_unpacked(header_path)
    head = header.read(HEAD_BYTES)
    header.seek(0)
    image_class = next((found for recognises, found in IMAGE_CLASSES if recognises(head)), None)
    if image_class is None:
        header.close()
        return nib.load(path)
    files = {"image": header, "header": header}
    if image_path != header_path:
        files["image"] = open_unpacked(image_path)
    if issubclass(image_class, nib.Spm99AnalyzeImage):
        matrix = find_sibling(image_path, ".mat")
        files["mat"] = open_unpacked(matrix) if matrix else BytesIO()
    return image_class.from_file_map({kind: FileHolder(fileobj=file) for kind, file in files.items()})


def _files_of_pair(path: Path) -> tuple[Path, Path]:
    """(header, image) of a volume in `.hdr` and `.img`; twice the file itself where it is one."""
    kind = _pair_suffix(path.name)
    if kind is None:
        return path, path
    other = find_sibling(path, ".img" if kind == ".hdr" else ".hdr")
    if other is None:
        raise InputError(f"{path}: its other half ({'.img' if kind == '.hdr' else '.hdr'}) is not there; copy both")
    return (path, other) if kind == ".hdr" else (other, path)


def _pair_suffix(name: str) -> str | None:
    plain = name.lower().removesuffix(".gz")
    return next((suffix for suffix in (".hdr", ".img") if plain.endswith(suffix)), None)


def find_sibling(path: Path, suffix: str) -> Path | None:
    """The file of a volume's name with another suffix, in whatever case, gzipped or not; None if there is none."""
    stem = path.name.lower().removesuffix(".gz")[: -len(suffix)]
    names = (stem + suffix, stem + suffix + ".gz")
    return next((found for found in sorted(path.parent.iterdir()) if found.name.lower() in names), None)


def _is_nifti(head: bytes) -> bool:
    return head[344:348] in (b"n+1\0", b"ni1\0") or head[4:8] in (b"n+2\0", b"ni2\0")


def _is_analyze(head: bytes) -> bool:
    return len(head) >= 348 and not _is_nifti(head) and nib.AnalyzeHeader.may_contain_header(head)


def _is_mgh(head: bytes) -> bool:
    """MGH has no signature: version 1, four sizes, and one of four types of voxels, big-endian."""
    version, *sizes, kind = np.frombuffer(head[:24].ljust(24, b"\0"), ">i4")
    return version == 1 and all(0 < size <= MAX_MGH_SIZE for size in sizes) and kind in (0, 1, 3, 4)


def _is_ecat(head: bytes) -> bool:
    return head.startswith(b"MATRIX7")


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


def _read_format(path: Path, request: Request) -> StoredArray:
    data, affine, unit, source = read(path, overrides=request.overrides)
    return StoredArray(data, str(source["format"]), affine, unit, source)


IMAGE_CLASSES = (
    (lambda head: head[344:348] == b"n+1\0", nib.Nifti1Image),
    (lambda head: head[344:348] == b"ni1\0", nib.Nifti1Pair),
    (lambda head: head[4:8] == b"n+2\0", nib.Nifti2Image),
    (lambda head: head[4:8] == b"ni2\0", nib.Nifti2Pair),
    (_is_ecat, nib.ecat.EcatImage),
    (_is_analyze, nib.Spm2AnalyzeImage),
    (_is_mgh, nib.MGHImage),
)
FORMATS = (
    Format("NIfTI", (".nii.gz", ".nii"), _is_nifti, _read_format),
    Format("ECAT", (".v",), _is_ecat, _read_format),
    Format("Analyze", (".img.gz", ".hdr.gz", ".img", ".hdr"), _is_analyze, _read_format),
    Format("MINC", (".mnc",), lambda head: head.startswith(b"CDF\x01"), _read_format),
    Format("MGH", (".mgz", ".mgh.gz", ".mgh"), _is_mgh, _read_format),
)
