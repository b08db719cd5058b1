"""A derived DICOM PET series: what was computed, in the headers of the series it was computed from."""

import copy
import hashlib
import io
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pydicom
from pydicom import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    PositronEmissionTomographyImageStorage,
    generate_uid,
)
from pydicom.valuerep import format_number_as_ds

from guided_diffusion.errors import InputError
from guided_diffusion.gate import open_regular
from guided_diffusion.pet.damage import damage_as
from guided_diffusion.pet.formats import dicom_tags as tags
from guided_diffusion.pet.formats.dicom import DicomFile, Series, conversion_of, quiet_pydicom
from guided_diffusion.pet.formats.dicom_choice import PROGRAM
from guided_diffusion.pet.grid import Volume, same_grid
from guided_diffusion.pet.suv import SUVError, SUVOverrides, suv_conversion
from guided_diffusion.pet.suv.drug import drug_of, half_life_s
from guided_diffusion.pet.suv.scan_start import given_start
from guided_diffusion.pet.suv.slice_times import Moment, acquisitions
from guided_diffusion.pet.suv.start_evidence import restate_start
from guided_diffusion.pet.text import printable

SERIES_NUMBER_OFFSET = 1000
LARGEST_STORED = 32767
# Relative: times in headers have microseconds, numbers at least ten digits.
SAME_SUV = 1e-4
# They describe the pixels, or the making, of the original only.
DROPPED = (
    "SmallestImagePixelValue",
    "LargestImagePixelValue",
    "SmallestPixelValueInSeries",
    "LargestPixelValueInSeries",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "FloatPixelPaddingValue",
    "FloatPixelPaddingRangeLimit",
    "DoubleFloatPixelPaddingValue",
    "DoubleFloatPixelPaddingRangeLimit",
    "FloatPixelData",
    "DoubleFloatPixelData",
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
    "InstanceCreationDate",
    "InstanceCreationTime",
    "InstanceCreatorUID",
    "DigitalSignaturesSequence",
    "MACParametersSequence",
    "OriginalAttributesSequence",
    "IconImageSequence",
    "RealWorldValueMappingSequence",  # of the original's stored values: a viewer would prefer it to the new slope
)


def save_dicom_series(
    volume: Volume,
    template: Series,
    out_dir: str | Path,
    *,
    model_description: str,
    overrides: SUVOverrides | None = None,
) -> None:
    """Writes `volume` as a new PET series in the study of `template`, at the places of its slices.

    Same study, frame of reference, geometry, timing, patient and Units; new series and instance UIDs, which depend only
    on the template, the model's description and the voxels. A viewer computes the same SUV as for the original; where
    `overrides` replaced tags for that, the new series carries the replacements.

    Args:
        volume: SUV (body weight) on the grid that `load_volume` gives for the template.
        template: the original series, as a volume that was loaded from it has it.
        out_dir: made anew; a folder with anything but such a series in it is left alone.
        model_description: the model's plain name, e.g. 'demo_ddpm3d.pt'; goes into SeriesDescription and
            DerivationDescription.
        overrides: those with which the volume was loaded.

    Raises:
        InputError: the grids differ, the volume is no SUV, the headers lack what a derived series needs, or the folder
            cannot be written.
    """
    if volume.unit != "SUV":
        raise InputError(f"a DICOM PET series holds SUV by body weight; this volume is in {volume.unit}")
    if not same_grid(volume.data.shape, volume.affine, template.stack.shape, template.stack.affine):
        raise InputError(f"{template.name}: the volume does not lie on the grid of this series")
    check_derivable(template, out_dir, overrides)
    _write_folder(Path(out_dir), lambda folder: _write_slices(folder, volume, template, model_description, overrides))


def check_derivable(template: Series, out_dir: str | Path, overrides: SUVOverrides | None = None) -> None:
    """Refuses, before any work, headers from which no derived series can be written, and a folder that stays.

    Every header is made that of a derived image and encoded, with one voxel in place of the image. The SUV factors that
    a reader finds in these headers must be those of the run.

    Raises:
        InputError: names the slice and what is wrong with its header; or the folder, or what the user gave in place of
            tags that contradicts the rest of the headers.
    """
    _check_replaceable(Path(out_dir))
    way_out = "export the series again, or leave out --write_dicom"
    derived = []
    for file, header in zip(template.files, template.headers, strict=True):
        for keyword in ("SOPClassUID", "SOPInstanceUID"):
            if not tags.text(header, keyword):
                raise InputError(
                    f"{file.name}: {tags.state(header, keyword)}, which a derived series refers to; {way_out}"
                )
        with damage_as(f"{file.name}: its header cannot be written into a derived series; {way_out}"), quiet_pydicom():
            dataset = copy.deepcopy(header)
            _describe(dataset, "2.25.1", "model", overrides)
            _set_pixels(dataset, np.ones((1, 1)))
            pydicom.dcmwrite(io.BytesIO(), dataset, enforce_file_format=True)
        derived.append(dataset)
    _check_same_suv(template, derived, overrides)


