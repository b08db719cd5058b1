"""Choice of the slices of one PET series among the DICOM images found."""

import hashlib
from collections.abc import Sequence

from pydicom import Dataset
from pydicom.datadict import tag_for_keyword

from guided_diffusion.errors import InputError
from guided_diffusion.pet.damage import damage_as
from guided_diffusion.pet.formats import dicom_tags as tags
from guided_diffusion.pet.formats import folder_walk
from guided_diffusion.pet.formats.dicom_files import DicomFile, Slices
from guided_diffusion.pet.formats.folder_walk import LeftOut
from guided_diffusion.pet.formats.series_checks import check_one_patient, images_only, is_of_pet, is_pet_image
from guided_diffusion.pet.formats.stored_values import slice_values
from guided_diffusion.pet.text import printable

PROGRAM = "PET-3D-DDPM"
SHOWN_SERIES = 6
# Words of ImageType for images that workstations make of a series: projections, and slices in other directions.
MADE_OF_SERIES = {"MIP", "PROJECTION IMAGE", "MPR", "REFORMATTED"}

# Archives that store a slice twice give the second one a name or a number of its own.
NAMES_OF_COPIES = {tag_for_keyword("SOPInstanceUID"), tag_for_keyword("InstanceNumber")}

Member = tuple[DicomFile, Dataset]
Group = list[Member]


def choose_series(found: Slices, path: str, series: str | None) -> tuple[Group, list[str]]:
    """The slices of the one PET series, or of that with the SeriesInstanceUID or SeriesNumber `series`.

    Of several the only one of PET images counts, the only one with attenuation correction, and the only one that is no
    projection or reformat of another; one that this program derived does not. A line for all else that was found says
    why it is left out.

    Raises:
        InputError: there is no PET series, or several; or `series` fits none or several; or slices are missing.
    """
    if not found.headers:
        raise InputError(f"{path}: no DICOM files in it; give the folder or .zip of a PET series")
    groups: dict[str, Group] = {}
    for file, header in found.headers:
        groups.setdefault(str(header.SeriesInstanceUID), []).append((file, header))
    left_out = list(found.left_out)
    notices: list[str] = []
    images: dict[str, Group] = {}
    for uid, group in groups.items():
        kept, others = images_only([header for _, header in group], [file.name for file, _ in group])
        images[uid] = [group[k] for k in kept]
        notices += others
    chosen = _of_number_or_uid(images, path, series) if series is not None else _only_pet(images, path)
    header = chosen[0][1]
    if not is_of_pet(header):
        raise InputError(f"{path}: {tags.state(header, 'Modality')}, not PT; give a PET series")
    taken = {file.name for file, _ in chosen}
    for group in images.values():
        if group[0][0].name not in taken:
            left_out.append(LeftOut(_described(group), "another series"))
    check_one_patient([header for _, header in chosen], [file.name for file, _ in chosen])
    chosen = _without_copies(chosen, left_out)
    _check_complete(chosen, path)
    return chosen, [*notices, *folder_walk.notices(left_out, path)]


def _only_pet(images: dict[str, Group], path: str) -> Group:
    pet = [group for group in images.values() if is_of_pet(group[0][1])]
    if not pet:
        return next(iter(images.values()))
    for keeps in (is_pet_image, _is_original, _is_attenuation_corrected, _is_as_reconstructed):
        kept = [group for group in pet if keeps(group[0][1])]
        pet = kept if len(pet) > 1 and kept else pet
    if len(pet) == 1:
        return pet[0]
    if all(len(group) == 1 for group in pet):
        raise InputError(f"{path}: {_every_slice_its_own(pet)}")
    raise InputError(f"{path}: holds {len(pet)} PET series; choose one with --series; {_listing(images)}")


