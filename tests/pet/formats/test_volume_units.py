"""Units that volume files state: BIDS sidecars, our own descriptions, ECAT, intents; and what users say instead."""

import json

import nibabel as nib
import numpy as np
import pytest

from guided_diffusion.errors import InputError
from guided_diffusion.pet.formats.stated_units import concentration_bqml, suv_unit
from guided_diffusion.pet.grid import Volume
from guided_diffusion.pet.suv import SUVOverrides
from guided_diffusion.pet.volume import load_volume, save_volume
from tests.sidecars import AT_INJECTION, SIDECAR, saved, without


@pytest.mark.parametrize(
    ("changes", "per_suv"),
    [
        ({}, 1e-3 / AT_INJECTION),
        ({"Units": "Bq/mL"}, 1 / AT_INJECTION),
        ({"Units": "MBq/ml"}, 1e-6 / AT_INJECTION),
        ({"Units": "BQML"}, 1 / AT_INJECTION),
        ({"Units": "Bq/cc"}, 1 / AT_INJECTION),
        ({"Units": "nCi/cc"}, 1 / 37 / AT_INJECTION),
        ({"Units": "Bq/L"}, 1000 / AT_INJECTION),
        ({"Units": "SUV"}, 1.0),
        ({"Units": "g/mL"}, 1.0),
        # corrected to the scan's start, one half-life later
        ({"ImageDecayCorrectionTime": 6586.2}, 1e-3 / AT_INJECTION / 2),
        ({"InjectionStart": -6586.2}, 1e-3 / AT_INJECTION / 2),
        ({"InjectionStart": 5}, 1e-3 / AT_INJECTION * 2 ** (5 / 6586.2)),
        (
            {"TracerRadionuclide": "C11", "TracerName": "choline", "ImageDecayCorrectionTime": 1221.7},
            0.5e-3 / AT_INJECTION,
        ),
        ({"AttenuationCorrection": "measured,AC-CT"}, 1e-3 / AT_INJECTION),
        ({"AttenuationCorrection": ""}, 1e-3 / AT_INJECTION),
        ({"InjectedRadioactivity": 0.35, "InjectedRadioactivityUnits": "GBq"}, 1e-3 / AT_INJECTION),
        ({"BodyWeight": 154.32358, "BodyWeightUnit": "lb"}, 1e-3 / AT_INJECTION),
        ({"BodyWeight": 154.32358, "bodyweightunits": "Pounds"}, 1e-3 / AT_INJECTION),
        ({"BodyWeight": 70000, "BodyWeightUnits": "g"}, 1e-3 / AT_INJECTION),
        ({"BodyWeight": None, "PatientWeight": 70, "PatientWeightUnit": "n/a"}, 1e-3 / AT_INJECTION),
        ({"InjectedRadioactivity": 350000, "InjectedRadioactivityUnits": "kBq"}, 1e-3 / AT_INJECTION),
    ],
)
def test_a_sidecars_unit_is_believed(tmp_path, suv, changes, per_suv):
    volume = load_volume(saved(tmp_path / "sub-01_pet.nii.gz", suv * per_suv, SIDECAR | changes))
    np.testing.assert_allclose(volume.data, suv, rtol=1e-5)
    assert volume.unit == "SUV"
    assert volume.source["stored_units"] == {"SUV": "SUV", "g/mL": "SUV"}.get(
        changes.get("Units", "kBq/mL"), changes.get("Units", "kBq/mL")
    )


def test_what_dcm2niix_copies_from_dicom_is_understood(tmp_path, suv):
    sidecar = {
        "Units": "BQML", "DecayCorrection": "START", "RadionuclideTotalDose": 350e6, "RadionuclideHalfLife": 6586.2,
        "ScanStart": 0, "InjectionStart": -6586.2, "PatientWeight": 70.0,
    }  # fmt: skip
    path = saved(tmp_path / "pet.nii", suv / AT_INJECTION / 2, sidecar)
    np.testing.assert_allclose(load_volume(path).data, suv, rtol=1e-5)
    path = saved(tmp_path / "admin.nii", suv / AT_INJECTION, sidecar | {"DecayCorrection": "ADMIN"})
    np.testing.assert_allclose(load_volume(path).data, suv, rtol=1e-5)


