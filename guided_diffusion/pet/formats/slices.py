"""Slices in space: their order along the normal, what is wrong with them, and equal spacing by position."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from guided_diffusion.errors import InputError

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
SAME_PLACE_MM = 1e-3
# Headers round positions to a few digits; what lies within this is on the regular grid.
REGULAR_MM = 5e-3
OFF_LINE_MM = 0.1
# Some software rounds the cosines of some slices to three digits.
SAME_ORIENTATION = 1e-3
# Part of the usual distance below which slices are no longer of one bed.
CLOSEST_GAP = 0.5
# Distance of slices, in thicknesses, from which on one may be missing between any two.
WIDE_GAP = 1.5


@dataclass(frozen=True)
class SliceStack:
    """Parallel slices along a line.

    affine: 4x4, (column, row, slice) -> mm in RAS+, slices at equal distances. shape: (columns, rows, slices).
    distances: mm along the normal of the slices as they are; `regular` of the equally spaced grid.
    """

    affine: np.ndarray
    shape: tuple[int, int, int]
    distances: np.ndarray
    regular: np.ndarray

    @property
    def is_regular(self) -> bool:
        return bool(np.abs(self.distances - self.regular).max() <= REGULAR_MM)

    @property
    def description(self) -> str:
        """The spacing of the slices in words."""
        if len(self.distances) == 1:
            return "one slice"
        gaps = np.diff(self.distances)
        if self.is_regular:
            return f"equal, {gaps.mean():.4g} mm"
        return f"unequal, {gaps.min():.4g} to {gaps.max():.4g} mm, resampled to {gaps.mean():.4g} mm by position"

    @property
    def doubt(self) -> str:
        """What is unusual about the spacing, "" if nothing: slices of overlapping beds lie closer than others."""
        gaps = np.diff(self.distances)
        if len(gaps) == 0 or gaps.min() >= CLOSEST_GAP * np.median(gaps):
            return ""
        return (
            f"slices lie {gaps.min():.4g} mm apart where others are {np.median(gaps):.4g} mm, as in beds that overlap;"
            f" they are resampled to {gaps.mean():.4g} mm by position"
        )

    def resample(self, read: Callable[[int], np.ndarray]) -> np.ndarray:
        """float32 [column, row, slice] at equal distances; `read(k)` gives slice k [column, row] as it is stored."""
        return _resample(read, self.distances, self.regular, self.shape, self.is_regular)

    def to_slices(self, data: np.ndarray) -> np.ndarray:
        """The way back: float32 [column, row, slice], equally spaced -> at the distances of the stored slices."""
        return _resample(lambda k: data[..., k], self.regular, self.distances, self.shape, self.is_regular)


def stack_slices(geometry: Sequence[Sequence[float]], names: Sequence[str]) -> tuple[SliceStack, list[int]]:
    """Orders slices along their normal.

    Args:
        geometry: per slice 3 ImagePositionPatient, 6 ImageOrientationPatient, 2 PixelSpacing, rows, columns, thickness.
        names: the slices' files, for messages.

    Returns:
        The stack, and the order of the slices in it.

    Raises:
        InputError: slices of different orientation or size, doubled or missing ones, or positions off a line.
    """
    table = np.array(geometry, dtype=np.float64)
    _check_alike(table, names)
    positions, (row_mm, column_mm, rows, columns, thickness) = table[:, :3], table[0, 9:]
    orientation = _least_rounded(table[:, 3:9])
    along_row, along_column = orientation[:3], orientation[3:]
    normal = np.cross(along_row, along_column)
    if abs(np.linalg.norm(normal) - 1) > 1e-3 or row_mm <= 0 or column_mm <= 0:
        raise InputError(f"{names[0]}: orientation or pixel spacing is not that of an image; export the series again")
    order = np.argsort(positions @ normal, kind="stable")
    positions = positions[order]
    distances = positions @ normal
    _check_gaps(distances, [names[k] for k in order])
    count = len(order)
    if count == 1:
        if thickness <= 0:
            raise InputError(f"{names[0]}: a single slice without SliceThickness (0018,0050) has no volume")
        step = normal * thickness
    else:
        step = (positions[-1] - positions[0]) / (count - 1)
        line = positions[0] + np.outer((distances - distances[0]) / (step @ normal), step)
        if np.linalg.norm(positions - line, axis=1).max() > OFF_LINE_MM:
            raise InputError(f"{names[0]}: the slices of its series do not lie along one line; export the series again")
    affine = np.eye(4)
    affine[:3, :3] = np.column_stack([along_row * column_mm, along_column * row_mm, step])
    affine[:3, 3] = positions[0]
    regular = np.linspace(distances[0], distances[-1], count)
    stack = SliceStack(LPS_TO_RAS @ affine, (int(columns), int(rows), count), distances, regular)
    return stack, [int(k) for k in order]


def doubt_of_skipped(distances: np.ndarray, thickness_mm: float, numbers: Sequence[float | None]) -> str:
    """What says that every second slice or more is missing, "" if nothing: wide gaps, and numbers that skip as well.

    Scans are also made with gaps, and numbers also skip in one frame of a dynamic series: neither says it alone.

    Args:
        distances: mm along the normal, in the order of the slices.
        thickness_mm: 0 where it is not known.
        numbers: the slices' InstanceNumber in whatever order, None where one has none.
    """
    if len(distances) < 2 or thickness_mm <= 0 or None in numbers:
        return ""
    gap, step = np.median(np.diff(distances)), np.diff(np.sort(np.array(numbers, dtype=float))).min()
    if gap < WIDE_GAP * thickness_mm or step < 2:
        return ""
    return (
        f"slices are {thickness_mm:.4g} mm thick, but lie {gap:.4g} mm apart, and their InstanceNumber (0020,0013) goes"
        f" up by {step:g}: those between may be missing"
    )


def doubt_of_lost_end(numbers: Sequence[float | None], stated: Sequence[float | None]) -> str:
    """What says that slices are missing at one end, "" if nothing: InstanceNumber runs on, but not from the first.

    It begins elsewhere too: in a later frame of a dynamic series after as many numbers as the frame has slices, or
    from 1000 or so. The series is complete where its slices state their own number.

    Args:
        numbers: the slices' InstanceNumber in whatever order, None where one has none.
        stated: their NumberOfSlices likewise.
    """
    if None in numbers or set(stated) == {len(numbers)}:
        return ""
    ordered = np.sort(np.array(numbers, dtype=float))
    lost = ordered[0] - 1
    if not 0 < lost < len(ordered) or (np.diff(ordered) != 1).any():
        return ""
    return (
        f"InstanceNumber (0020,0013) of its {len(ordered)} slices begins at {ordered[0]:g}: {lost:g} may be missing at"
        " an end; if so, copy the series again"
    )


def _least_rounded(orientations: np.ndarray) -> np.ndarray:
    """Of the slices' orientations [slice, 6] that with the normal nearest to unit length: rounding changes it."""
    normals = np.cross(orientations[:, :3], orientations[:, 3:])
    return orientations[np.argmin(np.abs(np.linalg.norm(normals, axis=1) - 1))]


