"""Pairs and data sets of them: opening, checks, and what a manifest chooses. Crops are in test_crops.py."""

import csv
import logging
import zipfile

import numpy as np
import pytest

from guided_diffusion.errors import InputError
from guided_diffusion.image_datasets import Pair, find_pairs, open_pair
from guided_diffusion.pet.grid import centred_affine
from tests.crop_sources import numbered, source_of, write_pair


class TestOpening:
    def test_uncompressed_member_is_mapped_in_place(self, tmp_path):
        array = numbered()
        mapped = open_pair(write_pair(tmp_path / "pair.npz", array, affine=np.eye(4)))
        assert isinstance(mapped, np.memmap)
        np.testing.assert_array_equal(mapped, array)

    @pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", "<f2"])
    def test_other_orders_and_types_are_mapped(self, tmp_path, dtype):
        array = np.asfortranarray(numbered((8, 8, 8)).astype(dtype))
        mapped = open_pair(write_pair(tmp_path / "pair.npz", array))
        assert isinstance(mapped, np.memmap)
        np.testing.assert_array_equal(mapped, array)

    def test_compressed_member_is_loaded_and_the_log_says_so(self, tmp_path, caplog):
        array = numbered()
        np.savez_compressed(tmp_path / "pair.npz", arr_0=array)
        with caplog.at_level(logging.INFO, "guided_diffusion"):
            np.testing.assert_array_equal(open_pair(tmp_path / "pair.npz"), array)
        assert "cannot be mapped" in caplog.text

    def test_truncated_file(self, tmp_path):
        path = write_pair(tmp_path / "pair.npz", numbered())
        path.write_bytes(path.read_bytes()[:-1000])
        with pytest.raises(InputError, match=r"pair\.npz: is no complete"):
            open_pair(path)

    def test_pickled_objects_are_refused(self, tmp_path):
        path = tmp_path / "pair.npz"
        np.savez(path, arr_0=np.array([{"a": 1}], dtype=object))
        with pytest.raises(InputError, match="pickled objects"):
            open_pair(path)

    def test_no_arr_0(self, tmp_path):
        np.savez(tmp_path / "pair.npz", image=numbered())
        with pytest.raises(InputError, match="has no arr_0"):
            open_pair(tmp_path / "pair.npz")

    @pytest.mark.parametrize("array", [np.zeros((3, 8, 8, 8)), np.zeros((2, 8, 8)), np.zeros((2, 8, 8, 8), dtype=int)])
    def test_anything_but_a_pair(self, tmp_path, array):
        with pytest.raises(InputError, match=r"a pair is floating-point \[2, X, Y, Z\]"):
            open_pair(write_pair(tmp_path / "pair.npz", array))

    def test_no_archive(self, tmp_path):
        (tmp_path / "pair.npz").write_text("not a zip file")
        with pytest.raises(InputError, match="is no complete"):
            open_pair(tmp_path / "pair.npz")