@pytest.mark.parametrize(
    ("sidecar", "said", "per_suv"),
    [
        (without("BodyWeight"), {"weight_kg": 70.0}, 1e-3 / AT_INJECTION),
        (without("InjectedRadioactivity"), {"dose_bq": 350e6}, 1e-3 / AT_INJECTION),
        ({"Units": "kBq/mL"}, {"weight_kg": 70.0, "dose_bq": 350e6}, 1e-3 / AT_INJECTION),
        (
            without("TracerRadionuclide", "TracerName", ImageDecayCorrectionTime=6000),
            {"half_life_s": 6000.0},
            0.5e-3 / AT_INJECTION,
        ),
        (without(BodyWeight=35), {"weight_kg": 70.0}, 1e-3 / AT_INJECTION),
    ],
)
def test_what_the_sidecar_lacks_the_user_may_say(tmp_path, suv, sidecar, said, per_suv):
    path = saved(tmp_path / "pet.nii.gz", suv * per_suv, sidecar)
    volume = load_volume(path, overrides=SUVOverrides(**said))
    np.testing.assert_allclose(volume.data, suv, rtol=1e-5)
    assert volume.source["suv_overrides"] == said


@pytest.mark.parametrize(
    ("sidecar", "said", "message"),
    [
        (without("BodyWeight"), {}, r"pet\.json: Units is 'kBq/mL'; no SUV: no BodyWeight .*--weight_kg"),
        (without("InjectedRadioactivity"), {}, r"no InjectedRadioactivity in a sidecar; give --dose_bq"),
        (without(InjectedRadioactivityUnits="percent"), {}, r"InjectedRadioactivityUnits is 'percent'.*--dose_bq"),
        (without("InjectedRadioactivityUnits"), {}, r"no InjectedRadioactivityUnits in a sidecar; give --dose_bq"),
        (without(InjectedRadioactivityUnits=7), {}, r"InjectedRadioactivityUnits is '7', no unit of activity"),
        (without("InjectionStart"), {}, r"no InjectionStart \(s\) in a sidecar; give --weight_kg and --dose_bq if"),
        (without("ImageDecayCorrectionTime"), {}, r"no ImageDecayCorrectionTime \(s\) in a sidecar; give --weight_kg"),
        (without(InjectionStart="10:10:14"), {}, r"InjectionStart is '10:10:14' in a sidecar, not a number of s; give"),
        (without(BodyWeight="70 kg"), {}, r"BodyWeight is '70 kg' in a sidecar, not a number of kg; give --weight_kg"),
        (without(InjectedRadioactivity="350 MBq"), {}, r"InjectedRadioactivity is '350 MBq' in a .*; give --dose_bq"),
        (without(ImageDecayCorrected=False), {}, r"is not decay-corrected; give the DICOM series"),
        (without(ImageDecayCorrected="false"), {}, r"is not decay-corrected; give the DICOM series"),
        (without(ImageDecayCorrected=0), {}, r"is not decay-corrected; give the DICOM series"),
        (without(AttenuationCorrection="None"), {}, r"by the sidecar's AttenuationCorrection the .* for attenuation"),
        (without(AttenuationCorrectionMethod="NONE", Units="SUV"), {}, r"AttenuationCorrectionMethod the image is not"),
        (without(AttenuationCorrectionMethod="NONE, 0.000000 cm-1,"), {}, r"AttenuationCorrectionMethod the image is"),
        (without(AttenuationCorrection=["No AC"]), {}, r"AttenuationCorrection the image is not"),
        (
            without("TracerRadionuclide", "TracerName", InjectionStart=-60),
            {},
            r"no known TracerRadionuclide in a sidecar; give --half_life_s",
        ),
        (without(RadionuclideHalfLife=109.8, InjectionStart=-60), {}, r"half-life is 109.8 s, but F-18.*in minutes"),
        (without(InjectionStart=-200000), {}, r"corrected to 200000 s after the injection"),
        (without(InjectedRadioactivity=350, InjectedRadioactivityUnits="Bq"), {}, r"a dose of 350 Bq cannot be true"),
        (without(BodyWeightUnit="stone"), {}, r"BodyWeightUnit is 'stone' in a sidecar, not kg, g or lb; give --"),
        (without(BodyWeight=70000), {}, r"a weight of 70000 kg cannot be true"),
        (without(Units="counts"), {}, r"Units is 'counts', which is neither SUV nor activity per volume"),
        (without(Units="Ann Smith, <a@b>"), {}, r"Units is \(16 characters\), which is neither"),
        (without(Units=["Bq/mL", "SUV"]), {}, r"Units is \(16 characters\)"),
        (without(Units="SUV"), {"weight_kg": 70.0, "dose_bq": 350e6}, r"--weight_kg has no use.*Units says 'SUV'"),
        (SIDECAR, {"injection_time": "101013"}, r"--injection_time has no use: the sidecar says"),
    ],
)
def test_what_leads_to_no_suv_is_said(tmp_path, suv, sidecar, said, message):
    path = saved(tmp_path / "pet.nii.gz", suv, sidecar)
    with pytest.raises(InputError, match=rf"pet\.nii\.gz: .*{message}") as caught:
        load_volume(path, overrides=SUVOverrides(**said))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("changes", "noticed"),
    [
        ({"ScanStart": 0}, True),
        ({"FrameTimesStart": [30.0]}, True),
        ({"ScanStart": 0, "FrameTimesStart": [3000]}, False),
        ({"ScanStart": 0, "InjectionStart": -3600}, False),
        ({"ScanStart": None}, False),
        ({"ScanStart": "11:38:59", "FrameTimesStart": []}, False),
    ],
)
def test_an_image_that_begins_with_the_injection_is_told_of(tmp_path, suv, changes, noticed):
    """Converters put 0 where they know neither the injection's time nor the scan's."""
    path = saved(tmp_path / "pet.nii.gz", suv, SIDECAR | {"Units": "kBq/mL"} | changes)
    notices = load_volume(path).source["notices"]
    beginning = [notice for notice in notices if "by the sidecar the image begins" in notice]
    assert len(beginning) == noticed
    assert all(notice.startswith(f"{path}: ") and "correct InjectionStart" in notice for notice in beginning)


