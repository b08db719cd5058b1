"""Loading a PET volume and its position in space from any supported file, and saving it."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from guided_diffusion.errors import InputError
from guided_diffusion.pet import remote
from guided_diffusion.pet.contents import Contents, single_scan
from guided_diffusion.pet.formats import arrays, dicom, nifti, volume_formats
from guided_diffusion.pet.formats.archives import check_opened
from guided_diffusion.pet.formats.declaration import Request, StoredArray
from guided_diffusion.pet.formats.dicom_files import holds_series
from guided_diffusion.pet.grid import DEFAULT_AXIS_CODES, DEFAULT_VOXEL_MM, Volume, centred_affine, on_one_grid
from guided_diffusion.pet.plausibility import check_suv, doubts_of_body, doubts_of_labels
from guided_diffusion.pet.suv import SUVOverrides
from guided_diffusion.pet.suv_bases import UNITS, SUVBasis, ratio_of


def load_volume(
    path: str | Path,
    *,
    bare_voxel_mm: float | tuple[float, float, float] = DEFAULT_VOXEL_MM,
    bare_axis_codes: str = DEFAULT_AXIS_CODES,
    series: str | None = None,
    overrides: SUVOverrides | None = None,
    channel: int = 0,
) -> Volume:
    """Loads a PET image in SUV: `.npz`, `.mat`, NIfTI and whatever else nibabel reads, a DICOM folder or `.zip`, or
    a DICOM file of many frames.

    Args:
        path: file or folder, local or remote (`gs://`, `az://`, `https://`).
        bare_voxel_mm: voxel size of arrays that carry no affine, along X, Y, Z.
        bare_axis_codes: the directions in which X, Y, Z of such arrays grow, as nibabel's axis codes.
        series: SeriesInstanceUID or SeriesNumber where a DICOM folder holds several PET series; for DICOM only.
        overrides: replace missing or wrong DICOM tags in the SUV factor; weight and dose also turn NIfTI in Bq/mL,
            decay-corrected to the injection, into SUV.
        channel: of a pair (`.npz`), 0 for the low dose and 1 for the normal dose.

    Raises:
        InputError: the file is missing, damaged, no PET image, or its values cannot be SUV; or `overrides` say what
            cannot be used for it. What is only doubtful stands in the volume's source, under "notices".
    """
    # Values that float32 cannot hold become infinite and are refused below.
    with remote.local_copy(path) as local, np.errstate(over="ignore", invalid="ignore"):
        # With --series a folder is searched whole, whatever lies beside.
        found = single_scan(local) if series is None else Contents((local,))
        (scan,) = found.scans
        check_opened(scan)
        if scan.is_dir() or (volume_formats.format_of(scan) is None and holds_series(scan)):
            return _checked(dicom.load_suv(scan, series=series, overrides=overrides), str(path))
        if series is not None:
            raise InputError(f"{path}: is no DICOM, so --series has no use; leave it out")
        stored = volume_formats.read(scan, Request(channel=channel, overrides=overrides))
    doubts = tuple(f"{path}: {doubt}" for doubt in _doubts_of_unit(stored))
    return _checked(_placed(stored, bare_voxel_mm, bare_axis_codes), str(path), found.notices + doubts)


def save_volume(volume: Volume, path: str | Path, *, description: str = "guided_diffusion.pet") -> None:
    """Writes `.nii`, `.nii.gz` (sform and qform set, `description` in `descrip`) or `.npz` (`arr_0`, `affine`, `unit`).

    Raises:
        InputError: another suffix, or a folder that cannot be written.
    """
    path = Path(path)
    check_suffix(path)
    if path.name.endswith((".nii", ".nii.gz")):
        nifti.write(path, volume.data, volume.affine, description=description, unit=volume.unit)
    else:
        arrays.write(path, arr_0=volume.data, affine=volume.affine, unit=np.array(volume.unit))


def check_suffix(path: str | Path) -> None:
    """Refuses the name of a file in a format that is not written.

    Raises:
        InputError: another suffix than those of `save_volume`.
    """
    if not Path(path).name.endswith((".nii", ".nii.gz", ".npz")):
        raise InputError(f"cannot write {path}: the name must end in .nii, .nii.gz or .npz")


def save_pair(low: Volume, normal: Volume, path: str | Path, dose: float | None = None) -> None:
    """Writes a training subject: `.npz` with `arr_0` float32 [2, X, Y, Z] in SUV, low dose before normal dose.

    dose: that of the low dose as a fraction of the other's, if it is known; the file states it.

    Raises:
        InputError: the two do not share one grid.
    """
    if low.unit != normal.unit:
        raise InputError(f"cannot write {path}: low dose is in {low.unit} and normal dose in {normal.unit}")
    if not on_one_grid(low, normal):
        raise InputError(f"cannot write {path}: low dose and normal dose lie on different grids")
    pair = np.stack([low.data, normal.data])
    stated = {} if dose is None else {"dose": np.array(dose)}
    arrays.write(Path(path), arr_0=pair, affine=low.affine, unit=np.array(low.unit), **stated)


def in_suv_basis(volume: Volume, basis: SUVBasis) -> Volume:
    """SUV by body weight -> by lean body mass ('lbm') or body surface ('bsa', cm2/mL).

    Raises:
        InputError: the file did not state weight, height and sex.
    """
    if basis == "bw":
        return volume
    ratio = ratio_of(basis, volume.source.get("suv_basis_ratios", {}))
    return replace(volume, data=volume.data * np.float32(ratio), unit=UNITS[basis])


def _placed(stored: StoredArray, voxel_mm: float | tuple[float, float, float], axis_codes: str) -> Volume:
    if stored.affine is not None:
        return Volume(stored.data, stored.affine, stored.unit, stored.source)
    affine = centred_affine(stored.data.shape, voxel_mm, axis_codes)
    return Volume(stored.data, affine, stored.unit, {**stored.source, "is_placed": False})


def _doubts_of_unit(stored: StoredArray) -> list[str]:
    """Notices on an image that is taken as SUV; none where the file states its unit, or not the size of its voxels."""
    if stored.affine is None or stored.source.get("unit_stated", False):
        return []
    return doubts_of_body(stored.data, abs(np.linalg.det(stored.affine[:3, :3])) / 1000)


def _checked(volume: Volume, name: str, found: tuple[str, ...] = ()) -> Volume:
    """The volume, with notices on its values in its source. Raises InputError for values that are no SUV."""
    stated = volume.source.get("format") == "DICOM" or volume.source.get("unit_stated", False)
    if volume.source.get("whole_numbers") and not stated:
        raise InputError(
            f"{name}: holds whole numbers, as masks, labels and counts do; give an image in SUV, or --weight_kg and"
            " --dose_bq for one in Bq/mL"
        )
    notices = [*found, *volume.source.get("notices", []), *check_suv(volume.data, name, stated=stated)]
    if not stated:
        notices += doubts_of_labels(volume.data, name)
    return replace(volume, source={**volume.source, "notices": notices})
