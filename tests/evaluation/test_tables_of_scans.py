"""Tables about a user's own scans (--subjects): who, at which dose, and which normal dose belongs to each."""

import pytest

from evaluation.compared_scans import UserFolders, scans_of_folders
from guided_diffusion.errors import InputError
from tests.own_scans import images_of_two, save_nifti


@pytest.fixture
def images():
    return images_of_two()


def test_a_table_says_who_and_at_which_dose(images, tmp_path):
    own = images["anna"]
    for tag in ("d20", "d4"):
        save_nifti(tmp_path / "low" / f"anna_{tag}.nii.gz", own["low"])
    save_nifti(tmp_path / "low" / "bert_d4.nii.gz", images["bert"]["low"])
    for name in ("anna", "anna_d4", "bert"):  # what the table states goes before the scan's own name
        save_nifti(tmp_path / "normal" / f"{name}.nii.gz", images[name[:4]]["normal"])
    table = tmp_path / "about.csv"
    table.write_text(
        "scan,subject,tracer,dose,normal_dose,split\nanna_d20,A,fdg,1/20,anna,\nanna_d4,A,fdg,0.25,anna.nii.gz,test\n"
        "bert_d4,B,fdg,1/4,bert,validation\n"
    )
    compared, tuning, _ = scans_of_folders(UserFolders(tmp_path / "low", tmp_path / "normal", table))
    assert [(scan.subject, scan.tracer, scan.dose, scan.normal_dose.name) for scan in compared] == [
        ("A", "fdg", 0.05, "anna.nii.gz"), ("A", "fdg", 0.25, "anna.nii.gz"),
    ]  # fmt: skip
    assert [scan.subject for scan in tuning] == ["B"]


@pytest.mark.parametrize("stated", ["full", "full.nii.gz"])
def test_a_single_normal_dose_may_be_named_in_the_table_and_must_be_it(images, tmp_path, stated):
    save_nifti(tmp_path / "low.nii.gz", images["anna"]["low"])
    save_nifti(tmp_path / "full.nii.gz", images["anna"]["normal"])
    table = tmp_path / "about.csv"
    table.write_text(f"scan,normal_dose\nlow,{stated}\n")
    ((scan,), _, _) = scans_of_folders(UserFolders(tmp_path / "low.nii.gz", tmp_path / "full.nii.gz", table))
    assert scan.normal_dose == tmp_path / "full.nii.gz"
    table.write_text("scan,normal_dose\nlow,other\n")
    with pytest.raises(InputError, match=r"no normal dose 'other', which .* names for the scan 'low'"):
        scans_of_folders(UserFolders(tmp_path / "low.nii.gz", tmp_path / "full.nii.gz", table))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("subject\nA\n", "no column 'scan'"),
        ("scan\nbert\n", "no row about the scan 'anna'"),
        ("scan,dose\nanna,few\n", "the dose 'few' is no fraction of the normal dose; write 1/20 for a twentieth of it"),
        ("scan,dose\nanna,20\n", "the dose '20' is no fraction"),
        ("scan,dose\nanna,-1/4\n", "the dose '-1/4' is no fraction"),
        ("scan,dose\nanna,0\n", "the dose '0' is no fraction"),
        ("scan\nanna\n", "no normal dose for the scan 'anna'; give it that name"),
        (
            "scan,normal_dose,subject\nanna,carl,bert\n",
            r"no normal dose 'carl', which .*about.csv names for the scan 'anna'; correct its column normal_dose",
        ),
        ("scan,subject,normal_dose,split\nanna,,bert,validation\n", "holds no scan to compare"),
    ],
)
def test_tables_that_cannot_be_used(images, tmp_path, text, message):
    save_nifti(tmp_path / "low" / "anna.nii.gz", images["anna"]["low"])
    save_nifti(tmp_path / "normal" / "bert.nii.gz", images["bert"]["normal"])
    table = tmp_path / "about.csv"
    table.write_text(text)
    with pytest.raises(InputError, match=message):
        scans_of_folders(UserFolders(tmp_path / "low", tmp_path / "normal", table))


@pytest.fixture
def three_scans(images, tmp_path):
    """A folder of three scans."""
    for name in ("anna", "bert", "carl"):
        save_nifti(tmp_path / "low" / f"{name}.nii.gz", images["anna"]["low"])
    return tmp_path / "low"


def test_a_spreadsheet_s_table_is_read_and_other_splits_are_left_out(three_scans, tmp_path):
    """As Excel saves it where numbers have a comma, with a row that is empty."""
    table = tmp_path / "table.csv"
    lines = ["scan; dose ;split", "anna;0,05;", "bert.nii.gz;1/4;Validation", "carl;;train", ";;"]
    table.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    (compared,), (tuning,), notices = scans_of_folders(UserFolders(three_scans, subjects=table))
    assert (compared.name, compared.dose) == ("anna", 0.05)
    assert (tuning.name, tuning.dose) == ("bert", 0.25)
    assert notices == ("left out (split 'train'): carl.nii.gz",)


def test_rows_about_scans_that_are_not_there_are_named(three_scans, tmp_path):
    table = tmp_path / "table.csv"
    table.write_text("scan,dose\nanna,1\nbert,1/4\ncarl,\ndora.nii.gz,1/4\nemil,1/4\n")
    compared, _, notices = scans_of_folders(UserFolders(three_scans, subjects=table))
    assert [scan.dose for scan in compared] == [1, 0.25, None]
    assert notices == (f"left out (a row of {table}, but no such scan): dora, emil",)
    table.write_text("scan\nanna.nii.gz\n")
    assert scans_of_folders(UserFolders(three_scans / "anna.nii.gz", subjects=table))[2] == ()


def test_two_rows_that_contradict_each_other_are_refused(three_scans, tmp_path):
    table = tmp_path / "table.csv"
    table.write_text("scan,dose\nanna,1/4\nbert,1/4\ncarl,1/4\nanna,1/20\n")
    with pytest.raises(InputError, match=r"table\.csv: two rows about the scan 'anna' differ"):
        scans_of_folders(UserFolders(three_scans, subjects=table))


def test_a_subject_whose_scans_are_in_both_splits_is_refused(three_scans, tmp_path):
    """Filters would be tuned on a patient on whom they are compared."""
    table = tmp_path / "table.csv"
    table.write_text("scan,subject,split\nanna,A,\nbert,B,test\ncarl,B,validation\n")
    with pytest.raises(InputError, match=r"table\.csv: the subject 'B' is in the splits test and validation"):
        scans_of_folders(UserFolders(three_scans, subjects=table))