@pytest.mark.parametrize(("unit", "basis"), [("SUV", "SUV"), ("SUVlbm", "SUVlbm"), ("SUVbsa", "SUVbsa")])
@pytest.mark.parametrize("name", ["v.nii.gz", "v.npz"])
def test_our_own_files_come_back_in_their_unit(tmp_path, suv, unit, basis, name):
    volume = Volume(suv, np.diag([-4.0, 4, 4, 1]), unit)
    save_volume(volume, tmp_path / name, description="a model with a very long name, longer than a header holds " * 3)
    again = load_volume(tmp_path / name)
    assert again.unit == basis
    np.testing.assert_array_equal(again.data, suv)
    with pytest.raises(InputError, match="has no use"):
        load_volume(tmp_path / name, overrides=SUVOverrides(weight_kg=70.0, dose_bq=350e6))


@pytest.mark.parametrize("code", [1002, 3, 22])
def test_labels_and_statistics_are_no_pet(tmp_path, suv, code):
    image = nib.Nifti1Image(suv, np.eye(4))
    image.header["intent_code"] = code
    nib.save(image, tmp_path / "v.nii")
    with pytest.raises(InputError, match=rf"v\.nii: its intent_code is {code}, labels or statistics; give a PET image"):
        load_volume(tmp_path / "v.nii")