def _check_alike(table: np.ndarray, names: Sequence[str]) -> None:
    for columns, tolerance, what in (
        (slice(3, 9), SAME_ORIENTATION, "orientation"),
        (slice(9, 13), 1e-4, "pixel spacing or size"),
    ):
        different = np.abs(table[:, columns] - table[0, columns]).max(axis=1) > tolerance
        if different.any():
            other = names[int(np.argmax(different))]
            raise InputError(f"{names[0]} and {other}: one series, but different {what}; separate the two")


def _check_gaps(distances: np.ndarray, names: Sequence[str]) -> None:
    gaps = np.diff(distances)
    if len(gaps) == 0:
        return
    if gaps.min() < SAME_PLACE_MM:
        k = int(np.argmin(gaps))
        raise InputError(
            f"{names[k]} and {names[k + 1]}: two slices at the same place;"
            " remove the copy, or give a single frame of a dynamic series"
        )
    if gaps.max() > 1.5 * np.median(gaps):
        k = int(np.argmax(gaps))
        raise InputError(
            f"{names[k]} and {names[k + 1]}: {gaps[k]:.4g} mm apart where others are {np.median(gaps):.4g} mm;"
            " slices are missing between them"
        )


def _resample(
    read: Callable[[int], np.ndarray],
    known: np.ndarray,
    wanted: np.ndarray,
    shape: tuple[int, int, int],
    is_regular: bool,
) -> np.ndarray:
    """Slices at the distances `known` -> at `wanted`, by cubic Hermite interpolation; not below what was there.

    A straight line between neighbours would blur a slice that lies 1 % off by 1 % of its curvature, and again on the
    way back; the cubic errs by the square of that.
    """
    data = np.empty(shape, np.float32)
    if is_regular:
        for k in range(shape[2]):
            data[..., k] = read(k)
        return data
    cached = lru_cache(maxsize=4)(read)
    for k, (neighbours, weights) in enumerate(_hermite_weights(known, wanted)):
        parts = [cached(int(n)) for n in neighbours]
        floor = min(0.0, *(float(part.min()) for part in parts))
        total = sum(np.float32(w) * part for w, part in zip(weights, parts, strict=True))
        data[..., k] = np.maximum(total, np.float32(floor))
    return data


def _hermite_weights(known: np.ndarray, wanted: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Per wanted distance the four slices around it and their weights (slopes: central differences by position)."""
    last = len(known) - 1
    result = []
    for x in wanted:
        k = int(np.clip(np.searchsorted(known, x, side="right") - 1, 0, last - 1))
        before, after = max(k - 1, 0), min(k + 2, last)
        width = known[k + 1] - known[k]
        t = (x - known[k]) / width
        value_0, value_1 = (1 + 2 * t) * (1 - t) ** 2, t * t * (3 - 2 * t)
        slope_0 = t * (1 - t) ** 2 * width / (known[k + 1] - known[before])
        slope_1 = t * t * (t - 1) * width / (known[after] - known[k])
        weights = np.array([-slope_0, value_0 - slope_1, value_1 + slope_0, slope_1])
        result.append((np.array([before, k, k + 1, after]), weights))
    return result
