"""Permutes and flips the axes of a volume to given directions, without interpolating."""

from dataclasses import replace

from nibabel.orientations import (
    aff2axcodes,
    apply_orientation,
    axcodes2ornt,
    inv_ornt_aff,
    io_orientation,
    ornt_transform,
)

from guided_diffusion.pet.grid import DEFAULT_AXIS_CODES, Volume


def turned(volume: Volume, axis_codes: str = DEFAULT_AXIS_CODES) -> Volume:
    """The same voxels with axes permuted and flipped to the directions nearest to `axis_codes`; places in mm stay."""
    turn = ornt_transform(io_orientation(volume.affine), axcodes2ornt(axis_codes))
    affine = volume.affine @ inv_ornt_aff(turn, volume.data.shape)
    return replace(volume, data=apply_orientation(volume.data, turn), affine=affine)


def turned_like(volume: Volume, other: Volume) -> Volume:
    """The same voxels with axes in the directions of another volume's: software stores one image in several orders."""
    return turned(volume, "".join(aff2axcodes(other.affine)))
