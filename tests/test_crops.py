"""Crops of pairs, compared by value with the arrays they were cut from."""

import itertools
from collections import Counter

import numpy as np
import pytest

from guided_diffusion.config import PreprocessingConfig
from guided_diffusion.errors import InputError
from guided_diffusion.image_datasets import CropSource, Pair
from tests.crop_sources import SUV_MAX, numbered, source_of, write_pair


class TestCrops:
    def test_voxels_are_those_of_the_volume(self, tmp_path):
        array = numbered()
        source = source_of(write_pair(tmp_path / "pair.npz", array), (8, 12, 4))
        mirrored = 0
        for step in range(30):
            crop = source.crop(step, 0)
            normal = crop.normal_dose[0].transpose(1, 2, 0) * SUV_MAX  # back to [X, Y, Z]
            start = np.unravel_index(round((normal.min() - 1) * 1024), array.shape[1:])
            expected = array[1][
                tuple(slice(first, first + size) for first, size in zip(start, (8, 12, 4), strict=True))
            ]
            if not np.allclose(normal, expected):
                mirrored += 1
                expected = expected[:, ::-1]
            np.testing.assert_allclose(normal, expected, rtol=1e-6)
            np.testing.assert_allclose(crop.low_dose, crop.normal_dose / 2, rtol=1e-6)
        assert 5 < mirrored < 25

    def test_values_are_clipped_and_scaled(self, tmp_path):
        array = np.full((2, 8, 8, 8), 4.0, dtype=np.float32)
        array[0], array[1, :, :, 0] = -1.0, 50.0
        crop = source_of(write_pair(tmp_path / "pair.npz", array), (8, 8, 8)).crop(0, 0)
        assert (crop.low_dose == 0).all()
        assert (crop.normal_dose[0, 0] == 1).all()
        assert (crop.normal_dose[0, 1:] == 0.25).all()
        assert crop.normal_dose.dtype == np.float32

    def test_a_smaller_volume_is_centred_in_air(self, tmp_path):
        array = np.full((2, 6, 20, 3), 8.0, dtype=np.float32)
        crop = source_of(write_pair(tmp_path / "pair.npz", array), (8, 8, 8)).crop(0, 0)
        expected = np.zeros((1, 8, 8, 8), dtype=np.float32)
        expected[0, 2:5, 1:7, :] = 0.5
        np.testing.assert_array_equal(crop.normal_dose, expected)

    def test_a_smaller_volume_is_mirrored_with_the_air_around_it(self, tmp_path):
        array = numbered((6, 17, 3))
        source = source_of(write_pair(tmp_path / "pair.npz", array), (8, 20, 8))
        expected = np.pad(array / SUV_MAX, [(0, 0), (1, 1), (1, 2), (2, 3)]).transpose(0, 3, 1, 2)
        mirrored = 0
        for step in range(20):
            crop = source.crop(step, 0)
            mirrored += (crop.normal_dose[0] != expected[1]).any()
            right = expected[..., ::-1] if (crop.normal_dose[0] != expected[1]).any() else expected
            np.testing.assert_array_equal(np.concatenate([crop.low_dose, crop.normal_dose]), right)
        assert 3 < mirrored < 17

    @pytest.mark.parametrize(("codes", "side"), [("PLS", 1), ("RAS", 0), ("SPR", 2)])
    def test_crops_are_mirrored_from_one_side_of_the_patient_to_the_other(self, tmp_path, codes, side):
        array = numbered((8, 8, 8))
        pair = Pair(write_pair(tmp_path / "pair.npz", array), "one")
        source = CropSource([pair], (8, 8, 8), PreprocessingConfig(axis_codes=codes), 0)
        crops = [source.crop(step, 0).normal_dose[0].transpose(1, 2, 0) * SUV_MAX for step in range(20)]
        mirrored = [crop for crop in crops if not np.allclose(crop, array[1])]
        assert 3 < len(mirrored) < 17
        for crop in mirrored:
            np.testing.assert_allclose(crop, np.flip(array[1], side), rtol=1e-6)

    def test_without_noise_the_images_are_the_same(self, tmp_path):
        path = write_pair(tmp_path / "pair.npz", numbered())
        crop = source_of(path, (8, 12, 4)).crop(3, 1)
        bare = CropSource([Pair(path, "one")], (8, 12, 4), PreprocessingConfig(), 0, with_noise=False).crop(3, 1)
        assert bare.noise is None
        for field in ("low_dose", "normal_dose", "reference"):
            np.testing.assert_array_equal(getattr(bare, field), getattr(crop, field))

    def test_a_crop_depends_on_its_name_only(self, tmp_path):
        path = write_pair(tmp_path / "pair.npz", numbered())
        one, other = source_of(path, (8, 8, 8)), source_of(path, (8, 8, 8))
        for step in range(5):
            one.crop(step, 0)
        for field in ("low_dose", "normal_dose", "noise"):
            expected = getattr(one.crop(7, 1), field)
            np.testing.assert_array_equal(expected, getattr(other.crop(7, 1), field))
            for different in (other.crop(7, 2), other.crop(8, 1), source_of(path, (8, 8, 8), seed=1).crop(7, 1)):
                assert (expected != getattr(different, field)).any()

    def test_noise_is_standard_normal(self, tmp_path):
        noise = source_of(write_pair(tmp_path / "pair.npz", numbered()), (24, 20, 16)).crop(0, 0).noise
        assert noise.shape == (1, 16, 24, 20)
        assert abs(noise.mean()) < 0.05
        assert abs(noise.std() - 1) < 0.05

    def test_a_share_of_the_crops_holds_a_hot_spot_in_its_inner_half(self, tmp_path):
        array = np.ones((2, 96, 96, 96), dtype=np.float32)
        array[1, 60:64, 20:24, 68:72] = 5.0
        path = write_pair(tmp_path / "pair.npz", array)
        found = {}
        for share in (0.0, 0.4, 1.0):
            source = source_of(path, (16, 16, 16), hot=share)
            crops = [source.crop(step, 0).normal_dose[0] * SUV_MAX for step in range(200)]
            found[share] = sum((crop[2:14, 2:14, 2:14] == 5).sum() == 64 for crop in crops)
        assert found[0.0] < 10
        assert 50 < found[0.4] < 110
        assert found[1.0] == 200

    def test_a_share_of_the_crops_takes_every_second_voxel_along_some_axes(self, tmp_path):
        array = numbered((24, 20, 16))
        path = write_pair(tmp_path / "pair.npz", array)
        normal = array[1].transpose(2, 0, 1) / SUV_MAX
        plain, coarse = (source_of(path, (8, 8, 8), coarse=share) for share in (0.0, 0.6))
        found = Counter()
        for number in range(300):
            crop = coarse.crop(number, 0)
            first = np.argwhere(np.isclose(normal, crop.normal_dose[0].min(), rtol=1e-7))[0]
            steps = tuple(
                round(float(abs(np.diff(crop.normal_dose[0], axis=axis)).max() * SUV_MAX * 1024 / apart))
                for axis, apart in enumerate((1, 320, 16))
            )
            taken = normal[tuple(slice(f, f + 8 * step, step) for f, step in zip(first, steps, strict=True))]
            is_mirrored = crop.normal_dose[0, 0, 0, 0] > crop.normal_dose[0, 0, 0, -1]
            np.testing.assert_allclose(crop.normal_dose[0], taken[..., ::-1] if is_mirrored else taken, rtol=1e-6)
            np.testing.assert_allclose(crop.low_dose, crop.normal_dose / 2, rtol=1e-6)
            found[steps] += 1
        assert set(found) == set(itertools.product((1, 2), repeat=3))
        assert 0.4 < found[1, 1, 1] / 300 < 0.56  # 0.4 plain ones, and an eighth of the others
        np.testing.assert_array_equal(plain.crop(3, 1).normal_dose, source_of(path, (8, 8, 8)).crop(3, 1).normal_dose)

    def test_every_second_voxel_is_taken_only_where_there_is_room(self, tmp_path):
        array = numbered((24, 12, 16))
        source = source_of(write_pair(tmp_path / "pair.npz", array), (8, 8, 8), coarse=1.0)
        for number in range(30):
            crop = source.crop(number, 0).normal_dose[0]
            assert np.allclose(abs(np.diff(crop, axis=2)) * SUV_MAX * 1024, 16)
            assert (crop > 0).all()

    def test_a_hot_spot_lies_in_the_inner_half_of_coarse_crops_too(self, tmp_path):
        array = np.ones((2, 96, 96, 96), dtype=np.float32)
        array[1, 60:64, 20:24, 68:72] = 5.0
        source = source_of(write_pair(tmp_path / "pair.npz", array), (16, 16, 16), hot=1.0, coarse=1.0)
        inner = (source.crop(number, 0).normal_dose[0, 2:14, 2:14, 2:14] * SUV_MAX for number in range(60))
        counts = {(crop == 5).sum() for crop in inner}
        assert counts == {8, 16, 32, 64}  # of 4 x 4 x 4 voxels, halved along none to all axes

    def test_where_nothing_stands_out_the_share_changes_nothing_but_the_draws(self, tmp_path):
        path = write_pair(tmp_path / "pair.npz", np.ones((2, 24, 24, 24), dtype=np.float32))
        crop = source_of(path, (8, 8, 8), hot=1.0).crop(0, 0).normal_dose
        np.testing.assert_array_equal(crop, np.full((1, 8, 8, 8), 1 / 16))

    def test_crops_are_centred_on_the_body(self, tmp_path):
        array = np.zeros((2, 96, 96, 96), dtype=np.float32)
        array[:, 40:64, 8:24, 48:80] = 2.0  # 1.4% of the volume
        source = source_of(write_pair(tmp_path / "pair.npz", array), (16, 16, 16))
        for step in range(40):
            crop = source.crop(step, 0).normal_dose[0]
            assert crop[6:10, 6:10, 6:10].any()

    def test_hot_spots_are_favoured(self, tmp_path):
        array = np.full((2, 64, 64, 64), 0.5, dtype=np.float32)
        array[:, 24:40, 24:40, 24:40] = 16.0  # 1/64 of the body, one third of its uptake
        source = source_of(write_pair(tmp_path / "pair.npz", array), (8, 8, 8))
        hot = np.mean([source.crop(step, 0).normal_dose.max() == 1.0 for step in range(300)])
        # Centres: 1/2 * 1/64 + 1/2 * 1/3 = 0.175; crops up to 4 voxels outside touch it too.
        assert 0.13 < hot < 0.30

    def test_air_alone_is_cropped_anywhere(self, tmp_path):
        crop = source_of(write_pair(tmp_path / "pair.npz", np.zeros((2, 16, 16, 16), np.float32)), (8, 8, 8)).crop(0, 0)
        assert (crop.normal_dose == 0).all()

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_voxels_that_are_no_numbers(self, tmp_path, value):
        array = numbered((8, 8, 8))
        array[0, 1, 1, 1] = value
        with pytest.raises(InputError, match=r"pair\.npz: has voxels that are not finite"):
            source_of(write_pair(tmp_path / "pair.npz", array), (8, 8, 8)).crop(0, 0)