class TestChecks:
    """`CropSource.check`: what training looks at before its first step."""

    def body(self, scale=1.0):
        """A pair [2, X, Y, Z] of a body of SUV 1 with an organ of SUV 5, seen with a little more and less noise."""
        array = np.zeros((2, 24, 20, 16), np.float32)
        array[:, 4:20, 4:16] = scale
        array[:, 10:14, 8:12, 6:10] = 5 * scale
        array[0, ::2, ::2, ::2] *= 0.99
        return array

    def check(self, path, voxel_mm=(3.3, 3.3, 3.3)):
        return source_of(path, (8, 8, 8)).check([0], voxel_mm, "PLS")

    def test_suv_is_taken_without_a_word(self, tmp_path):
        affine = centred_affine((24, 20, 16), 3.3, "PLS")
        assert self.check(write_pair(tmp_path / "bare.npz", self.body())) == []
        assert self.check(write_pair(tmp_path / "pair.npz", self.body(), affine=affine, unit=np.array("SUV"))) == []

    @pytest.mark.parametrize(
        ("scale", "message"),
        [
            (1 / 16, r"pair\.npz: values up to 0\.3125 are too low for SUV; multiply SUV/16 by 16"),
            (1 / 5, r"pair\.npz: values up to 1 are too low for SUV"),
            (2500.0, r"pair\.npz: values up to 1\.25e\+04 can't be SUV, they are probably Bq/mL"),
            (30.0, r"pair\.npz: values up to 150 can't be SUV"),  # Zr-89 in Bq/mL: never 1000, but all of the body
        ],
    )
    def test_other_units_are_refused(self, tmp_path, scale, message):
        with pytest.raises(InputError, match=message):
            self.check(write_pair(tmp_path / "pair.npz", self.body(scale)))

    def test_a_stated_unit_is_believed_and_doubts_are_told(self, tmp_path):
        path = write_pair(tmp_path / "pair.npz", self.body(1 / 8), unit=np.array("SUV"))
        notices = self.check(path)
        assert len(notices) == 2  # one per image
        assert all("pair.npz: SUV up to 0.625" in notice for notice in notices)
        for unit, message in (("SUVlbm", "is in SUVlbm, but the network learns SUV"), ("BQML", "its unit is 'BQML'")):
            path = write_pair(tmp_path / f"{unit}.npz", self.body(), unit=np.array(unit))
            with pytest.raises(InputError, match=rf"{unit}\.npz: {message}"):
                self.check(path)

    @pytest.mark.parametrize("channel", [0, 1])
    def test_a_voxel_that_is_no_number_is_found_wherever_it_lies(self, tmp_path, channel):
        array = self.body()
        array[channel, 0, 0, 0] = np.nan
        with pytest.raises(InputError, match=r"pair\.npz: has NaN .* set them to 0"):
            self.check(write_pair(tmp_path / "pair.npz", array))

    def test_two_images_of_different_scale_are_told(self, tmp_path):
        array = self.body()
        array[0] /= 4  # counts of a quarter of the dose that nobody scaled
        array[0, 0, 0, 0] = 2
        (notice,) = self.check(write_pair(tmp_path / "pair.npz", array))
        assert "low dose has a mean of 0.1" in notice

    def test_images_that_are_swapped_or_the_same_are_told(self, tmp_path):
        (notice,) = self.check(write_pair(tmp_path / "pair.npz", self.body()[[1, 1]]))
        assert "pair.npz: the low dose and the normal dose are one and the same image" in notice
        noise = np.random.default_rng(0).uniform(0.5, 1.5, (24, 20, 16)).astype(np.float32)
        pair = self.body()
        pair[0] *= noise
        assert self.check(write_pair(tmp_path / "pair.npz", pair)) == []
        (notice,) = self.check(write_pair(tmp_path / "pair.npz", pair[::-1]))
        assert "smoother than the normal dose; check that the two are not swapped" in notice

    def test_another_grid_is_refused(self, tmp_path):
        for affine, message in (
            (
                centred_affine((24, 20, 16), 1.65, "PLS"),
                r"voxels of 1\.65 x 1\.65 x 1\.65 mm, but the model's have 3\.3",
            ),
            (centred_affine((24, 20, 16), 3.3, "RAS"), "its axes grow to RAS, but the model's to PLS"),
        ):
            path = write_pair(tmp_path / "pair.npz", self.body(), affine=affine)
            with pytest.raises(InputError, match=message):
                self.check(path)


