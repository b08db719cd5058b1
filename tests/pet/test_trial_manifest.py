import pytest

from guided_diffusion.errors import InputError
from guided_diffusion.image_datasets import find_pairs
from guided_diffusion.pet.trial_manifest import MANIFEST_COLUMNS, file_of, is_trial, read_cases, read_manifest


def test_rows_are_read_in_order_and_cut_ones_end_with_nothing(tmp_path):
    assert not is_trial(tmp_path)
    (tmp_path / "manifest.csv").write_text("a,b,pair\n1,2,3\n4\n")
    assert is_trial(tmp_path)
    assert read_manifest(tmp_path, ("a", "pair")) == [
        {"a": "1", "b": "2", "pair": "3"},
        {"a": "4", "b": "", "pair": ""},
    ]
    with pytest.raises(InputError, match=r"manifest\.csv: no column 'd'; is it the manifest of"):
        read_manifest(tmp_path, ("a", "d"))


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_what_a_spreadsheet_saved_is_read(tmp_path, separator):
    """With a byte order mark, blanks, Windows' line ends and an empty row."""
    lines = [["a", "pair "], [" 1", "2"], ["", ""]]
    text = "\r\n".join(separator.join(line) for line in lines)
    (tmp_path / "manifest.csv").write_text(text, encoding="utf-8-sig", newline="")
    assert is_trial(tmp_path)
    assert read_manifest(tmp_path, ("a", "pair")) == [{"a": "1", "pair": "2"}]
    (tmp_path / "manifest.csv").write_text(separator.join(['"a"', '"pair"']) + "\n")
    assert is_trial(tmp_path)


@pytest.mark.parametrize(
    "heading",
    [
        "Series UID,Collection,Subject ID",
        "file;size",
        "filename",
        "subject,tracer,scanner,file",
        "subject,dose,split,low_dose,normal_dose",
    ],
)
def test_a_table_of_others_under_that_name_is_no_trial(tmp_path, heading):
    (tmp_path / "manifest.csv").write_text(f"{heading}\n1,2,3\n")
    assert not is_trial(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"x", "subject\tpair\n".encode("utf-16")])
def test_a_damaged_manifest_is_a_trial_s_beside_its_settings(tmp_path, content):
    (tmp_path / "manifest.csv").write_bytes(content)
    assert not is_trial(tmp_path)
    (tmp_path / "trial.json").write_text("{}")
    assert is_trial(tmp_path)
    with pytest.raises(InputError, match=r"manifest\.csv: .*is it the manifest of scripts/simulate\.py"):
        read_cases(tmp_path)


@pytest.mark.parametrize("content", [b"\xff\xfea\x00,\x00b\x00", b'a,"' + b"x" * 200_000])
def test_what_is_no_table_is_a_mistake_of_the_file(tmp_path, content):
    """As Excel saves "Unicode text", and a quote that never ends."""
    (tmp_path / "manifest.csv").write_bytes(content)
    with pytest.raises(InputError, match=r"manifest\.csv: is no table in UTF-8"):
        read_manifest(tmp_path)


def test_a_row_that_was_cut_off_is_a_mistake_of_the_file(tmp_path):
    (tmp_path / "manifest.csv").write_text(",".join(MANIFEST_COLUMNS) + "\nsub-0000,7,fdg,mct,0.05,train\n")
    with pytest.raises(InputError, match=r"manifest\.csv: voxel_mm '' is not a number"):
        find_pairs(tmp_path, "train", (3.3,) * 3)
    with pytest.raises(InputError, match=r"manifest\.csv: the low dose '' is not there"):
        read_cases(tmp_path)


@pytest.mark.parametrize("cell", ["a\0b", "x" * 5000])
def test_a_cell_that_names_no_file_is_refused_shortened(tmp_path, cell):
    with pytest.raises(InputError, match=r"manifest\.csv: the pair '[ax?b.]+' is no") as refusal:
        file_of(tmp_path, {"pair": cell}, "pair")
    assert len(str(refusal.value)) < 200 + len(str(tmp_path))


def trial_of_one_case(folder, dose):
    """A manifest with semicolons, as spreadsheets save it where commas are decimal points, and empty files."""
    files = ("pair.npz", "low.nii.gz", "normal.nii.gz", "truth.nii.gz", "labels.nii.gz")
    for name in files:
        (folder / name).touch()
    row = ["s", "1", "fdg", "mct", dose, "test", "5", *files]
    (folder / "manifest.csv").write_text(";".join(MANIFEST_COLUMNS) + "\n" + ";".join(row) + "\n")


@pytest.mark.parametrize(("text", "dose"), [("0.05", 0.05), ("0,05", 0.05), ("1/20", 0.05), ("1", 1)])
def test_the_dose_of_a_case_is_read_as_that_of_a_pair(tmp_path, text, dose):
    trial_of_one_case(tmp_path, text)
    (case,) = read_cases(tmp_path)
    assert case.dose == pytest.approx(dose)


@pytest.mark.parametrize("text", ["20", "0", "-0.05", "5%", ""])
def test_a_dose_that_is_no_fraction_of_the_normal_dose_is_refused(tmp_path, text):
    trial_of_one_case(tmp_path, text)
    with pytest.raises(InputError, match=rf"manifest\.csv: dose '{text}' is no number above 0 to 1, such as 0\.05"):
        read_cases(tmp_path)


def test_a_trial_of_pairs_alone_says_how_to_get_scans(tmp_path):
    """As `--scanners random` writes it unless the scanner's own images are kept."""
    row = dict.fromkeys(MANIFEST_COLUMNS, "") | {"subject": "sub-0000", "dose": "0.05", "pair": "pairs/a.npz"}
    (tmp_path / "manifest.csv").write_text(f"{','.join(row)}\n{','.join(row.values())}\n")
    with pytest.raises(
        InputError, match=r"manifest\.csv: .* pairs for training only, .* simulate one with --native Tr"
    ):
        read_cases(tmp_path)
