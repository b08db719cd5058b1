"""Archives among subjects: what may hold a scan is refused by name, the rest is left out."""

import tarfile
import zipfile

import numpy as np
import pytest

from guided_diffusion.errors import InputError
from guided_diffusion.pet.contents import contents_of
from guided_diffusion.pet.volume import load_volume
from tests.dicom_series import write_series
from tests.sidecars import saved


def zipped(path, *files, text="notes"):
    with zipfile.ZipFile(path, "w") as archive:
        for file in files:
            archive.write(file, f"deep/{file.name}")
        archive.writestr("readme.txt", text)
    return path


def encrypted(path, *files):
    """A zip whose members say that they are encrypted, in their own headers and in the table of contents."""
    content = bytearray(zipped(path, *files).read_bytes())
    for signature, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        start = content.find(signature)
        while start >= 0:
            content[start + flags] |= 1
            start = content.find(signature, start + 4)
    path.write_bytes(content)


def test_packed_scans_among_subjects_are_refused_by_name(tmp_path, suv):
    subjects = tmp_path / "subjects"
    subjects.mkdir()
    slices = write_series(tmp_path / "PT", (suv * 1000).astype(np.int16))
    volume = saved(subjects / "p1.nii.gz", suv)
    encrypted(subjects / "p2.zip", *slices)
    for name, mode in (("p3.tar.gz", "w:gz"), ("p4.TGZ", "w:gz"), ("p5.tar", "w"), ("masks.tar", "w")):
        with tarfile.open(subjects / name, mode) as archive:
            archive.add(tmp_path / "PT", "PT")
    zipped(subjects / "p6.zip", volume)
    (subjects / "p7.7z").write_bytes(b"7z\xbc\xaf'\x1c")
    zipped(subjects / "p8.zip", *slices)
    zipped(subjects / "notes.zip")
    found = contents_of(subjects)
    names = [scan.name for scan in found.scans]
    assert names == ["p1.nii.gz", "p2.zip", "p3.tar.gz", "p4.TGZ", "p5.tar", "p6.zip", "p7.7z", "p8.zip"]
    assert found.notices == ("left out (by its name a mask): masks.tar", "left out (no DICOM in the zip): notes.zip")
    for name in names[1:-1]:
        with pytest.raises(InputError, match=f"/{name}: is an archive that is not opened; unpack it first"):
            load_volume(subjects / name)
    assert load_volume(subjects / "p8.zip").data.shape == suv.shape
