import numpy as np

from evaluation.measures.organ_noise import deepest_point


def test_the_deepest_point_and_its_depth():
    organ = np.zeros((20, 20, 20), bool)
    organ[11:18, 4:13, 0:9] = True  # 14 x 18 x 27 mm, at the volume's border
    place, depth_mm = deepest_point(organ, (2.0, 2.0, 3.0))
    assert place[0] == 14
    assert depth_mm == 8  # four voxels of 2 mm to the nearest voxel outside


def test_no_organ_no_depth():
    assert deepest_point(np.zeros((3, 3, 3), bool), (1.0, 1.0, 1.0))[1] == 0
