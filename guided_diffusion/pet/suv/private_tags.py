"""Vendors' private elements, found in whichever block of their group the vendor's name reserves.

A file that several programs wrote to may have them in another block than the first. Where no name is left in a group,
as after some de-identification, the first block is taken.
"""

from dataclasses import dataclass

from pydicom import Dataset

from guided_diffusion.pet.formats import dicom_tags as tags

# PS3.5, 7.8.1, allows 240 blocks in a group.
FIRST_BLOCK, LAST_BLOCK = 0x10, 0x1F


@dataclass(frozen=True)
class PrivateElement:
    """An element of a vendor's block; creator: how the name of the block begins, in capitals."""

    group: int
    element: int
    creator: str

    def in_block(self, block: int) -> tuple[int, int]:
        return self.group, block * 0x100 + self.element

    @property
    def usual_tag(self) -> tuple[int, int]:
        return self.in_block(FIRST_BLOCK)


PHILIPS_SUV_FACTOR = PrivateElement(0x7053, 0x00, "PHILIPS PET")
PHILIPS_BQML_FACTOR = PrivateElement(0x7053, 0x09, "PHILIPS PET")
GE_SCAN_DATE_TIME = PrivateElement(0x0009, 0x0D, "GEMS_PETD")
SIEMENS_DECAY_DATE_TIME = PrivateElement(0x0071, 0x22, "SIEMENS MED PT")
_ALL = (PHILIPS_SUV_FACTOR, PHILIPS_BQML_FACTOR, GE_SCAN_DATE_TIME, SIEMENS_DECAY_DATE_TIME)
# What reading a header needs to find them.
PRIVATE_TAGS = sorted(
    {
        tag
        for private in _ALL
        for block in range(FIRST_BLOCK, LAST_BLOCK + 1)
        for tag in ((private.group, block), private.in_block(block))
    }
)


def tag_of(dataset: Dataset, private: PrivateElement) -> tuple[int, int] | None:
    """The tag under which a data set has a vendor's element; None where only other vendors have blocks there."""
    creators = {
        block: creator.upper()
        for block in range(FIRST_BLOCK, LAST_BLOCK + 1)
        if (creator := tags.text(dataset, (private.group, block))) is not None
    }
    if not creators:
        return private.usual_tag
    return next((private.in_block(block) for block, name in creators.items() if name.startswith(private.creator)), None)


def text(dataset: Dataset, private: PrivateElement) -> str | None:
    """The value as text; None where it is missing."""
    tag = tag_of(dataset, private)
    return None if tag is None else tags.text(dataset, tag)


def number(dataset: Dataset, private: PrivateElement) -> float | None:
    """The value as a finite float; None where it is missing or no number."""
    tag = tag_of(dataset, private)
    return None if tag is None else tags.number(dataset, tag)