@pytest.mark.parametrize(
    ("unit", "bqml"),
    [("Bq/mL", 1), ("kBq/ml", 1e3), ("MBq/cc", 1e6), ("µCi/mL", 3.7e4), ("Bq / cm³", 1), ("Bq/mm3", 1e3), ("Bq", None),
     ("Bq mL-1", 1), ("kBq.mL-1", 1e3), ("Bq*mL^-1", 1), ("Bq L-1", 1e-3), ("Bq/mL-1", None),
     ("[kBq/mL]", 1e3), ("kBq·mL⁻¹", 1e3), ("Becquerels/milliliter", 1), ("megabecquerel/mL", 1e6),
     ("cps", None), ("g/mL", None), ("", None)],
)  # fmt: skip
def test_concentrations(unit, bqml):
    assert concentration_bqml(unit) == (None if bqml is None else pytest.approx(bqml))


def test_names_of_suv():
    assert [suv_unit(u) for u in ("SUV", "SUVbw", "g/ml", "SUL", "Bq/mL")] == ["SUV", "SUV", "SUV", "SUVlbm", None]
    assert suv_unit("SUV (body weight)") == "SUV"
    assert {suv_unit(u) for u in ("SUV (g/mL)", "SUVbw (g/ml)", "SUV-BW", "SUV_bw")} == {"SUV"}
    in_full = ("Standardized Uptake Value body weight", "SUV [g/mL]", "SUV g/mL", "g/cc", "{SUVbw}g/cm3")
    assert {suv_unit(u) for u in in_full} == {"SUV"}
    assert suv_unit("Standardised Uptake Value lean body mass") == "SUVlbm"
    assert [suv_unit(u) for u in ("SUVR", "g", "kg/L", "SUV/16")] == [None] * 4
    assert {suv_unit(u) for u in ("SUV-LBM", "SUVlbm (g/ml)", "SUL (g/mL)")} == {"SUVlbm"}


CONVERTED = {
    "Units": "BQML", "DecayCorrection": "START", "SeriesTime": "12:00:00.000000", "FrameTimesStart": [0],
    "RadionuclideTotalDose": 350e6, "RadionuclideHalfLife": 6586.2, "Radiopharmaceutical": "FDG", "PatientWeight": 70,
}  # fmt: skip
# The scan's start is 12:00, an hour after the time that others are counted from.
BY_BIDS = {
    "DecayCorrection": None, "TimeZero": "11:00:00", "ScanStart": 3600, "ImageDecayCorrected": True,
    "ImageDecayCorrectionTime": 3600.0, "SeriesTime": "11:59:00",
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, {"injection_time": "101013.8"}),
        ({}, {"injection_time": "10:10:13.8", "weight_kg": 70.0, "dose_bq": 350e6}),
        ({"SeriesTime": None}, {"injection_time": "101013.8", "scan_start": "12:00:00"}),
        ({"SeriesTime": "18:00:00"}, {"injection_time": "20240109231013.8", "scan_start": "20240110010000"}),
        ({"InjectionStart": 0, "ScanStart": 0}, {"injection_time": "101013.8"}),
        (BY_BIDS, {"injection_time": "101013.8", "weight_kg": 70.0, "dose_bq": 350e6}),
        (BY_BIDS | {"ScanStart": 0, "ImageDecayCorrectionTime": 0}, {"injection_time": "091013.8"}),
        (BY_BIDS | {"TimeZero": None, "SeriesTime": "12:00:00"}, {"injection_time": "101013.8"}),
        (BY_BIDS | {"TimeZero": "23:30:00"}, {"injection_time": "22:40:13.8"}),
    ],
)
def test_an_image_that_is_corrected_to_the_scans_start_takes_the_injections_time(tmp_path, suv, changes, said):
    """dcm2niix of 2026 no longer writes when the injection was, and wrote 0 before."""
    path = saved(tmp_path / "pet.nii.gz", suv / AT_INJECTION / 2, CONVERTED | changes)
    volume = load_volume(path, overrides=SUVOverrides(**said))
    np.testing.assert_allclose(volume.data, suv, rtol=1e-5)
    assert volume.source["notices"] == []


