"""Which BIDS sidecars hold for a volume, where they lie and how they are written."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from guided_diffusion.errors import InputError
from guided_diffusion.pet.formats.stated_units import stated_under, value_of
from guided_diffusion.pet.suv import SUVOverrides
from guided_diffusion.pet.volume import load_volume
from tests.bucket import Bucket
from tests.sidecars import AT_INJECTION, SIDECAR, saved, without


def test_a_sidecar_that_says_nothing_of_units_changes_nothing_and_a_broken_one_is_named(tmp_path, suv):
    path = saved(tmp_path / "pet.nii.gz", suv, {"Modality": "PT"})
    np.testing.assert_array_equal(load_volume(path).data, suv)
    for content in ('{"Units": "kBq/', "\xff\xfe"):
        (tmp_path / "pet.json").write_text(content, encoding="latin-1")
        with pytest.raises(InputError, match=r"pet\.json: is no readable JSON, though it says what pet\.nii\.gz holds"):
            load_volume(path)
    (tmp_path / "pet.json").write_text("[1, 2]")
    np.testing.assert_array_equal(load_volume(path).data, suv)


@pytest.mark.parametrize("key", ["Unit", "units", "ImageUnits", "UNITS", "image_units"])
def test_a_unit_under_another_key_is_read_and_none_is_no_suv(tmp_path, suv, key):
    content = without("Units", "InjectedRadioactivityUnits", **{key: "kBq/mL", "InjectedRadioactivityUnit": "MBq"})
    path = saved(tmp_path / "pet.nii.gz", suv * 1e-3 / AT_INJECTION, content)
    if key == "image_units":
        with pytest.raises(
            InputError, match=r"pet\.json describes the injection, but does not say in what the image is"
        ):
            load_volume(path)
        in_bqml = saved(tmp_path / "pet.nii.gz", suv / AT_INJECTION)
        given = SUVOverrides(weight_kg=70.0, dose_bq=350e6)
        np.testing.assert_allclose(load_volume(in_bqml, overrides=given).data, suv, rtol=1e-5)
    else:
        np.testing.assert_allclose(load_volume(path).data, suv, rtol=1e-5)


@pytest.mark.parametrize(
    "holder", ["pet.json", "sub-01_pet.json", "sub-01/sub-01_ses-2_pet.json", "sub-01/ses-2/pet/pet.json"]
)
def test_a_unit_is_inherited_as_bids_says(tmp_path, suv, holder):
    folder = tmp_path / "set" / "sub-01" / "ses-2" / "pet"
    folder.mkdir(parents=True)
    (tmp_path / "set" / "dataset_description.json").write_text("{}")
    (tmp_path / "pet.json").write_text(json.dumps({"Units": "counts"}))  # of another data set
    (tmp_path / "set" / "sub-02_pet.json").write_text(json.dumps({"Units": "counts"}))
    (tmp_path / "set" / holder).write_text(json.dumps(SIDECAR | {"BodyWeight": 35}))
    path = saved(folder / "sub-01_ses-2_trc-FDG_pet.nii.gz", suv * 1e-3 / AT_INJECTION)
    (folder / "sub-01_ses-2_trc-FDG_pet.json").write_text(json.dumps({"BodyWeight": 70}))
    np.testing.assert_allclose(load_volume(path).data, suv, rtol=1e-5)


def test_remote_volumes_bring_their_sidecars(tmp_path, suv, monkeypatch):
    (tmp_path / "one").mkdir()
    saved(tmp_path / "one" / "pet.nii.gz", suv * 1e-3 / AT_INJECTION, SIDECAR)
    saved(tmp_path / "bare.nii.gz", suv)
    saved(tmp_path / "pat.01.nii.gz", suv * 1e-3 / AT_INJECTION)
    (tmp_path / "pat.01.json").write_text(json.dumps(SIDECAR))
    monkeypatch.setitem(sys.modules, "blobfile", Bucket(tmp_path))
    for url in (
        "gs://bucket/one/pet.nii.gz",
        "gs://bucket/one",
        "gs://bucket/bare.nii.gz",
        "gs://bucket/pat.01.nii.gz",
    ):
        np.testing.assert_allclose(load_volume(url).data, suv, rtol=1e-5)


def test_a_sidecar_in_another_character_set_and_with_numbers_as_texts(tmp_path, suv):
    path = saved(tmp_path / "v.nii.gz", suv / AT_INJECTION * 1e-3)
    content = SIDECAR | {"BodyWeight": "70", "InjectedRadioactivity": "350.0", "InstitutionName": "Universität"}
    (tmp_path / "v.json").write_bytes(json.dumps(content, ensure_ascii=False).encode("latin-1"))
    np.testing.assert_allclose(load_volume(path).data, suv, rtol=1e-5)
    (tmp_path / "v.json").write_text(json.dumps(content | {"BodyWeight": "seventy"}))
    with pytest.raises(InputError, match="BodyWeight is 'seventy' in a sidecar, not a number of kg; give --weight_kg"):
        load_volume(path)
    (tmp_path / "v.json").write_text(json.dumps(content | {"BodyWeight": 10**400}))
    with pytest.raises(InputError, match=r"BodyWeight is \(401 characters\) in a sidecar, not a number of kg"):
        load_volume(path)


def test_lists_of_one_value_are_the_value(tmp_path, suv):
    later = SIDECAR | {"ImageDecayCorrectionTime": 6586.2, "FrameTimesStart": 3600}
    path = saved(tmp_path / "v.nii.gz", suv * 1e-3 / AT_INJECTION / 2, {key: [value] for key, value in later.items()})
    volume = load_volume(path)
    np.testing.assert_allclose(volume.data, suv, rtol=1e-5)
    assert volume.source["notices"] == []
    (tmp_path / "v.json").write_text(json.dumps([later]))
    np.testing.assert_allclose(load_volume(path).data, suv, rtol=1e-5)
    for key, value in {"BodyWeight": [70, 80], "FrameTimesStart": [0], "ImageDecayCorrected": [False]}.items():
        saved(path, suv * 1e-3 / AT_INJECTION / 2, later | {key: value})
        if key == "FrameTimesStart":
            (notice,) = load_volume(path).source["notices"]
            assert "the image begins 0 s after the injection" in notice
        else:
            with pytest.raises(InputError, match=r"BodyWeight is \(8 characters\)|is not decay-corrected"):
                load_volume(path)


@pytest.mark.parametrize("written", [str.lower, str.upper])
def test_keys_are_read_in_whatever_case(tmp_path, suv, written):
    later = SIDECAR | {"ImageDecayCorrectionTime": 6586.2}
    path = saved(tmp_path / "v.nii.gz", suv * 1e-3 / AT_INJECTION / 2)
    (tmp_path / "v.json").write_text(json.dumps({written(key): value for key, value in later.items()}))
    np.testing.assert_allclose(load_volume(path).data, suv, rtol=1e-5)
    for key, value in {"AttenuationCorrection": "none", "ImageDecayCorrected": False}.items():
        content = {other: value for other, value in later.items() if other != key} | {written(key): value}
        (tmp_path / "v.json").write_text(json.dumps(content))
        with pytest.raises(InputError, match=r"is not (corrected for attenuation|decay-corrected); give"):
            load_volume(path)


def test_a_nearer_sidecar_counts_though_it_writes_a_key_in_another_case(tmp_path, suv):
    folder = tmp_path / "sub-01"
    folder.mkdir()
    (tmp_path / "pet.json").write_text(json.dumps(SIDECAR | {"BodyWeight": 35}))
    path = saved(folder / "sub-01_pet.nii.gz", suv * 1e-3 / AT_INJECTION, {"bodyweight": 70})
    np.testing.assert_allclose(load_volume(path).data, suv, rtol=1e-5)


@pytest.mark.parametrize("place", ["capitals", "link"])
def test_a_sidecar_is_found_in_capitals_and_beside_a_links_target(tmp_path, suv, place):
    path = saved(tmp_path / "pet.nii.gz", suv * 1e-3 / AT_INJECTION, SIDECAR)
    if place == "capitals":
        (tmp_path / "pet.json").rename(tmp_path / "PET.JSON")
        path = path.rename(tmp_path / "PET.NII.GZ")
    else:
        (tmp_path / "links").mkdir()
        (tmp_path / "links" / "patient.nii.gz").symlink_to(path)
        path = tmp_path / "links" / "patient.nii.gz"
    np.testing.assert_allclose(load_volume(path).data, suv, rtol=1e-5)


@pytest.mark.parametrize("name", ["sub-01_pet.nii.json", "sub-01_pet.nii.gz.json", "SUB-01_PET.nii.gz.JSON"])
def test_a_sidecar_named_by_the_volumes_whole_name(tmp_path, suv, name):
    path = saved(tmp_path / "sub-01_pet.nii.gz", suv * 1e-3 / AT_INJECTION)
    (tmp_path / "pet.json").write_text(json.dumps(SIDECAR | {"BodyWeight": 35}))
    (tmp_path / name).write_text(json.dumps({"BodyWeight": 70}))
    np.testing.assert_allclose(load_volume(path).data, suv, rtol=1e-5)


def test_a_link_of_a_data_set_inherits_and_folders_that_cannot_be_listed_are_passed(tmp_path, suv, monkeypatch):
    (tmp_path / "objects").mkdir()
    target = saved(tmp_path / "objects" / "abc.nii.gz", suv * 1e-3 / AT_INJECTION)
    folder = tmp_path / "closed" / "set" / "sub-01"
    folder.mkdir(parents=True)
    (folder.parent / "pet.json").write_text(json.dumps(SIDECAR))
    (folder / "sub-01_pet.nii.gz").symlink_to(target)
    listing = Path.iterdir

    def refusing(self):
        if self == tmp_path / "closed":
            raise PermissionError(13, "Permission denied", str(self))
        return listing(self)

    monkeypatch.setattr(Path, "iterdir", refusing)
    np.testing.assert_allclose(load_volume(folder / "sub-01_pet.nii.gz").data, suv, rtol=1e-5)


def test_a_key_is_found_in_any_case_and_as_bids_writes_it_first():
    content = {"bodyweight": 60, "BodyWeight": 70, "attenuationCorrection": False, "Units": "", "unit": "Bq/mL"}
    assert value_of(content, "BodyWeight") == 70
    assert value_of(content, "AttenuationCorrection") is False
    assert value_of(content, "ScanStart") is None
    assert stated_under(content, "BodyWeight") == ("BodyWeight", 70)
    assert stated_under(content, "Units", "Unit") == ("unit", "Bq/mL")  # what is empty states nothing
    assert stated_under(content, "AttenuationCorrection", "ScanStart") is None
