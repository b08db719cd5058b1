"""Reading the files that are compared. Nothing that a file holds is executed."""

import zipfile
import zlib
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from guided_diffusion.errors import InputError


def read_npz(path: Path) -> np.ndarray:
    """`arr_0` of an .npz file, whatever its axes, as float32. Raises InputError if it can't be read or isn't finite."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            if "arr_0" not in archive.files:
                raise InputError(f"{path}: holds no arr_0, only {', '.join(archive.files) or 'nothing'}")
            array = archive["arr_0"]
    except (OSError, ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        # An .npy under this name has no `files` and is no context manager: AttributeError or TypeError.
        raise InputError(f"{path}: not a whole .npz file of plain numbers; write it again with numpy.savez") from error
    return _finite_float32(array, path)


def read_nifti(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """A NIfTI volume [i, j, k] as float32, and its affine. Raises InputError where it can't be read or isn't finite."""
    try:
        image = nib.load(path)
        array = np.asanyarray(image.dataobj)
    except (OSError, ValueError, EOFError, ImageFileError, zlib.error) as error:
        raise InputError(f"{path}: not a whole NIfTI file; export it again") from error
    return _finite_float32(array, path), image.affine


def read_mat_peak(path: Path) -> float:
    """The largest value of the array `suv` in a MATLAB file, v5 to v7.3. Raises InputError if it can't be read."""
    try:
        if h5py.is_hdf5(path):
            with h5py.File(path, "r") as file:
                array = file["suv"][()]
        else:
            array = loadmat(path, variable_names=["suv"])["suv"]
    except KeyError as error:
        raise InputError(f"{path}: holds no array named suv") from error
    except (OSError, ValueError, EOFError, TypeError, AttributeError, MatReadError, zlib.error) as error:
        raise InputError(f"{path}: not a whole MATLAB file with an array named suv; save it again") from error
    return float(_finite_float32(array, path).max())


def _finite_float32(array: np.ndarray, path: Path) -> np.ndarray:
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu" or array.size == 0:
        raise InputError(f"{path}: holds no real numbers; the voxels must be floats or integers")
    with np.errstate(over="ignore"):
        array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise InputError(f"{path}: has NaN or infinite voxels; set them to numbers first")
    return array