def _check_same_suv(original: Series, derived: list[Dataset], overrides: SUVOverrides | None) -> None:
    """Refuses headers of which a reader, who has no overrides, makes other SUV than the run, or none."""
    given = " ".join(f"--{name}" for name in overrides.given()) if overrides else ""
    series = f"{original.name}: a derived series" + (f" with {given}" if given else "")
    way_out = "correct what is given, or leave out --write_dicom" if given else "leave out --write_dicom"
    try:
        factors = suv_conversion(derived, None, [file.name for file in original.files]).factors
    except SUVError as error:
        raise InputError(f"{series} could not be read; {way_out} ({error})") from None
    ratios = np.array(factors) / conversion_of(original, overrides).factors
    ratio = ratios[np.argmax(np.abs(ratios - 1))]
    if abs(ratio - 1) > SAME_SUV:
        raise InputError(
            f"{series} would be read with {ratio:.3f} times the SUV, since other times or values in its headers"
            f" contradict it; {way_out}"
        )


def _write_folder(out_dir: Path, write: Callable[[Path], None]) -> None:
    """Fills a temporary folder, then puts it in the place of `out_dir`."""
    temporary = out_dir.with_name(f".{os.getpid()}-{out_dir.name}")
    try:
        temporary.mkdir(parents=True)
        write(temporary)
        if out_dir.exists():
            shutil.rmtree(out_dir)
        temporary.rename(out_dir)
    except OSError as error:
        raise InputError(f"cannot write {out_dir}: {error.strerror}; choose a folder that can be written") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _check_replaceable(out_dir: Path) -> None:
    if out_dir.exists() and (not out_dir.is_dir() or any(not _is_ours(path) for path in out_dir.iterdir())):
        raise InputError(f"{out_dir}: exists and holds something else; choose a new folder for the DICOM series")


def _is_ours(path: Path) -> bool:
    """Whether a file is a slice that this module wrote, so that a later run may replace it."""
    try:
        with damage_as(f"{path}: is no DICOM file, or damaged"):
            file = DicomFile(str(path), lambda: open_regular(path))
            meta = file.read(stop_before_pixels=True, specific_tags=[]).file_meta
            return meta.get("ImplementationVersionName") == PROGRAM
    except InputError:
        return False


def _write_slices(
    folder: Path, volume: Volume, original: Series, model_description: str, overrides: SUVOverrides | None
) -> None:
    factors = conversion_of(original, overrides).factors
    data = original.stack.to_slices(volume.data)
    model = printable(model_description)
    voxels = hashlib.sha256(np.ascontiguousarray(data)).hexdigest()
    series_uid = generate_uid(entropy_srcs=[str(original.headers[0].SeriesInstanceUID), model, voxels])
    for k, header in enumerate(original.headers):
        dataset = copy.deepcopy(header)
        with quiet_pydicom():
            if "ReferencedFrameNumber" in dataset:
                _complete_frame(dataset, k + 1, len(original.headers))
            _describe(dataset, series_uid, model, overrides)
            _set_pixels(dataset, data[..., k].T / factors[k])
            path = folder / f"{k + 1:05d}.dcm"
            pydicom.dcmwrite(path, dataset, enforce_file_format=True)
        with path.open("rb+") as stream:
            os.fsync(stream.fileno())


def _drop_overlays_in_pixels(dataset: Dataset) -> None:
    """Removes overlays that old headers keep in unused bits of the pixels, which the new pixels use (PS3.3, C.9.2)."""
    for group in range(0x6000, 0x6020, 2):
        if (group, 0x0102) in dataset and dataset[group, 0x0102].value:
            for tag in [tag for tag in dataset.keys() if tag.group == group]:  # noqa: SIM118
                del dataset[tag]


def _complete_frame(dataset: Dataset, index: int, count: int) -> None:
    """Adds what a classic PET slice must say of its series (PS3.3, C.8.9), and a frame does not. index: from 1."""
    required = {
        "SeriesType": ["STATIC", "IMAGE"],
        "CountsSource": "EMISSION",
        "NumberOfSlices": count,
        "ImageIndex": index,
    }
    for keyword, value in required.items():
        if tags.text(dataset, keyword) is None:
            setattr(dataset, keyword, value)


