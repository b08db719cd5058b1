import base64
import io

import matplotlib.image
import numpy as np
import pytest

from guided_diffusion.errors import InputError
from guided_diffusion.pet.grid import Volume
from guided_diffusion.report.images import Image, projection_rows, upright, without_head
from guided_diffusion.report.projections import VIEWS, coarser, coronal, rotating, sagittal, signed_extreme
from tests.report_runs import AFFINE, SHAPE


def pixels(address):
    """Red, green and blue of a picture in a page, 0 to 1."""
    return matplotlib.image.imread(io.BytesIO(base64.b64decode(address.split(",")[1])))[..., :3]


def marked():
    """A scan whose axes run left, front, head, with a spot on the patient's right, at the back, near the head."""
    data = np.zeros(SHAPE, np.float32)
    data[3, 5, 55] = 7
    return Volume(data, AFFINE)


def test_the_patients_right_is_on_the_left_and_the_head_is_up():
    (image,) = upright([Image("scan", marked())])
    front, side = coronal(image.volume.data), sagittal(image.volume.data)
    assert front.shape == (60, 44)
    assert np.argwhere(front == 7).tolist() == [[60 - 1 - 55, 3]]
    assert side.shape == (60, 40)
    assert np.argwhere(side == 7).tolist() == [[60 - 1 - 55, 40 - 1 - 5]]  # the back is on the right


def test_pictures_show_the_marker_in_inverted_grey():
    images = upright([Image("scan", marked()), Image("result", marked())])
    front, side = projection_rows(images, [])
    for row, place in ((front, (4, 3)), (side, (4, 34))):
        picture = pixels(row["pictures"][0]["src"])
        assert np.allclose(picture[place], 0)
        picture[place] = 1
        assert np.allclose(picture, 1)
    assert (front["sides"], side["sides"]) == (("R", "L"), ("A", "P"))
    assert (front["pictures"][0]["width_mm"], front["pictures"][0]["height_mm"]) == (44 * 4, 60 * 3)
    assert side["pictures"][0]["width_mm"] == 40 * 5


def test_the_difference_keeps_its_sign():
    less, more = np.zeros((2, *SHAPE), np.float32)
    less[2:5, 4:7, 54:57], more[29:32, 19:22, 9:12] = 2, 2
    images = upright([Image("before", Volume(less, AFFINE)), Image("after", Volume(more, AFFINE))])
    front, side = projection_rows(images, [(images[1], images[0])])
    for row, lower, higher in ((front, (4, 3), (49, 30)), (side, (4, 34), (49, 19))):
        entry = row["pictures"][-1]
        assert entry["title"] == "after minus before"
        assert entry["window"] == (-2, 2)
        picture = pixels(entry["src"])
        assert picture[lower][2] > picture[lower][0] + 0.2  # blue
        assert picture[higher][0] > picture[higher][2] + 0.2  # red
    assert signed_extreme(np.array([[[1.0, -3.0]], [[2.0, 1.0]]]), 0).tolist() == [[2.0, -3.0]]


def test_views_from_the_front_and_from_the_left():
    """With voxels as large as a view's pixels, a quarter of a turn shows what the sagittal projection shows."""
    volume = np.zeros((10, 12, 6), np.float32)
    volume[1, 10, 4], volume[7, 2, 1] = 5, 3  # front, left; back, right
    views = rotating(volume, (4.0, 4.0, 4.0))
    assert len(views) == VIEWS // 2
    width = views[0].shape[1]
    front, left = views[0], views[VIEWS // 4]
    middle = slice((width - 12) // 2, (width + 12) // 2)
    assert front[:, middle] == pytest.approx(coronal(volume), abs=1e-4)
    # Who stands at the patient's left has the patient's front to the left.
    middle = slice((width - 10) // 2, (width + 10) // 2)
    assert left[:, middle] == pytest.approx(sagittal(volume), abs=1e-4)


def test_blocks_are_means():
    volume = np.arange(5 * 4 * 3, dtype=np.float32).reshape(5, 4, 3)
    half = coarser(volume, 2)
    assert half.shape == (2, 2, 1)
    assert half[1, 0, 0] == volume[2:4, 0:2, 0:2].mean()
    assert coarser(volume[:1], 2).shape == (1, 2, 1)


def test_the_head_is_cut_off_in_whole_slices():
    images = upright([Image("scan", marked())])
    for neck_mm, left in ((0, 60), (9, 57), (10, 56)):
        assert without_head(images, neck_mm)[0].volume.data.shape[2] == left
    assert without_head(images, 16)[0].volume.data.max() == 0  # the spot was 5 slices below the top
    with pytest.raises(InputError, match="--report_neck_mm 180: the scan is 180 mm long"):
        without_head(images, 180)


def test_another_grid_is_refused():
    elsewhere = Volume(np.zeros(SHAPE, np.float32), AFFINE + 1)
    with pytest.raises(InputError, match="Reference: lies on another grid"):
        upright([Image("scan", marked()), Image("Reference", elsewhere)])
