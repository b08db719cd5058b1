"""Volumes in a folder that are no PET image to denoise, by their names, their folders or what they hold.

Masks, CT, MR, maps of attenuation, projections, images without attenuation correction, and a second copy of a scan.
"""

import json
import re
from pathlib import Path

from guided_diffusion.errors import InputError
from guided_diffusion.gate import open_regular
from guided_diffusion.pet.formats import nifti

MASK_WORDS = {
    "seg", "segs", "segmentation", "segmentations", "mask", "masks", "label", "labels", "labelstr", "labelsts",
    "labelmap", "dseg", "probseg", "roi", "rois", "gtv", "contour", "contours",
}  # fmt: skip
OTHER_WORDS = {
    "ct", "ctac", "ctres", "ldct", "mr", "mri", "mrac", "t1w", "t2w", "flair", "bold", "dwi",
    "mprage", "anat", "func", "fmap", "perf", "uncertainty",
}  # fmt: skip
# Those of MR that are also names, or points in time of PET scans: they say something beside a PET image alone.
OTHER_WORDS_BESIDE_PET = {"t1", "t2", "dixon", "adc"}
# Those of how attenuation was corrected, of PET images too, and a title.
OTHER_WORDS_OF_PET_TOO = {"ctac", "mrac", "mr"}
# They turn a word for a mask into its contrary, as in `no_mask_pet`.
DENYING_WORDS = {"no", "without"}
MAP_WORDS = {"umap", "mumap", "attmap"}
MAP_PHRASE = re.compile(r"(?<![a-z])(mu|att(enuation)?)[^a-z0-9]map(?![a-z])")
PROJECTION_WORDS = {"mip", "mips"}
# As BIDS calls reconstructions without attenuation correction, and others.
UNCORRECTED_WORDS = {"nac", "nacstat", "nacdyn", "noac", "nonac"}
NO_PET, A_MASK = "by its name no PET", "by its name a mask"
PET_WORDS = {"pet", "suv", "suvbw", "fdg"}
# Files and folders that BIDS keeps beside the subjects' folders.
BIDS_DESCRIPTION = "dataset_description.json"
BIDS_FOLDERS = {"derivatives", "sourcedata", "code", "phenotype", "stimuli"}
# nnU-Net's description of channels, and the part of a file's name that gives its channel.
NNUNET_DESCRIPTION = "dataset.json"
MAX_DESCRIPTION_BYTES = 2**20
_CHANNEL = re.compile(r"_(\d{4})$")


def why_not_pet(path: Path, stem: str, root: Path) -> str | None:
    """Reason why a volume below `root` is no PET image to denoise; None if there is none.

    stem: the file's name without the suffix of its format. What a name says of its own counts before what its folders
    say, and PET in a name before CT: `pet_ctac` is a PET image with attenuation correction, `pet_umap` none. Of
    folders around an image the nearest alone may call it a mask: those above have names of studies and patients.
    """
    folders = path.relative_to(root).parent.parts
    words, around = _words(stem), set().union(*map(_words, folders))
    nearest = _words(folders[-1]) if folders else set()
    channel = _channel(path, stem, root)
    if words & MASK_WORDS or (nearest & MASK_WORDS and not words & PET_WORDS):
        return A_MASK
    if words & MAP_WORDS or MAP_PHRASE.search(stem.lower()):
        return "by its name a map of attenuation"
    if words & PROJECTION_WORDS:
        return "by its name a projection"
    if words & UNCORRECTED_WORDS or (around & UNCORRECTED_WORDS and "ac" not in words | around):
        return "by its name without attenuation correction"
    if _is_beside_its_suv(path, stem):
        return "beside the scan in SUV"
    if channel is not None:
        return None if _words(channel) & PET_WORDS else "by dataset.json no PET channel"
    if not words & PET_WORDS and (words & OTHER_WORDS or (around & OTHER_WORDS and not around & PET_WORDS)):
        return NO_PET
    if not words & PET_WORDS and words & OTHER_WORDS_BESIDE_PET and _is_beside_pet(path):
        return NO_PET
    return "whole numbers without a scale, as in a mask" if nifti.holds_labels(path) else None


def may_be_pet(path: Path, stem: str, root: Path, reason: str) -> bool:
    """Whether a volume that is no PET image for a reason of `why_not_pet` may be one all the same.

    That is so of words that names of PET images have too, such as `WB_CTAC_Body`, `Mr_Smith` and `no_mask_pet`, where
    nothing else speaks against it.
    """
    if reason not in (NO_PET, A_MASK):
        return False
    words, around = _words(stem), set().union(*map(_words, path.relative_to(root).parent.parts))
    if words & (OTHER_WORDS - OTHER_WORDS_OF_PET_TOO) or around & (OTHER_WORDS | MASK_WORDS):
        return False
    told = words & OTHER_WORDS_OF_PET_TOO if reason == NO_PET else words & PET_WORDS and words & DENYING_WORDS
    return bool(told) and not nifti.holds_labels(path)


def is_beside_subjects(folder: Path, root: Path) -> bool:
    """Whether a folder of a BIDS data set holds no subjects."""
    return folder.parent == root and folder.name in BIDS_FOLDERS and (root / BIDS_DESCRIPTION).is_file()


def _is_beside_its_suv(path: Path, stem: str) -> bool:
    """Whether it is one of the pairs of autoPET: `PET.nii.gz` is in Bq/mL, `SUV.nii.gz` the same scan in SUV."""
    suffix = path.name[len(stem) :]
    return stem.lower() == "pet" and any((path.parent / f"{name}{suffix}").is_file() for name in ("SUV", "suv"))


def _is_beside_pet(path: Path) -> bool:
    """Whether another file of the folder has PET in its name."""
    return any(_words(other.name) & PET_WORDS for other in path.parent.iterdir() if other != path)


def _words(name: str) -> set[str]:
    return set(re.split(r"[^a-z0-9]+", name.lower()))


def _channel(path: Path, stem: str, root: Path) -> str | None:
    """The name of a file's channel in a data set of nnU-Net, by the nearest description; None where none says."""
    match = _CHANNEL.search(stem)
    if match is None:
        return None
    for folder in path.parents:
        description = folder / NNUNET_DESCRIPTION
        if description.is_file():
            names = _channel_names(description)
            return names.get(str(int(match.group(1))))
        if folder == root:
            return None
    return None


def _channel_names(description: Path) -> dict[str, str]:
    try:
        with open_regular(description) as file:
            content = json.loads(file.read(MAX_DESCRIPTION_BYTES))
        named = content.get("channel_names") or content.get("modality") or {}
        return {str(number): str(name) for number, name in named.items()}
    except (InputError, ValueError, AttributeError, RecursionError):
        return {}