class TestDataSets:
    def write_manifest(self, folder, rows, columns=("subject", "dose", "split", "voxel_mm", "pair")):
        with open(folder / "manifest.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            writer.writerows(rows)

    def test_nested_folders(self, tmp_path):
        for name in ("b/pair_1.npz", "a/pair_2.npz", "a/pair_1.npz"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            write_pair(tmp_path / name, numbered())
        (tmp_path / ".17-half.npz").touch()
        found = find_pairs(tmp_path, "train", (3.3, 3.3, 3.3))
        assert [pair.path.relative_to(tmp_path).as_posix() for pair in found] == [
            "a/pair_1.npz",
            "a/pair_2.npz",
            "b/pair_1.npz",
        ]
        assert find_pairs(tmp_path, "validation", (3.3, 3.3, 3.3)) == []

    def test_manifest_chooses_the_split(self, tmp_path):
        for name in "abc":
            write_pair(tmp_path / f"{name}.npz", numbered())
        self.write_manifest(
            tmp_path,
            [
                ("s1", 0.05, "train", 3.3, "a.npz"),
                ("s2", 0.05, "validation", 3.3, "b.npz"),
                ("s3", 0.05, "test", 3.3, "c.npz"),
            ],
        )
        assert find_pairs(tmp_path, "train", (3.3,) * 3) == [Pair(tmp_path / "a.npz", "s1", "0.05")]
        assert find_pairs(tmp_path, "validation", (3.3,) * 3) == [Pair(tmp_path / "b.npz", "s2", "0.05")]

    def test_manifests_as_spreadsheets_write_them(self, tmp_path, caplog):
        caplog.set_level(logging.INFO, "guided_diffusion")
        for name in "abc":
            write_pair(tmp_path / f"{name}.npz", numbered())
        rows = ["s1;0,05;Train;3,3;a.npz", "s2;1/20;VALIDATION;3.3;b.npz", "s3;0,05;val;3.3;c.npz"]
        (tmp_path / "manifest.csv").write_text("\n".join(["subject;dose;split;voxel_mm;pair", *rows]))
        assert find_pairs(tmp_path, "train", (3.3,) * 3) == [Pair(tmp_path / "a.npz", "s1", "0.05")]
        assert find_pairs(tmp_path, "validation", (3.3,) * 3) == [Pair(tmp_path / "b.npz", "s2", "0.05")]
        (notice,) = caplog.messages
        assert notice.endswith("1 row(s) of the split 'val' are not used (train, validation, test are)")

    def test_the_noise_of_references_comes_from_the_manifest(self, tmp_path):
        np.savez(tmp_path / "a.npz", arr_0=np.ones((2, 8, 8, 8), dtype=np.float32))
        manifest, columns = tmp_path / "manifest.csv", "subject,dose,split,voxel_mm,pair,clean_share\n"
        manifest.write_text(f"{columns}x,0.1,train,3.3,a.npz,1\ny,1,train,3.3,a.npz,\n")
        found = find_pairs(tmp_path, "train", (3.3,) * 3)
        assert [(pair.dose, pair.reference_noise) for pair in found] == [("0.1", 0), ("1", 1)]
        manifest.write_text(f"{columns}x,0.1,train,3.3,a.npz,2\n")
        with pytest.raises(InputError, match="clean_share '2' is no number from 0 to 1"):
            find_pairs(tmp_path, "train", (3.3,) * 3)
        manifest.write_text(f"{columns}x,5%,train,3.3,a.npz,1\n")
        with pytest.raises(InputError, match=r"dose '5%' is no number above 0 to 1, such as 0\.05 or 1/20"):
            find_pairs(tmp_path, "train", (3.3,) * 3)

    def test_manifest_with_another_voxel_size(self, tmp_path):
        write_pair(tmp_path / "a.npz", numbered())
        self.write_manifest(tmp_path, [("s1", 0.05, "train", 1.65, "a.npz")])
        with pytest.raises(InputError, match=r"voxels of 1\.65 mm, but --voxel_mm is 3\.3,3\.3,3\.3"):
            find_pairs(tmp_path, "train", (3.3,) * 3)

    @pytest.mark.parametrize(
        ("pair", "complaint"), [("../a.npz", "outside the data set"), ("missing.npz", "is not there")]
    )
    def test_manifest_with_a_bad_path(self, tmp_path, pair, complaint):
        write_pair(tmp_path / "a.npz", numbered())
        folder = tmp_path / "trial"
        folder.mkdir()
        self.write_manifest(folder, [("s1", 0.05, "train", 3.3, pair)])
        with pytest.raises(InputError, match=complaint):
            find_pairs(folder, "train", (3.3,) * 3)

    def test_manifest_without_a_column(self, tmp_path):
        self.write_manifest(tmp_path, [("s1", "train", 3.3)], columns=("subject", "split", "voxel_mm"))
        with pytest.raises(InputError, match="no column 'dose'"):
            find_pairs(tmp_path, "train", (3.3,) * 3)

    def test_a_table_of_others_beside_pairs_is_none_of_a_trial(self, tmp_path, caplog):
        caplog.set_level(logging.INFO, "guided_diffusion")
        write_pair(tmp_path / "a.npz", numbered())
        self.write_manifest(tmp_path, [("a", 0.05, "test")], columns=("subject", "dose", "split"))
        assert [pair.path for pair in find_pairs(tmp_path, "train", (3.3,) * 3)] == [tmp_path / "a.npz"]
        assert caplog.messages == ["notice: left out (no .npz): manifest.csv"]

    def test_the_records_of_prepare_beside_pairs_are_not_left_out(self, tmp_path, caplog):
        caplog.set_level(logging.INFO, "guided_diffusion")
        write_pair(tmp_path / "a.npz", numbered())
        for name in ("a.npz.json", "b.npz.json"):
            (tmp_path / name).write_text("{}")
        assert [pair.path for pair in find_pairs(tmp_path, "train", (3.3,) * 3)] == [tmp_path / "a.npz"]
        assert caplog.messages == ["notice: left out (no .npz): b.npz.json"]

    def test_nothing_there(self, tmp_path):
        with pytest.raises(InputError, match="no such folder"):
            find_pairs(tmp_path / "missing", "train", (3.3,) * 3)
        with pytest.raises(InputError, match=r"neither a manifest\.csv nor any \.npz"):
            find_pairs(tmp_path, "train", (3.3,) * 3)


def test_members_behind_a_padded_local_header_are_mapped(tmp_path):
    """Other writers pad the local header; the array then lies further back than the directory alone tells."""
    array = numbered((8, 8, 8))
    np.save(tmp_path / "arr_0.npy", array)
    info = zipfile.ZipInfo("arr_0.npy")
    info.extra = b"\xfe\xca\x10\x00" + bytes(16)
    with zipfile.ZipFile(tmp_path / "pair.npz", "w") as archive:
        archive.writestr(info, (tmp_path / "arr_0.npy").read_bytes())
    mapped = open_pair(tmp_path / "pair.npz")
    assert isinstance(mapped, np.memmap)
    np.testing.assert_array_equal(mapped, array)


@pytest.mark.parametrize("dose", [np.array(0.0), np.array(1.5), np.array(np.nan), np.array("1/4"), np.array([0.25])])
def test_what_a_pair_states_as_its_dose_is_a_fraction(tmp_path, dose):
    np.savez(tmp_path / "pair.npz", arr_0=np.ones((2, 8, 8, 8), np.float32), dose=dose)
    with pytest.raises(InputError, match=r"pair\.npz: its dose is no fraction of the normal dose from 0 to 1"):
        find_pairs(tmp_path, "train", (2.5, 2.5, 2.5))


def test_the_dose_of_a_pair_is_what_it_states(tmp_path):
    for name, stated in {"known": {"dose": np.array(0.05)}, "unknown": {}}.items():
        np.savez(tmp_path / f"{name}.npz", arr_0=np.ones((2, 8, 8, 8), np.float32), **stated)
    assert [pair.dose for pair in find_pairs(tmp_path, "train", (2.5, 2.5, 2.5))] == ["0.05", ""]
