import nibabel as nib
import numpy as np

from guided_diffusion.pet.grid import Volume
from guided_diffusion.pet.orientation import turned, turned_like


def test_axes_are_turned_but_places_stay():
    data = np.random.default_rng(2).random((4, 5, 6)).astype(np.float32)
    affine = np.array([[0, -3.0, 0, 10], [0, 0, 2.0, 5], [4.0, 0, 0, -7], [0, 0, 0, 1]])
    upright = turned(Volume(data, affine))
    assert nib.aff2axcodes(upright.affine) == ("P", "L", "S")
    place = affine @ [1, 2, 3, 1]
    i, j, k = np.rint(np.linalg.inv(upright.affine) @ place)[:3].astype(int)
    assert upright.data[i, j, k] == data[1, 2, 3]


def test_axes_are_turned_to_those_of_another_volume():
    data = np.random.default_rng(2).random((4, 5, 6)).astype(np.float32)
    oblique = np.array([[-3.9, 0.2, 0, 10], [0.2, 3.9, 0.1, 5], [0, -0.1, 2.0, -7], [0, 0, 0, 1]])
    volume = Volume(data, oblique)
    for codes in ("RAS", "SPL", "LAS"):
        back = turned_like(turned(volume, codes), volume)
        np.testing.assert_array_equal(back.data, data)
        np.testing.assert_allclose(back.affine, oblique, atol=1e-12)
