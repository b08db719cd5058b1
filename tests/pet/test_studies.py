"""Which DICOM folders belong to one study, damaged files among them."""

import numpy as np
import pydicom

from guided_diffusion.pet.studies import are_one_study, study_of
from tests.dicom_series import BROKEN_OFF, write_series

STORED = np.ones((4, 5, 3), np.int16)


def test_folders_of_one_study_are_told_from_others(tmp_path):
    write_series(tmp_path / "PT", STORED)
    write_series(tmp_path / "CT", STORED)
    assert are_one_study([tmp_path / "PT", tmp_path / "CT"])
    for path in write_series(tmp_path / "other", STORED):
        dataset = pydicom.dcmread(path)
        dataset.StudyInstanceUID = "1.2.3"
        dataset.save_as(path)
    assert study_of(tmp_path / "other") == "1.2.3"
    assert not are_one_study([tmp_path / "PT", tmp_path / "other"])
    (tmp_path / "empty").mkdir()
    assert study_of(tmp_path / "empty") is None
    assert not are_one_study([tmp_path / "empty"])


def test_damaged_files_are_passed_over(tmp_path):
    """Reading the series names them; here they would end the run with a traceback."""
    write_series(tmp_path / "s", STORED)
    expected = study_of(tmp_path / "s")
    (tmp_path / "s" / "0000.dcm").write_bytes(BROKEN_OFF)
    assert study_of(tmp_path / "s") == expected
