"""The upright volumes of a report and their views: projections, rotating views, viewer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from nibabel.affines import apply_affine

from guided_diffusion.errors import InputError
from guided_diffusion.pet.grid import Volume, on_one_grid
from guided_diffusion.pet.orientation import turned
from guided_diffusion.report import pictures, projections
from guided_diffusion.report.packing import KNEE, choose_packing

PLANES = ("coronal", "sagittal")


@dataclass(frozen=True, eq=False)
class Image:
    """A volume shown in a report, and its title. is_deviation: it is a standard deviation in SUV, not an image."""

    title: str
    volume: Volume
    is_deviation: bool = False


def upright(images: Sequence[Image]) -> list[Image]:
    """The same with axes towards posterior, left and superior. Raises InputError unless all lie on the first's grid."""
    first = images[0].volume
    for image in images:
        check_same_grid(image.volume, first, image.title)
    return [replace(image, volume=turned(image.volume)) for image in images]


def check_same_grid(volume: Volume, scan: Volume, name: str) -> None:
    """Raises InputError unless a volume lies on the scan's grid."""
    if not on_one_grid(volume, scan):
        raise InputError(f"{name}: lies on another grid than the scan; a report compares voxel by voxel")


def slices_of_head(neck_mm: float, slice_mm: float) -> int:
    """Whole axial slices that hold the uppermost `neck_mm`: rounded up, so that no chin is shown."""
    return int(np.ceil(neck_mm / slice_mm - 1e-6))


def without_head(images: Sequence[Image], neck_mm: float) -> list[Image]:
    """Upright images without the uppermost `neck_mm`, which hold the face.

    Raises InputError if nothing would be left.
    """
    volume = images[0].volume
    slices = slices_of_head(neck_mm, volume.voxel_mm[2])
    length = volume.data.shape[2]
    if not 0 <= slices < length:
        raise InputError(f"--report_neck_mm {neck_mm:g}: the scan is {length * volume.voxel_mm[2]:.0f} mm long")
    kept = slice(0, length - slices)
    return [replace(image, volume=replace(image.volume, data=image.volume.data[:, :, kept])) for image in images]


def projection_rows(images: Sequence[Image], differences: Sequence[tuple[Image, Image]]) -> list[dict[str, Any]]:
    """A row per plane with the projections of all images, and of the difference of each pair (first minus second).

    Every picture says its window, unit and colours; images of the patient share one window, and so do differences.
    """
    voxel_mm = images[0].volume.voxel_mm
    changes = {f"{image.title} minus {base.title}": _extremes(image, base) for image, base in differences}
    flat = [extreme.ravel() for extremes in changes.values() for extreme in extremes]
    top = pictures.round_top(np.concatenate(flat)) if flat else 0.0
    tops = {image.title: _common_top(image.volume.data) for image in images if image.is_deviation}
    rows = []
    for axis, plane in enumerate(PLANES):
        flat = [(image, getattr(projections, plane)(image.volume.data)) for image in images]
        height, width = flat[0][1].shape
        size = (voxel_mm[1 - axis] * width, voxel_mm[2] * height)
        shown = [_patient(image.title, mip, plane, size) for image, mip in flat if not image.is_deviation]
        shown += [
            _deviation(image.title, mip, plane, size, tops[image.title]) for image, mip in flat if image.is_deviation
        ]
        shown += [_difference(title, extremes[axis], plane, size, top) for title, extremes in changes.items()]
        rows.append({"plane": plane, "sides": ("R", "L") if plane == "coronal" else ("A", "P"), "pictures": shown})
    return rows


def _extremes(image: Image, base: Image) -> list[np.ndarray]:
    """The largest changes from one image to another along the lines of sight of each plane."""
    change = image.volume.data - base.volume.data
    return [projections.signed_extreme(change, axis).T[::-1] for axis in range(len(PLANES))]


def _common_top(volume: np.ndarray) -> float:
    """Upper end of the window of a volume's projections in all planes."""
    flat = [getattr(projections, plane)(volume).ravel() for plane in PLANES]
    return pictures.round_top(np.concatenate(flat))


