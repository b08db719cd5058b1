"""NIfTI and the other volume formats that nibabel reads."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import nibabel as nib
import numpy as np
from nibabel.arrayproxy import ArrayProxy
from nibabel.filebasedimages import FileHolder, ImageFileError

from guided_diffusion.errors import InputError
from guided_diffusion.files import atomic_write
from guided_diffusion.gate import admit, check_memory
from guided_diffusion.pet.damage import damage_as
from guided_diffusion.pet.formats import matlab
from guided_diffusion.pet.formats.declaration import Format, Request, StoredArray
from guided_diffusion.pet.formats.opening import HEAD_BYTES, open_unpacked
from guided_diffusion.pet.formats.placement import affine_mm, fits_qform, says_orientation
from guided_diffusion.pet.formats.quaternions import with_rounded_quaternions
from guided_diffusion.pet.formats.volume_units import to_suv
from guided_diffusion.pet.grid import check_size
from guided_diffusion.pet.plausibility import MOST_LABELS
from guided_diffusion.pet.suv import SUVOverrides
from guided_diffusion.pet.text import times

# FreeSurfer's volumes have 256 voxels a side; this is more.
MAX_MGH_SIZE = 4096
LARGEST_MATRIX_FILE = 2**20
DAMAGED = "{}: is damaged or shorter than its header says; copy it again"
REPAIR = "copy or convert it again"
DESCRIPTION_BYTES = 79
# Intents that say what values are: statistics (2 to 24), labels, and indices of names (1002 and 1003).
NO_IMAGE_INTENTS = {*range(2, 25), 1002, 1003}


def read(path: Path, *, overrides: SUVOverrides | None = None) -> tuple[np.ndarray, np.ndarray, str, dict[str, object]]:
    """Reads one 3D volume slice by slice -> data float32 [i, j, k], affine (mm, RAS+), unit, source.

    A unit that the file or its BIDS sidecar names is taken as true: activity becomes SUV by what the sidecar or
    `overrides` say of the injection. Without one the values are taken as SUV, unless `overrides` give weight and dose,
    which says that they are Bq/mL decay-corrected to the injection.

    Raises:
        InputError: the file cannot be read, is truncated, or is no single volume; its header contradicts itself; or no
            SUV follows from what is stated and from `overrides`.
    """
    header_path, image_path = _files_of_pair(path)
    held = admit(image_path)
    if header_path != image_path:
        admit(header_path)
    try:
        with damage_as(DAMAGED.format(path), ImageFileError), _quiet_nibabel():
            image = _open(path)
            shape = image.shape
    except ImageFileError:
        raise InputError(f"{path}: no format that is known; give .npz, .mat, NIfTI or a DICOM folder or .zip") from None
    if 0 in shape:
        raise InputError(f"{path}: has shape {list(shape)}, that is no voxel; {REPAIR}")
    if len(shape) < 3 or any(n != 1 for n in shape[3:]):
        raise InputError(f"{path}: has shape {list(shape)}; one 3D volume is needed (split a dynamic series first)")
    check_size(shape[:3], path)
    _check_intent(image, path)
    _check_offset(image, path)
    factor, unit, source = to_suv(image, path, overrides)
    affine = affine_mm(image, path)
    with damage_as(DAMAGED.format(path)):
        _check_held(image, held, path)
        data = _read_slices(image, shape, path)
        _check_end(image, path)
    with np.errstate(invalid="ignore", over="ignore"):  # NaN and infinity are refused with the other values
        data *= np.float32(factor)
    source = {"format": type(image).__name__.removesuffix("Image"), **source}
    if _are_whole(image):
        source["whole_numbers"] = True
    if not says_orientation(image):
        source["orientation"] = "assumed: the header has none"
        unplaced = f"{path}: its header places the voxels nowhere; its first axis is taken to run to the left"
        source["notices"] = [*source.get("notices", []), unplaced]
    return data, affine, unit, source


def holds_labels(path: Path) -> bool:
    """Whether a volume holds a few whole numbers without a scale, as masks do; False for what cannot be read."""
    try:
        with damage_as(DAMAGED.format(path)), _quiet_nibabel():
            image = _open(path)
            stored, scale = image.get_data_dtype(), getattr(image.dataobj, "slope", 1.0)
            if stored.kind not in "iu" or scale not in (0.0, 1.0) or len(image.shape) != 3:
                return False
            check_size(image.shape, path)
            return stored.itemsize == 1 or len(np.unique(np.asanyarray(image.dataobj))) <= MOST_LABELS
    except InputError:
        return False


def write(path: Path, data: np.ndarray, affine: np.ndarray, *, description: str, unit: str) -> None:
    """Writes float32 [i, j, k] with sform and qform, both as scanner coordinates, whole or not at all.

    A sheared grid (tilted gantry) has no qform, which holds rotations only. The unit goes to the end of `descrip`,
    where `read` finds it again.
    """
    image = nib.Nifti1Image(np.asarray(data, dtype=np.float32), affine)
    image.set_sform(affine, code="scanner")
    image.set_qform(affine, code="scanner")
    if not fits_qform(affine, data.shape):
        image.set_qform(None, code="unknown")
    image.header.set_xyzt_units("mm", "sec")
    ending = f" [{unit}]"
    image.header["descrip"] = (description[: DESCRIPTION_BYTES - len(ending)] + ending).encode("ascii", "replace")
    with atomic_write(path) as temporary:
        nib.save(image, temporary)


def _check_offset(image: nib.spatialimages.SpatialImage, path: Path) -> None:
    """nibabel would take the header of a NIfTI-2 for voxels, and a NIfTI without its magic for Analyze's format."""
    named = path.name.lower().endswith((".nii", ".nii.gz"))
    if named and isinstance(image, nib.AnalyzeImage) and not isinstance(image, nib.Nifti1Pair):
        raise InputError(f"{path}: is called NIfTI, but its magic says none; {REPAIR}")
    if isinstance(image, nib.Nifti1Image) and image.dataobj.offset < image.header.single_vox_offset:
        raise InputError(f"{path}: its vox_offset is {image.dataobj.offset}, inside the header; {REPAIR}")


