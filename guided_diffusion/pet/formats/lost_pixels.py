"""Slices whose pixels a partial copy lost, in part or all: no header shows it, but the slices on both sides do."""

from collections.abc import Sequence

import numpy as np

# Of a slice's rows, and of the image in each slice beside it. Where the last rows of a slice have no image, both slices
# beside it have as much there in no intact slice of a real series and of 200 simulated scans, also with air cut off at
# SUV 0.3 or 2.5. Slices of almost no counts differ by more of the image, but in few rows.
LEAST_ROWS, LEAST_SHARE = 0.1, 0.05


def image_of_rows(values: np.ndarray) -> np.ndarray:
    """How much of a slice's image [column, row] is in each row, float64: 0 for one that is filled as the last pixel is.

    What a copy lost is filled with one value, nearly always 0.
    """
    return np.abs(values - values[-1, -1]).sum(axis=0, dtype=np.float64)


def doubts_of_lost_pixels(images: np.ndarray, names: Sequence[str]) -> list[str]:
    """Says which slices may have lost their pixels, all or those of their last rows.

    Args:
        images: of each slice in space what `image_of_rows` returns, [slice, row].
        names: the slices' files.
    """
    shown = np.flatnonzero(images.any(axis=1))
    if len(shown) < 2:
        return []
    blank = sorted(set(range(shown[0], shown[-1])) - set(shown.tolist()))
    doubts = []
    if blank:
        more = f" and {len(blank) - 1} more" if len(blank) > 1 else ""
        doubts.append(
            f"{names[blank[0]]}{more}: all pixels of the slice are equal, though slices on both sides have an image;"
            " copy it again, unless the image was masked"
        )
    for before, k, after in zip(shown, shown[1:], shown[2:], strict=False):
        row = _first_lost_row(images[before], images[k], images[after])
        if row is not None:
            doubts.append(
                f"{names[k]}: all pixels from row {row + 1} on are equal, though slices on both sides have an image"
                " there; copy it again, unless the image was masked"
            )
    return doubts


def _first_lost_row(before: np.ndarray, own: np.ndarray, after: np.ndarray) -> int | None:
    """The first of the last rows of a slice that have no image, if those of the slices beside it have; else None."""
    first = int(np.flatnonzero(own)[-1]) + 1
    rows = np.count_nonzero(before[first:] * after[first:])
    share = min(beside[first:].sum() / beside.sum() for beside in (before, after))
    return first if rows >= LEAST_ROWS * len(own) and share >= LEAST_SHARE else None