def _patient(title: str, mip: np.ndarray, plane: str, size: tuple[float, float]) -> dict[str, Any]:
    low, high = pictures.SUV_WINDOW
    text = f"{title}: {plane} maximum intensity projection, SUV {low:g} to {high:g} in inverted grey, dark is high"
    return _picture(title, mip, pictures.SUV_WINDOW, pictures.GREY, size, text)


def _deviation(title: str, mip: np.ndarray, plane: str, size: tuple[float, float], top: float) -> dict[str, Any]:
    window = (0.0, top)
    text = f"{title}: {plane} maximum intensity projection, standard deviation of 0 to {window[1]:g} SUV, dark is high"
    return _picture(title, mip, window, pictures.GREY, size, text)


def _difference(title: str, change: np.ndarray, plane: str, size: tuple[float, float], top: float) -> dict[str, Any]:
    text = f"{title}: {plane} projection of the largest change, blue is {top:g} SUV less, red {top:g} SUV more"
    return _picture(title, change, (-top, top), pictures.DIVERGING, size, text)


def _picture(
    title: str, image: np.ndarray, window: tuple[float, float], colours: str, size: tuple[float, float], text: str
) -> dict[str, Any]:
    return {
        "title": title,
        "alt": text,
        "src": pictures.png_address(image, window, colours),
        "bar": pictures.colour_bar(colours),
        "window": window,
        "width_mm": size[0],
        "height_mm": size[1],
    }


def rotation(images: Sequence[Image]) -> dict[str, Any]:
    """Half a turn of views of each image of the patient; the page mirrors them for the other half."""
    voxel_mm = images[0].volume.voxel_mm
    turning = []
    for image in images:
        views = projections.rotating(image.volume.data, voxel_mm)
        addresses = [pictures.png_address(view, pictures.SUV_WINDOW) for view in views]
        turning.append({"title": image.title, "views": addresses})
    height, width = (n * mm for n, mm in zip(views[0].shape, projections.rotation_pixel_mm(voxel_mm), strict=True))
    return {"images": turning, "views": projections.VIEWS, "width_mm": width, "height_mm": height}


def viewer(images: Sequence[Image]) -> dict[str, Any]:
    """Data with which `static/*.js` shows the volumes: their texts, and how to read and place them; up to 12 MB."""
    volumes = [image.volume.data for image in images]
    packing = choose_packing(volumes)
    affine = images[0].volume.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ np.full(3, (packing.block - 1) / 2)
    affine[:3, :3] *= packing.block
    shape = projections.coarser(np.empty(volumes[0].shape, np.uint8), packing.block).shape
    return {
        "shape": shape,
        "voxel_mm": [size * packing.block for size in images[0].volume.voxel_mm],
        "affine": affine.tolist(),
        "block": packing.block,
        "step": packing.step,
        "knee": KNEE,
        "percent": packing.percent,
        "least_error": packing.largest_error(0.0),
        "window": pictures.SUV_WINDOW,
        "volumes": [
            {
                "title": image.title,
                "is_deviation": image.is_deviation,
                "window": (0.0, _common_top(image.volume.data)) if image.is_deviation else pictures.SUV_WINDOW,
            }
            for image in images
        ],
        "texts": [packing.pack(volume) for volume in volumes],
    }


def where(voxel: Sequence[int], affine: np.ndarray, layout: Mapping[str, Any]) -> dict[str, Any]:
    """The place of a voxel of the upright scan: in words, and as the viewer's index, None where it was cut off.

    affine: the upright scan's. layout: what `viewer` gave.
    """
    sides = ("RL", "AP", "SI")
    words = [f"{side[mm < 0]} {abs(mm):.1f}" for side, mm in zip(sides, position_mm(affine, voxel), strict=True)]
    place = [int(index) // layout["block"] for index in voxel]
    shown = all(0 <= i < n for i, n in zip(place, layout["shape"], strict=True))
    return {"where": ", ".join(words), "place": place if shown else None}


def position_mm(affine: np.ndarray, voxel: Sequence[int]) -> list[float]:
    """A voxel's centre in mm (RAS+), to 0.1 mm."""
    return [round(float(x), 1) for x in apply_affine(affine, voxel)]