def test_the_record_does_not_name_the_sidecar(tmp_path, suv):
    """Files are called by patients, and the record is on the page of a report."""
    volume = load_volume(saved(tmp_path / "Doe_Jane_1961.nii.gz", suv, {"Units": "SUV"}))
    assert volume.source["suv"] == "the sidecar's Units says 'SUV': SUV already"


def test_bqml_without_a_unit_takes_weight_and_dose_and_records_them(tmp_path, suv):
    said = {"weight_kg": 70.0, "dose_bq": 350e6}
    volume = load_volume(saved(tmp_path / "pet.nii.gz", suv / AT_INJECTION), overrides=SUVOverrides(**said))
    np.testing.assert_allclose(volume.data, suv, rtol=1e-5)
    assert volume.source["suv_overrides"] == said


ALL = {"weight_kg": 70.0, "dose_bq": 350e6, "injection_time": "101013.8", "scan_start": "12:00"}
HALF_LIFE = {"half_life_s": 6586.2}


@pytest.mark.parametrize(
    ("sidecar", "said"),
    [
        (None, ALL | HALF_LIFE),
        ({"TracerRadionuclide": "F18"}, ALL),
        ({"Units": "Bq/mL"}, ALL | HALF_LIFE),
        (without("InjectionStart", "ImageDecayCorrectionTime", Units="Bq/mL"), ALL),
        (without("ImageDecayCorrectionTime", Units="Bq/mL"), {name: ALL[name] for name in list(ALL)[2:]}),
    ],
)
def test_bqml_without_a_word_of_its_correction_takes_all_the_users_values(tmp_path, suv, sidecar, said):
    path = saved(tmp_path / "pet.nii.gz", suv / AT_INJECTION / 2, sidecar)
    volume = load_volume(path, overrides=SUVOverrides(**said))
    np.testing.assert_allclose(volume.data, suv, rtol=1e-5)
    assert volume.source["suv_overrides"] == said
    assert "corrected to 6586.2 s after the injection; given by the user" in volume.source["suv"]


@pytest.mark.parametrize(
    ("sidecar", "left_out", "message"),
    [
        (None, "scan_start", r"taken as Bq/mL; --injection_time alone does not say to when .*; give --scan_start too"),
        (None, "injection_time", r"--scan_start alone tells no time since the injection; give --injection_time too"),
        (None, "half_life_s", r"no known TracerRadionuclide in a sidecar; give --half_life_s"),
        (None, "dose_bq", r"--weight_kg --injection_time --half_life_s --scan_start alone .*; give --dose_bq too"),
        ({"Units": "Bq/mL"}, "scan_start", r"--injection_time alone does not say to when .*; give --scan_start too"),
        ({"DecayCorrection": "NONE"}, "", r"--injection_time has no use: the sidecar says to when"),
        ({"ImageDecayCorrected": False}, "", r"the image is not decay-corrected; give the DICOM series"),
    ],
)
def test_what_lacks_among_the_users_values_is_said(tmp_path, suv, sidecar, left_out, message):
    path = saved(tmp_path / "pet.nii.gz", suv, sidecar)
    said = {name: value for name, value in (ALL | HALF_LIFE).items() if name != left_out}
    with pytest.raises(InputError, match=message):
        load_volume(path, overrides=SUVOverrides(**said))


