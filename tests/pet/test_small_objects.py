"""Small hot objects that an image shows flatter than the scan."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from guided_diffusion.pet.small_objects import SURROUNDINGS_MM, Restoration, SmallObject, small_objects

VOXEL_MM = (2.5, 2.5, 2.5)


def restored(image, scan, voxel_mm):
    return image + Restoration(image, small_objects(image, scan, voxel_mm), voxel_mm).lacking()


def distances(shape, voxel_mm, centre=None):
    """From the middle of a volume, or another place, in mm."""
    middle = [size // 2 for size in shape] if centre is None else centre
    steps = np.indices(shape) - np.reshape(middle, (3, 1, 1, 1))
    return np.linalg.norm(steps * np.reshape(voxel_mm, (3, 1, 1, 1)), axis=0)


def blurred_ball(shape, voxel_mm, radius_mm, centre=None):
    """A ball of height 1 at a resolution of 6 mm."""
    ball = (distances(shape, voxel_mm, centre) <= radius_mm).astype(np.float32)
    return gaussian_filter(ball, [2.5 / size for size in voxel_mm])


def noise_of(shape, voxel_mm, size, seed=0):
    noise = gaussian_filter(np.random.default_rng(seed).standard_normal(shape), [2.5 / size for size in voxel_mm])
    return (size * noise / noise.std()).astype(np.float32)


@pytest.mark.parametrize("seed", range(6))
def test_a_flattened_object_is_as_high_as_in_the_scan(seed):
    """On any grid, the rest of the image as it was."""
    rng = np.random.default_rng(seed)
    voxel_mm = rng.uniform(2.0, 4.0, 3)
    shape = tuple(np.ceil(rng.uniform(90, 120, 3) / voxel_mm).astype(int))
    height, kept = rng.uniform(4, 8), rng.uniform(0.6, 0.9)
    ball = blurred_ball(shape, voxel_mm, rng.uniform(5, 9))
    image = 1 + kept * height * ball
    scan = 1 + height * ball + noise_of(shape, voxel_mm, 0.2, seed)
    result = restored(image, scan, voxel_mm)
    middle = distances(shape, voxel_mm) < 4
    assert result[middle].mean() == pytest.approx(1 + height * ball[middle].mean(), rel=0.08)
    beyond = distances(shape, voxel_mm) > 20
    np.testing.assert_array_equal(result[beyond], image[beyond])


def test_one_that_is_higher_than_in_the_scan_stays_as_it_is():
    ball = blurred_ball((40, 40, 40), VOXEL_MM, 6)
    image = 1 + 6 * ball
    np.testing.assert_array_equal(restored(image, 1 + 5 * ball + noise_of(ball.shape, VOXEL_MM, 0.05), VOXEL_MM), image)


def test_an_object_becomes_at_most_twice_as_high():
    ball = blurred_ball((40, 40, 40), VOXEL_MM, 6)
    result = restored(1 + ball, 1 + 5 * ball + noise_of(ball.shape, VOXEL_MM, 0.05), VOXEL_MM)
    assert result.max() == pytest.approx(1 + 2 * ball.max(), rel=0.03)


def test_an_object_below_the_noise_stays_as_it_is():
    """It may be none: with the same scan and less noise it is restored."""
    ball = blurred_ball((48, 48, 48), VOXEL_MM, 5)
    image, scan = 1 + 0.6 * ball, 1 + ball
    noisy = restored(image, scan + noise_of(ball.shape, VOXEL_MM, 2.0), VOXEL_MM)
    np.testing.assert_array_equal(noisy, image)
    clear = restored(image, scan + noise_of(ball.shape, VOXEL_MM, 0.05), VOXEL_MM)
    assert clear.max() == pytest.approx(scan.max(), rel=0.05)


def test_heights_are_drawn_with_the_error_of_their_fits():
    """Over sixty scans of an object, fits vary a little less than heights that are drawn of one: their error is taken
    to be that of the contrast at the maximum alone.
    """
    ball = blurred_ball((40, 40, 40), VOXEL_MM, 6)
    middle = distances(ball.shape, VOXEL_MM) < 4
    random = np.random.default_rng(0)
    image = 1 + 3 * ball
    fitted, spread = [], []
    for seed in range(60):
        objects = small_objects(image, 1 + 4 * ball + noise_of(ball.shape, VOXEL_MM, 0.5, seed), VOXEL_MM)
        restoration = Restoration(image, objects, VOXEL_MM)
        fitted.append((image + restoration.lacking())[middle].mean())
        deviates = random.standard_normal((10, len(objects))).tolist()
        heights = [(image + restoration.lacking(drawn))[middle].mean() for drawn in deviates]
        spread.append(np.std(heights))
    assert 1 < np.mean(spread) / np.std(fitted) < 1.5


def two_balls(apart_mm):
    """Scan and image of two that touch, flatter in the image."""
    shape, half = (64, 44, 44), apart_mm / 5
    balls = [blurred_ball(shape, VOXEL_MM, 5, (round(32 + side * half), 22, 22)) for side in (-1, 1)]
    ball = np.maximum(*balls)
    return 1 + 3 * ball, 1 + 4 * ball + noise_of(shape, VOXEL_MM, 0.2)


def test_drawn_heights_have_the_mean_of_the_fits_where_objects_overlap():
    image = np.full((40, 30, 30), 4.0, np.float32)
    objects = [SmallObject(place, 1.0, gain, 0.3) for place, gain in (((18, 15, 15), 0.5), ((22, 15, 15), 0.4))]
    deviates = np.random.default_rng(0).standard_normal((400, 2)).tolist()
    restoration = Restoration(image, objects, VOXEL_MM)
    drawn = np.mean([restoration.lacking(each) for each in deviates], axis=0)
    fitted = restoration.lacking()
    assert fitted.max() == pytest.approx(0.5 * 3)
    assert fitted[26, 15, 15] == pytest.approx(0.4 * 3)
    np.testing.assert_allclose(drawn, fitted, atol=0.06 * fitted.max())  # a standard error is 3 %


def test_heights_count_above_the_hottest_direction():
    """In front of a wall of SUV 3: the mean of both sides is 2, that of all directions 1.4."""
    ball = blurred_ball((48, 48, 48), VOXEL_MM, 5)
    wall = gaussian_filter((np.indices(ball.shape)[0] < 20).astype(np.float32), 1.0)
    image = 1 + 2 * wall + 8 * ball
    objects = small_objects(image, image + noise_of(ball.shape, VOXEL_MM, 0.1), VOXEL_MM)
    (found,) = [one for one in objects if max(abs(np.array(one.place) - 24)) <= 1]
    assert found.base == pytest.approx(2.0, abs=0.25)


def test_no_drawn_height_is_a_hole():
    image, scan = two_balls(15)
    objects = small_objects(image, scan, VOXEL_MM)
    lowered = image + Restoration(image, objects, VOXEL_MM).lacking([-1e3] * len(objects))
    middle = distances(image.shape, VOXEL_MM) < 15
    assert lowered[middle].min() > 0.9


def test_the_share_of_a_fit_grows_from_one_to_two_times_the_noise():
    """By noise of growing size about the same object: its error in units of its contrast says how far it stands out."""
    ball = blurred_ball((48, 48, 48), VOXEL_MM, 5)
    image, noise = 1 + ball, noise_of(ball.shape, VOXEL_MM, 1.0)
    shares = {}
    for size in np.linspace(0.2, 2.0, 40):
        objects = small_objects(image, image + size * noise, VOXEL_MM)
        for one in objects:
            if max(abs(np.array(one.place) - 24)) <= 1:
                # error = share / z, and 1 / z grows with the size of the noise.
                shares[size] = one.error
    unit = shares[0.2] / 0.2
    found = {1 / (unit * size): error / (unit * size) for size, error in shares.items()}
    assert min(found) == pytest.approx(1.0, abs=0.1)
    for stands_out, share in found.items():
        assert share == pytest.approx(np.clip(stands_out - 1, 0, 1), abs=0.08)


@pytest.mark.parametrize("form", ["edge", "rod", "sheet"])
def test_what_is_no_small_object_stays_as_it_is(form):
    """An organ's edge, a vessel and a layer, too low by a tenth."""
    x, y, _ = np.indices((64, 64, 64)) - 32
    parts = {
        "edge": x > 0,
        "rod": np.hypot(x, y) * 2.5 <= 6,
        "sheet": np.abs(x) <= 2,
    }
    part = gaussian_filter(parts[form].astype(np.float32), 1.0)
    image = 1 + 4.5 * part
    result = restored(image, 1 + 5 * part + noise_of(part.shape, VOXEL_MM, 0.1), VOXEL_MM)
    inner = (slice(8, -8),) * 3  # the ends of a rod at the edge of the volume are as those of an object
    np.testing.assert_allclose(result[inner], image[inner], atol=0.05)