def _check_intent(image: nib.spatialimages.SpatialImage, path: Path) -> None:
    intent = int(image.header["intent_code"]) if isinstance(image, nib.Nifti1Pair) else 0
    if intent in NO_IMAGE_INTENTS:
        raise InputError(f"{path}: its intent_code is {intent}, labels or statistics; give a PET image")


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
    if issubclass(image_class, nib.Nifti1Pair):
        _check_intercept(image_class.header_class, header, path)
    files = {"image": header, "header": header}
    if image_path != header_path:
        files["image"] = open_unpacked(image_path)
    if issubclass(image_class, nib.Spm99AnalyzeImage):
        matrix = find_sibling(image_path, ".mat")
        files["mat"] = _spm_matrix(matrix) if matrix else BytesIO()
    return image_class.from_file_map({kind: FileHolder(fileobj=file) for kind, file in files.items()})


def _check_intercept(header_class: type[nib.Nifti1Header], file: BinaryIO, path: Path) -> None:
    """nibabel refuses a scale without an intercept as it opens the image, which would count as damage of the file."""
    header = header_class(file.read(header_class.template_dtype.itemsize), check=False)
    file.seek(0)
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope and math.isfinite(slope) and not math.isfinite(intercept):
        raise InputError(f"{path}: its scl_inter is {intercept}, not a number to add to its values; {REPAIR}")


def _spm_matrix(path: Path) -> BytesIO:
    """SPM's affine as a `.mat` of version 4: damage of version 5 can crash SciPy's reader."""
    admit(path)
    with open_unpacked(path) as file:
        content = file.read(LARGEST_MATRIX_FILE)
    if not content.startswith(b"MATLAB 5"):
        return BytesIO(content)
    import scipy.io  # here, because it takes a tenth of a second

    found = {name: matlab.array_of_version_5(content, name, path) for name in ("M", "mat")}
    again = BytesIO()
    scipy.io.savemat(again, {name: array for name, array in found.items() if array is not None}, format="4")
    return BytesIO(again.getvalue())


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


def _check_held(image: nib.spatialimages.SpatialImage, held: int, path: Path) -> None:
    """Compares what the header declares with the bytes that are there, and with the memory that is left."""
    stored = image.dataobj
    if isinstance(stored, ArrayProxy) and stored.offset + math.prod(stored.shape) * stored.dtype.itemsize > held:
        raise InputError(DAMAGED.format(path))
    check_memory(4 * math.prod(stored.shape), path)


def _read_slices(image: nib.spatialimages.SpatialImage, shape: tuple[int, ...], path: Path) -> np.ndarray:
    data = np.empty(shape[:3], np.float32)
    rest = (0,) * (len(shape) - 3)
    for k in range(shape[2]):
        part = np.asanyarray(image.dataobj[(slice(None), slice(None), k, *rest)])
        if part.dtype.kind not in "fiu":
            raise InputError(f"{path}: holds {part.dtype} values, not real numbers")
        data[..., k] = part
    return data


def _are_whole(image: nib.spatialimages.SpatialImage) -> bool:
    """Whether the voxels are stored as integers that nothing scales."""
    if isinstance(image, nib.ecat.EcatImage | nib.Minc1Image):  # their scales are per frame, or per slice
        return False
    slope, intercept = getattr(image.dataobj, "slope", 1.0), getattr(image.dataobj, "inter", 0.0)
    return image.get_data_dtype().kind in "iu" and (slope, intercept) == (1.0, 0.0)


def _check_end(image: nib.spatialimages.SpatialImage, path: Path) -> None:
    """A slice or more after the last voxel is of a larger image than the header describes."""
    if not isinstance(image, nib.AnalyzeImage | nib.Nifti1Pair):
        return
    stored = image.dataobj
    slice_bytes = stored.dtype.itemsize * int(np.prod(stored.shape[:2]))
    file = image.file_map["image"].fileobj
    file.seek(stored.offset + slice_bytes * int(np.prod(stored.shape[2:])))
    if len(file.read(slice_bytes)) == slice_bytes:
        raise InputError(f"{path}: is longer than its header says ({times(stored.shape)} voxels); {REPAIR}")


def _read_format(path: Path, request: Request) -> StoredArray:
    data, affine, unit, source = read(path, overrides=request.overrides)
    return StoredArray(data, str(source["format"]), affine, unit, source)


IMAGE_CLASSES = (
    (lambda head: head[344:348] == b"n+1\0", with_rounded_quaternions(nib.Nifti1Image)),
    (lambda head: head[344:348] == b"ni1\0", with_rounded_quaternions(nib.Nifti1Pair)),
    (lambda head: head[4:8] == b"n+2\0", with_rounded_quaternions(nib.Nifti2Image)),
    (lambda head: head[4:8] == b"ni2\0", with_rounded_quaternions(nib.Nifti2Pair)),
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