@pytest.mark.parametrize(
    ("changes", "said", "message"),
    [
        ({}, {}, r"corrected to the scan's start, but .* give --injection_time$"),
        ({}, {"weight_kg": 70.0, "dose_bq": 350e6}, r"corrected to the scan's start, but .* give --injection_time$"),
        ({"SeriesTime": None}, {}, r"give --injection_time and --scan_start$"),
        (
            {"SeriesTime": None},
            {"injection_time": "101013"},
            r"has no SeriesTime, when the scan began; give --scan_start",
        ),
        ({}, {"scan_start": "120000"}, r"--scan_start alone tells no time since the injection; give --injection_time"),
        ({}, {"injection_time": "125959"}, r"--injection_time 125959: that is 23.0 h before the scan's start"),
        ({}, {"injection_time": "noon"}, r"--injection_time noon cannot be true"),
        ({"DecayCorrection": "ADMIN"}, {"injection_time": "101013"}, r"--injection_time has no use: the sidecar says"),
        (BY_BIDS, {"weight_kg": 70.0, "dose_bq": 350e6}, r"corrected to the scan's start, but .* --injection_time$"),
        ({"DecayCorrection": "start"}, {"weight_kg": 70.0, "dose_bq": 350e6}, r"give --injection_time$"),
        ({"DecayCorrection": ["START"]}, {"weight_kg": 70.0, "dose_bq": 350e6}, r"give --injection_time$"),
        ({"DecayCorrection": "none"}, {"weight_kg": 70.0, "dose_bq": 350e6}, r"is not decay-corrected; give the DICOM"),
        (BY_BIDS | {"InjectionStart": 0}, {"injection_time": "101013"}, r"--injection_time has no use: the sidecar"),
    ],
)
def test_an_image_that_is_corrected_to_the_scans_start_and_no_time_of_injection(tmp_path, suv, changes, said, message):
    path = saved(tmp_path / "pet.nii.gz", suv / AT_INJECTION / 2, CONVERTED | changes)
    with pytest.raises(InputError, match=message):
        load_volume(path, overrides=SUVOverrides(**said))


@pytest.mark.parametrize(
    "method", ["measured,AC_CT_Body", "not specified", "None specified", "Noah's, 0.096 cm-1", "CT"]
)
def test_words_that_begin_like_no_say_nothing(tmp_path, suv, method):
    path = saved(tmp_path / "pet.nii.gz", suv * 1e-3 / AT_INJECTION, without(AttenuationCorrectionMethod=method))
    np.testing.assert_allclose(load_volume(path).data, suv, rtol=1e-5)


def test_a_sidecar_that_contradicts_our_own_file_is_refused(tmp_path, suv):
    folder = tmp_path / "sub-01"
    folder.mkdir()
    (tmp_path / "pet.json").write_text(json.dumps(SIDECAR))
    path = folder / "sub-01_desc-denoised_pet.nii.gz"
    save_volume(Volume(suv, np.eye(4), "SUV"), path)
    with pytest.raises(InputError, match=r"this program wrote it in SUV, but pet\.json: Units is 'kBq/mL'; give it a"):
        load_volume(path)
    (folder / "sub-01_desc-denoised_pet.json").write_text(json.dumps({"Units": "g/mL"}))
    np.testing.assert_array_equal(load_volume(path).data, suv)


@pytest.mark.parametrize(("series_time", "noticed"), [("16:20:16", True), ("17:10:00", False), (None, False)])
def test_a_start_that_a_converter_took_from_the_acquisition_is_told_of(tmp_path, suv, series_time, noticed):
    times = {"DecayCorrection": "START", "TimeZero": "17:10:15", "InjectionStart": -2999, "SeriesTime": series_time}
    path = saved(tmp_path / "pet.nii.gz", suv, SIDECAR | {"ScanStart": 0, **times})
    found = [notice for notice in load_volume(path).source["notices"] if "after its SeriesTime" in notice]
    assert len(found) == noticed
    assert all("takes 2999 s after its SeriesTime" in notice and "1.37 times too high" in notice for notice in found)