def _describe(dataset: Dataset, series_uid: str, model: str, overrides: SUVOverrides | None) -> None:
    """Makes the header that of a derived image."""
    source = Dataset()
    source.ReferencedSOPClassUID = dataset.SOPClassUID
    source.ReferencedSOPInstanceUID = dataset.SOPInstanceUID
    if "ReferencedFrameNumber" in dataset:  # of a multi-frame object: the derived slice is a classic one
        source.ReferencedFrameNumber = dataset.ReferencedFrameNumber
        del dataset.ReferencedFrameNumber
        dataset.SOPClassUID = PositronEmissionTomographyImageStorage
        dataset.file_meta.MediaStorageSOPClassUID = PositronEmissionTomographyImageStorage
    dataset.SourceImageSequence = Sequence([source])
    # With the place, since some software gives all slices of a series one UID.
    place = tags.texts(dataset, "ImagePositionPatient")
    dataset.SOPInstanceUID = generate_uid(entropy_srcs=[series_uid, str(source.ReferencedSOPInstanceUID), *place])
    dataset.SeriesInstanceUID = series_uid
    dataset.SeriesNumber = int(tags.number(dataset, "SeriesNumber") or 0) + SERIES_NUMBER_OFFSET
    original = tags.text(dataset, "SeriesDescription") or ""
    dataset.SeriesDescription = f"DENOISED ({model}) {original}"[:64].strip()
    given = f" SUV tags given by the user: {', '.join(overrides.given())}." if overrides and overrides.given() else ""
    dataset.DerivationDescription = (
        f"Denoised by {PROGRAM} with the model {model}. Computed, not acquired: this is not the original image."
        f" Values are in the Units of the original.{given}"
    )
    dataset.ImageType = ["DERIVED", "SECONDARY", *tags.texts(dataset, "ImageType")[2:]]
    for keyword in DROPPED:
        if keyword in dataset:
            delattr(dataset, keyword)
    _drop_overlays_in_pixels(dataset)
    _set_overrides(dataset, overrides or SUVOverrides())
    syntax = dataset.file_meta.TransferSyntaxUID
    little = syntax in (ImplicitVRLittleEndian, ExplicitVRLittleEndian)
    # Some gateways write implicit data under a header that says explicit: its elements have no VR.
    unlike = syntax != ImplicitVRLittleEndian and any(element.VR is None for element in dataset.values())
    if unlike or not little:
        dataset.decode()
    if not little:
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.ImplementationClassUID = pydicom.uid.PYDICOM_IMPLEMENTATION_UID
    dataset.file_meta.ImplementationVersionName = PROGRAM


def _set_overrides(dataset: Dataset, overrides: SUVOverrides) -> None:
    if overrides.weight_kg is not None:
        dataset.PatientWeight = format_number_as_ds(float(overrides.weight_kg))
    if tags.code(dataset, "Units") != "BQML" and not overrides.given().keys() - {"weight_kg"}:
        return  # the factor does not follow the injection
    isotope, _ = drug_of([dataset], overrides)
    dataset.RadiopharmaceuticalInformationSequence = Sequence([isotope])
    if overrides.dose_bq is not None:
        isotope.RadionuclideTotalDose = format_number_as_ds(float(overrides.dose_bq))
    if overrides.half_life_s is not None:
        isotope.RadionuclideHalfLife = format_number_as_ds(float(overrides.half_life_s))
    if overrides.scan_start is not None:
        start = given_start([dataset], overrides.scan_start)
        _set_date_and_time(dataset, "Series", start)
        dataset.DecayCorrection = "START"
        _restate_start(dataset, isotope, start, overrides)
    if overrides.injection_time is not None:
        # In the header's zone: a reader takes it so.
        moment = tags.parse_date_time(overrides.injection_time, tags.text(dataset, "TimezoneOffsetFromUTC"))
        if moment is not None:
            isotope.RadiopharmaceuticalStartDateTime = moment.strftime("%Y%m%d%H%M%S.%f")
            isotope.RadiopharmaceuticalStartTime = moment.strftime("%H%M%S.%f")
        else:
            isotope.RadiopharmaceuticalStartTime = overrides.injection_time.replace(":", "")
            if "RadiopharmaceuticalStartDateTime" in isotope:
                del isotope.RadiopharmaceuticalStartDateTime


def _restate_start(dataset: Dataset, isotope: Dataset, start: Moment, overrides: SUVOverrides) -> None:
    """Brings what else tells of the scan's start into line with what the user gave, as far as its times are known.

    A slice that does not say when it was acquired gets the start for that: a reader needs a time, and nothing else in
    its header can then say that the scan began later.
    """
    try:
        (acquired,) = acquisitions([dataset])
    except SUVError:
        _set_date_and_time(dataset, "Acquisition", start)
        return
    with suppress(SUVError):
        restate_start(dataset, start.at, acquired.at, half_life_s(isotope, overrides))


def _set_date_and_time(dataset: Dataset, stem: str, moment: Moment) -> None:
    if moment.dated:
        setattr(dataset, f"{stem}Date", moment.at.strftime("%Y%m%d"))
    setattr(dataset, f"{stem}Time", moment.at.strftime("%H%M%S.%f"))


def _set_pixels(dataset: Dataset, values: np.ndarray) -> None:
    """Stores [row, column] in the header's Units as signed 16 bit, with the slope that uses all of them."""
    slope = max(float(np.abs(values).max()) / LARGEST_STORED, 1e-12)
    text = format_number_as_ds(slope)
    stored = np.clip(np.rint(values / float(text)), -LARGEST_STORED, LARGEST_STORED).astype("<i2")
    dataset.RescaleSlope, dataset.RescaleIntercept = text, "0"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
    dataset.PixelData = stored.tobytes()
    dataset["PixelData"].VR = "OW"
