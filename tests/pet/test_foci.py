import tracemalloc

import numpy as np
import pytest

from guided_diffusion.pet.foci import ContrastMap, contrast_map, foci

VOXEL_MM = (4.0, 5.0, 3.0)


@pytest.fixture
def noise():
    return np.random.default_rng(0).standard_normal((44, 40, 60))


def with_spot(centre, suv=6.0):
    """Tissue of SUV 1 with a spot of 12 mm and SUV `suv`."""
    image = np.ones((44, 40, 60), np.float32)
    places = np.stack(np.meshgrid(*(np.arange(n) for n in image.shape), indexing="ij"), axis=-1)
    image[np.linalg.norm((places - centre) * VOXEL_MM, axis=-1) < 6] = suv
    return image


def lacking(volume, other):
    """The foci of `volume` that `other` lacks, hottest first, and the number of foci of `volume`."""
    found = foci(contrast_map(volume, VOXEL_MM), contrast_map(other, VOXEL_MM))
    return [focus for focus in found if focus.is_lacking], len(found)


def test_a_focus_that_is_lost_and_one_that_appears():
    there, gone = with_spot((20, 20, 30)), with_spot((20, 20, 30), suv=1.0)
    (focus,), count = lacking(there, gone)
    assert (focus.voxel, count) == ((20, 20, 30), 1)
    assert focus.contrast > 3
    assert focus.contrast_elsewhere == pytest.approx(1)
    assert lacking(gone, there) == ([], 0)


def test_a_focus_that_moved_a_voxel_or_faded_a_little_is_still_there():
    there = with_spot((20, 20, 30))
    for other in (with_spot((21, 20, 30)), with_spot((20, 20, 30), suv=4.0)):
        assert lacking(there, other) == ([], 1)
    far = with_spot((20, 30, 30))  # 50 mm away
    assert [focus.voxel for focus in lacking(there, far)[0]] == [(20, 20, 30)]


def test_noise_alone_makes_no_focus(noise):
    tissue = np.maximum(1.5 + 0.25 * noise, 0)
    assert lacking(tissue, tissue) == ([], 0)


def test_the_peak_of_the_other_volume_is_the_highest_within_8_mm():
    before, after = with_spot((20, 20, 30)), with_spot((21, 20, 30), suv=4.0)
    maps = contrast_map(before, VOXEL_MM), contrast_map(after, VOXEL_MM)
    (focus,), (back,) = foci(*maps), foci(*reversed(maps))
    assert back.voxel == (21, 20, 30)
    assert focus.suv_peak_elsewhere == back.suv_peak < focus.suv_peak == back.suv_peak_elsewhere
    assert not focus.is_lacking


def test_foci_are_found_at_the_border():
    (focus,) = foci(*2 * [contrast_map(with_spot((0, 39, 59)), VOXEL_MM)])
    assert focus.voxel == (0, 39, 59)


def test_equal_maxima_side_by_side_are_one_focus():
    flat = ContrastMap(np.ones((30, 30, 30)), np.full((30, 30, 30), 3.0), VOXEL_MM)
    flat.peak[10:12, 10:12, 10:13] = 5
    flat.peak[25, 25, 25] = 4
    flat.contrast[flat.peak == 1] = 1
    assert [focus.suv_peak for focus in foci(flat, flat)] == [5, 4]


def test_a_volume_smaller_than_the_surroundings_has_no_foci_and_takes_no_memory():
    """A shell of 50 mm has 8 million voxels of 0.2 mm, and the volume would be padded by as much."""
    image = np.ones((24, 24, 24), np.float32)
    image[12, 12, 12] = 50
    tracemalloc.start()
    found = contrast_map(image, (0.2, 0.2, 0.2))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.isnan(found.peak).all()
    assert np.isnan(found.contrast).all()
    assert found.places == ()
    assert peak < 2**21


def test_a_scan_of_few_slices_has_foci():
    (focus,) = foci(*2 * [contrast_map(with_spot((20, 20, 30))[..., 27:34], VOXEL_MM)])
    assert focus.voxel == (20, 20, 3)