def _every_slice_its_own(pet: list[Group]) -> str:
    missing = any(not tags.text(group[0][1], "SeriesNumber") for group in pet)
    numbers = sorted({tags.shown(group[0][1], "SeriesNumber") for group in pet})
    uid = tags.name_tag("SeriesInstanceUID")
    what = f"each of {len(pet)} PET slices has a {uid} of its own, as some anonymisers leave them"
    if missing:
        number = tags.name_tag("SeriesNumber")
        return f"{what}, and no {number} tells which belong together; give the slices of a series one UID"
    return f"{what}; --series with the SeriesNumber takes them together: {printable(', '.join(numbers))}"


def _of_number_or_uid(images: dict[str, Group], path: str, series: str) -> Group:
    chosen = [g for uid, g in images.items() if series in (uid, tags.text(g[0][1], "SeriesNumber"))]
    if len(chosen) > 1 and all(len(group) == 1 for group in chosen):
        return [member for group in chosen for member in group]
    if len(chosen) != 1:
        raise InputError(f"{path}: --series {printable(series)} fits {len(chosen)} series; {_listing(images)}")
    return chosen[0]


def _is_original(header: Dataset) -> bool:
    return not (tags.text(header, "DerivationDescription") or "").startswith(f"Denoised by {PROGRAM}")


def _is_as_reconstructed(header: Dataset) -> bool:
    return not MADE_OF_SERIES.intersection(tags.codes(header, "ImageType"))


def _is_attenuation_corrected(header: Dataset) -> bool:
    return "ATTN" in tags.codes(header, "CorrectedImage")


def _without_copies(chosen: Group, left_out: list[LeftOut]) -> Group:
    """Each image once. Copies have the same values and header, but for what a copy may be called."""
    alike: dict[tuple[tuple[int, str], ...], Group] = {}
    for member in chosen:
        alike.setdefault(_as_texts(member[1]), []).append(member)
    firsts = {id(member) for group in alike.values() for member in _different(group)}
    left_out += [LeftOut(m[0].name, "a copy of a slice that is taken") for m in chosen if id(m) not in firsts]
    return [member for member in chosen if id(member) in firsts]


def _as_texts(header: Dataset) -> tuple[tuple[int, str], ...]:
    """The tags of a header and their values as texts, without those in which copies differ."""
    return tuple((tag, str(header[tag].value)) for tag in sorted(header.keys() - NAMES_OF_COPIES))


def _different(group: Group) -> Group:
    """Of images with one header those that differ in their values, the first of each kind."""
    if len(group) == 1:
        return group
    return list({_digest(member[0]): member for member in reversed(group)}.values())


def _digest(file: DicomFile) -> bytes:
    """Of a slice's values, which a copy in another transfer syntax shares and a recalibrated one does not."""
    with damage_as(f"{file.name}: is damaged; copy it again"):
        dataset = file.read()
    return hashlib.sha256(slice_values(dataset, file.name).tobytes()).digest()


def _check_complete(chosen: Group, path: str) -> None:
    """Refuses a static series with fewer slices than it says, than the least of what its slices say.

    (A dynamic one says how many each frame has.)
    """
    stated = {tags.number(header, "NumberOfSlices") for _, header in chosen} - {None}
    if stated and len(chosen) < min(stated):
        raise InputError(
            f"{path}: holds {len(chosen)} slices, but {tags.name_tag('NumberOfSlices')} is {min(stated):g}:"
            " slices are missing, at an end perhaps; copy the series again"
        )


def _listing(images: dict[str, Group]) -> str:
    """One line that distinguishes the series. Descriptions are left out: people write names into them."""
    lines = [_described(group) for _, group in sorted(images.items())]
    more = f"; and {len(lines) - SHOWN_SERIES} more" if len(lines) > SHOWN_SERIES else ""
    return "series here: " + "; ".join(lines[:SHOWN_SERIES]) + more


def _described(group: Sequence[Member]) -> str:
    header = group[0][1]
    number, modality, uid = (tags.shown(header, key) for key in ("SeriesNumber", "Modality", "SeriesInstanceUID"))
    return f"number {number} ({modality}, {len(group)} slices, UID {uid})"
