"""Rotations in NIfTI headers whose rounding nibabel takes for damage."""

import nibabel as nib
import numpy as np

# By how much |(b, c, d)|^2 of a half turn exceeds 1 in headers of other software. nibabel allows 4e-7, and 7e-16 in
# NIfTI-2, whatever the precision of what wrote it.
ROUNDING = 1e-5


class _RoundedQuaternion:
    def get_qform_quaternion(self) -> np.ndarray:
        vector = np.array([self[f"quatern_{axis}"] for axis in "bcd"], dtype=np.float64)
        length = np.linalg.norm(vector)
        if 1 < length**2 <= 1 + ROUNDING:
            return np.array([0.0, *(vector / length)])
        return super().get_qform_quaternion()


def with_rounded_quaternions(image_class: type[nib.Nifti1Pair]) -> type[nib.Nifti1Pair]:
    """The same class of images, which takes a quaternion a little longer than 1 for a half turn."""
    header = image_class.header_class
    tolerant = type(header.__name__, (_RoundedQuaternion, header), {})
    return type(image_class.__name__, (image_class,), {"header_class": tolerant})