def test_an_organ_hardly_changes():
    """A ball of 10 cm, too low by a tenth: its curved edge is as hot all around as that of an object in part only."""
    organ = gaussian_filter((distances((64, 64, 64), VOXEL_MM) <= 50).astype(np.float32), 1.0)
    image = 1 + 4.5 * organ
    changed = restored(image, 1 + 5 * organ + noise_of(organ.shape, VOXEL_MM, 0.1), VOXEL_MM) - image
    assert np.abs(changed).mean() < 0.25 * (0.5 * organ).mean()


def test_an_image_that_is_the_scan_stays_as_it_is():
    scan = 1 + 5 * blurred_ball((32, 32, 32), VOXEL_MM, 6)
    np.testing.assert_array_equal(restored(scan, scan, VOXEL_MM), scan)


@pytest.mark.parametrize("seed", range(4))
def test_turned_and_mirrored_volumes_have_the_same_result(seed):
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(20, 40, 3))
    voxel_mm = rng.uniform(2.0, 4.0, 3)
    image = 1 + 3 * blurred_ball(shape, voxel_mm, 6, [size // 3 for size in shape])
    scan = 1.5 * image + noise_of(shape, voxel_mm, 0.1, seed)
    result = restored(image, scan, voxel_mm)
    assert np.abs(result - image).max() > 0.2
    order = rng.permutation(3)
    turned = restored(image.transpose(order)[::-1], scan.transpose(order)[::-1], voxel_mm[order])
    np.testing.assert_allclose(turned, result.transpose(order)[::-1], atol=1e-4)


@pytest.mark.parametrize("shape", [(1, 1, 1), (40, 2, 1), (3, 30, 30)])
def test_small_volumes(shape):
    image = np.random.default_rng(0).gamma(2.0, 1.0, shape).astype(np.float32)
    result = restored(image, image + noise_of(shape, VOXEL_MM, 1.0) if min(shape) > 1 else image, VOXEL_MM)
    assert result.shape == shape
    assert np.isfinite(result).all()


def test_voxels_larger_than_objects_show_none():
    image = 1 + 5 * blurred_ball((12, 12, 12), (20.0, 20.0, 20.0), 30)
    assert SURROUNDINGS_MM < 20
    np.testing.assert_array_equal(restored(image, 2 * image, (20.0, 20.0, 20.0)), image)
