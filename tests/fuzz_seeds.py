"""Whole small files of every kind that is read, and the readers: what `tests.fuzz` damages and how it is read."""

import json
import os
import signal
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import scipy.io
import torch
from pydicom import dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from guided_diffusion.checkpoints import load_checkpoint, read_plain, save_checkpoint, save_plain
from guided_diffusion.errors import InputError
from guided_diffusion.image_datasets import open_pair
from guided_diffusion.inference.loading import load_model
from guided_diffusion.inference.resume import FinishedPatches
from guided_diffusion.inference.subjects import Subject
from guided_diffusion.pet.contents import contents_of
from guided_diffusion.pet.trial_manifest import MANIFEST, MANIFEST_COLUMNS, read_manifest
from guided_diffusion.pet.volume import load_volume
from guided_diffusion.script_util import create_model
from tests.denoising import SMALL_HEADER
from tests.dicom_series import write_series
from tests.golden_weights import fill
from tests.multi_frame_objects import enhanced, legacy_converted

KEY = "ab" * 32
SHAPE = (5, 6, 7)


@dataclass(frozen=True)
class Seed:
    """A file to damage, what is then loaded (itself, or the folder it lies in), and by which of READERS."""

    name: str
    path: Path
    loaded: Path
    reader: str


def make_seeds(folder: Path) -> list[Seed]:
    """One file of each kind, each in a folder of its own. Every one of them is read without a complaint."""
    seeds = []
    for name, (write, reader) in KINDS.items():
        (folder / name).mkdir(parents=True)
        path = write(folder / name)
        in_series = path.suffix == ".dcm" or reader in ("trial", "run", "kept", "study")
        seeds.append(Seed(name, path, path.parent if in_series else path, reader))
    for one in seeds:
        READERS[one.reader](str(one.loaded))
    return seeds


def voxels() -> np.ndarray:
    """SUV [X, Y, Z] with uptake as in a body."""
    return np.random.default_rng(0).gamma(2.0, 1.0, SHAPE).astype(np.float32)


def _npz(folder: Path) -> Path:
    np.savez(folder / "v.npz", arr_0=voxels(), affine=np.diag([-2.0, 2, 2, 1]), unit=np.array("SUV"))
    return folder / "v.npz"


def _packed_npz(folder: Path) -> Path:
    np.savez_compressed(folder / "v.npz", arr_0=voxels())
    return folder / "v.npz"


def _pair(folder: Path) -> Path:
    np.savez(folder / "v.npz", arr_0=np.stack([voxels(), voxels()]))
    return folder / "v.npz"


def _mat(compression: bool) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        scipy.io.savemat(folder / "v.mat", {"a": "text", "suv": voxels()}, do_compression=compression)
        return folder / "v.mat"

    return write


def _hdf5(folder: Path) -> Path:
    with h5py.File(folder / "v.mat", "w", userblock_size=512) as file:
        file.create_dataset("suv", data=voxels().T, chunks=(2, 3, 4), compression="gzip", fletcher32=True)
    return folder / "v.mat"


def _image(kind: type, name: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        image = kind(voxels(), np.diag([-2.0, 2, 2, 1]))
        if kind is nib.Nifti1Image:
            image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"made by a test"))
        nib.save(image, folder / name)
        return folder / name

    return write


def _minc(folder: Path) -> Path:
    with scipy.io.netcdf_file(folder / "v.mnc", "w") as file:
        for name, size in zip(("zspace", "yspace", "xspace"), SHAPE[::-1], strict=True):
            file.createDimension(name, size)
            axis = file.createVariable(name, "d", ())
            axis.step, axis.start, axis.spacing = 2.0, 0.0, b"regular__"
        image = file.createVariable("image", "f", ("zspace", "yspace", "xspace"))
        image[:] = voxels().T
        image.signtype, image.valid_range = b"signed__", np.array([0.0, 20.0])
        for name in ("image-min", "image-max"):
            file.createVariable(name, "d", ())[...] = 0.0 if name == "image-min" else 20.0
    return folder / "v.mnc"


def _dicom(**options: object) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        stored = (voxels()[..., :3] * 2000).astype(np.int16)
        return write_series(folder, stored, **options)[1]

    return write


def _rle(folder: Path) -> Path:
    path = _dicom()(folder)
    for slice_ in sorted(folder.iterdir()):
        dataset = dcmread(slice_)
        dataset.compress(RLELossless, generate_instance_uid=False)
        dataset.save_as(slice_)
    return path


def _multi_frame(write: Callable[[Path, list[Path]], object]) -> Callable[[Path], Path]:
    def write_object(folder: Path) -> Path:
        with tempfile.TemporaryDirectory() as slices:
            _dicom()(Path(slices))
            write(folder / "whole.dcm", sorted(Path(slices).iterdir()))
        return folder / "whole.dcm"

    return write_object


