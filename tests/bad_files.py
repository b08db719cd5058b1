"""Files that are damaged, hostile, or no images."""

import io
import zipfile

import nibabel as nib
import numpy as np
import pytest
import scipy.io


class Hostile:
    """Unpickling this would leave a mark."""

    def __reduce__(self):
        return (pytest.fail, ("a pickled object was executed",))


def npy(array, **changes):
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array)
    content = stream.getvalue()
    for old, new in changes.values():
        content = content.replace(old, new)
    return content


def write_bad_files(folder):
    good = np.ones((4, 4, 4), np.float32)
    np.savez_compressed(folder / "good.npz", np.random.default_rng(0).uniform(size=(9, 9, 9)))
    whole = (folder / "good.npz").read_bytes()
    (folder / "truncated.npz").write_bytes(whole[: len(whole) // 2])
    flipped = bytearray(whole)
    flipped[len(whole) // 3] ^= 0xFF
    (folder / "corrupt.npz").write_bytes(bytes(flipped))
    np.savez(folder / "pickled.npz", np.array([Hostile()], dtype=object))
    np.savez(folder / "named.npz", pet=good)
    np.savez(folder / "axes.npz", np.ones((4, 4), np.float32))
    np.savez(folder / "three.npz", np.ones((3, 4, 4, 4), np.float32))
    np.savez(folder / "complex.npz", good + 1j)
    for name, value in (("nan", np.nan), ("inf", np.inf), ("bqml", 34000.0), ("negative", -1.0)):
        array = good * (-1 if name == "negative" else 1)
        array[1, 2, 3] = value
        np.savez(folder / f"{name}.npz", array)
        nib.save(nib.Nifti1Image(array, np.eye(4)), folder / f"{name}.nii.gz")
    with zipfile.ZipFile(folder / "lying.npz", "w") as archive:
        archive.writestr("arr_0.npy", npy(good, shape=(b"(4, 4, 4), }  ", b"(400, 4, 4), }")))
    with zipfile.ZipFile(folder / "billion.npz", "w") as archive:
        archive.writestr("arr_0.npy", npy(good, shape=(b"(4, 4, 4), }         ", b"(1000, 1000, 1000), }")))
    np.savez(folder / "affine.npz", arr_0=good, affine=np.zeros((4, 4)))
    np.savez(folder / "affine_row.npz", arr_0=good, affine=np.eye(4) + np.eye(4)[[3, 2, 1, 0]])
    np.savez(folder / "affine_nan.npz", arr_0=good, affine=np.diag([1.65, np.nan, 1.65, 1]))
    np.savez(folder / "affine_text.npz", arr_0=good, affine=np.full((4, 4), "1"))
    np.savez(folder / "affine_3.npz", arr_0=good, affine=np.eye(3))
    (folder / "text.nii").write_text("this is no image")
    (folder / "text.mat").write_text("this is no matrix, but it is long enough to have a header" * 10)
    (folder / "unknown.xyz").write_text("what is this")
    scipy.io.savemat(folder / "other.mat", {"pet": good})
    nib.save(nib.Nifti1Image(good + 1j, np.eye(4)), folder / "complex.nii")
    nib.save(nib.Nifti1Image(np.ones((4, 4, 4, 3), np.float32), np.eye(4)), folder / "dynamic.nii")
    nib.save(nib.Nifti1Image(np.ones((40, 40, 40), np.float32), np.eye(4)), folder / "short.nii")
    short = (folder / "short.nii").read_bytes()
    (folder / "short.nii").write_bytes(short[: len(short) // 2])
    nib.save(nib.Nifti1Image(np.random.default_rng(0).uniform(size=(40, 40, 40)), np.eye(4)), folder / "short.nii.gz")
    short = (folder / "short.nii.gz").read_bytes()
    (folder / "short.nii.gz").write_bytes(short[: len(short) // 2])
    header = nib.Nifti1Header()
    header.set_data_dtype(np.uint8)
    header.set_data_shape((1000, 1000, 1000))
    header["vox_offset"], header["magic"] = 352, b"n+1"
    (folder / "billion.nii").write_bytes(header.binaryblock + bytes(4))
    (folder / "empty").mkdir()