def _zip(folder: Path) -> Path:
    path = _dicom()(folder / "s")
    with zipfile.ZipFile(folder / "s.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for slice_ in sorted(path.parent.iterdir()):
            archive.write(slice_, slice_.name)
    return folder / "s.zip"


def _weights(folder: Path) -> Path:
    model = fill(create_model(SMALL_HEADER.model, SMALL_HEADER.diffusion))
    save_checkpoint(folder / "m.pt", model.state_dict(), SMALL_HEADER)
    return folder / "m.pt"


def _header(folder: Path) -> Path:
    _weights(folder)
    (folder / "header.json").write_text(json.dumps(SMALL_HEADER.as_dict()))
    return folder / "header.json"


def _few_weights(folder: Path) -> Path:
    save_checkpoint(folder / "m.pt", {"a.weight": torch.ones(3, 2), "b": torch.ones(2)}, SMALL_HEADER)
    return folder / "m.pt"


def _old_weights(folder: Path) -> Path:
    state = {"a.weight": torch.ones(3, 2), "b": torch.ones(2)}
    torch.save(state, folder / "m.pt", _use_new_zipfile_serialization=False)
    return folder / "m.pt"


def _kept(folder: Path) -> Path:
    kept = FinishedPatches.of_run(folder, KEY).with_patches_of(7)
    kept.save(0, voxels()[None])
    return next(folder.rglob("*.kept")).rename(folder / "batch.kept")


def _run(folder: Path) -> Path:
    content = {"key": KEY, "files": ["a.npz"], "sha256": {"a.npz": "0" * 64}, "more": {"x": [1, 2.5, None, "text"]}}
    (folder / "run.json").write_text(json.dumps(content, indent=2))
    return folder / "run.json"


def _trial(folder: Path) -> Path:
    (folder / MANIFEST).write_text(",".join(MANIFEST_COLUMNS) + "\n" + ",".join("abcdefghijkl") + "\n")
    return folder / MANIFEST


KINDS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "npz": (_npz, "volume"),
    "npz, packed": (_packed_npz, "volume"),
    "pair": (_pair, "pair"),
    "mat 5": (_mat(False), "volume"),
    "mat 5, packed": (_mat(True), "volume"),
    "mat 7.3": (_hdf5, "volume"),
    "NIfTI-1": (_image(nib.Nifti1Image, "v.nii"), "volume"),
    "NIfTI-1, packed": (_image(nib.Nifti1Image, "v.nii.gz"), "volume"),
    "NIfTI-2": (_image(nib.Nifti2Image, "v.nii"), "volume"),
    "Analyze": (_image(nib.Spm2AnalyzeImage, "v.img"), "volume"),
    "Analyze, header": (lambda folder: _image(nib.Spm2AnalyzeImage, "v.img")(folder).with_suffix(".hdr"), "volume"),
    "SPM matrix": (lambda folder: _image(nib.Spm2AnalyzeImage, "v.img")(folder).with_suffix(".mat"), "beside"),
    "MGH": (_image(nib.MGHImage, "v.mgh"), "volume"),
    "MGH, packed": (_image(nib.MGHImage, "v.mgz"), "volume"),
    "MINC": (_minc, "volume"),
    "DICOM": (_dicom(), "volume"),
    "DICOM, implicit": (_dicom(syntax=ImplicitVRLittleEndian), "volume"),
    "DICOM, deflated": (_dicom(syntax=DeflatedExplicitVRLittleEndian), "volume"),
    "DICOM, RLE": (_rle, "volume"),
    "DICOM, enhanced": (_multi_frame(enhanced), "volume"),
    "DICOM, converted": (_multi_frame(legacy_converted), "volume"),
    "DICOM, study": (_dicom(), "study"),
    "DICOM in a zip": (_zip, "volume"),
    "checkpoint": (_few_weights, "weights"),
    "checkpoint, older format": (_old_weights, "weights"),
    "checkpoint of a network": (_weights, "network"),
    "checkpoint, header": (_header, "header"),
    "training set": (_few_weights, "plain"),
    "kept patch": (_kept, "kept"),
    "run.json": (_run, "run"),
    "trial": (_trial, "trial"),
}


def _read_volume(path: str) -> int:
    return load_volume(path).data.nbytes


def _read_pair(path: str) -> int:
    return open_pair(path).nbytes


def _read_weights(path: str) -> int:
    return sum(value.nbytes for value in load_checkpoint(path).state_dict.values())


def _read_network(path: str) -> int:
    load_model(path)
    return Path(path).stat().st_size


def _read_header(path: str) -> int:
    """The weights that lie beside a header, with it."""
    try:
        header = json.loads(Path(path).read_bytes())
    except ValueError:
        raise InputError("no JSON") from None
    weights = read_plain(str(Path(path).with_name("m.pt")))
    save_plain(Path(path).with_name("both.pt"), weights | {"header": header})
    return _read_network(str(Path(path).with_name("both.pt")))


def _read_plain(path: str) -> int:
    read_plain(path)
    return 0


def _read_kept(folder: str) -> int:
    kept = FinishedPatches.of_run(Path(folder), KEY).with_patches_of(7)
    place = kept._path(0)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes((Path(folder) / "batch.kept").read_bytes())
    if not kept.has(0):
        raise InputError("damaged")
    return kept.load(0).nbytes


def _read_run(folder: str) -> int:
    return int(Subject("scan", Path(folder)).is_finished(KEY))


def _read_trial(folder: str) -> int:
    return len(read_manifest(Path(folder)))


def _allocate(_path: str) -> int:
    return 0 * len(np.ones(2**25))


# Readers as none may be, by which a test knows that the fuzzer would notice.
BAD_READERS: dict[str, Callable[[str], int]] = {
    "raises": lambda path: [][len(path)],
    "dies": lambda _path: os.kill(os.getpid(), signal.SIGSEGV) or 0,
    "waits": lambda _path: time.sleep(3600) or 0,
    "allocates": _allocate,
    "speaks in lines": lambda path: _refuse(path),
}


def _refuse(path: str) -> int:
    error = InputError("x")
    error.args = (f"{path}\n",)
    raise error


READERS: dict[str, Callable[[str], int]] = {
    "volume": _read_volume,
    "beside": lambda path: _read_volume(str(Path(path).with_suffix(".img"))),
    "pair": _read_pair,
    "weights": _read_weights,
    "network": _read_network,
    "header": _read_header,
    "plain": _read_plain,
    "study": lambda path: len(contents_of(Path(path)).scans),
    "kept": _read_kept,
    "run": _read_run,
    "trial": _read_trial,
    **BAD_READERS,
}
