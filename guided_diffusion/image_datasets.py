"""Pairs of low-dose and normal-dose volumes, and the random crops of them used for training.

A subject file is an `.npz` whose `arr_0` is [2, X, Y, Z] in SUV: channel 0 low dose, channel 1 normal dose, on the
model's grid (X anterior to posterior, Y right to left, Z towards superior). A data set is a folder of such files, or a
folder with the `manifest.csv` of a virtual trial, which assigns the pairs to splits.

The content of crop number (step, item) depends only on the seed and these two numbers, so a run that is killed and
continued uses the same data without storing a random state.
"""

import functools
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from guided_diffusion import logger
from guided_diffusion.config import PreprocessingConfig
from guided_diffusion.errors import InputError
from guided_diffusion.machine.open_files import allow_open_files
from guided_diffusion.noise import Stream, generator
from guided_diffusion.pet.contents import arrays_below
from guided_diffusion.pet.formats.arrays import load_npz, map_npz, read_dose
from guided_diffusion.pet.hot_spots import hot_spots
from guided_diffusion.pet.normalisation import BODY_SUV, normalise
from guided_diffusion.pet.pair_checks import check_pair
from guided_diffusion.pet.text import number_of_cell, printable
from guided_diffusion.pet.trial_manifest import (
    CLEAN_SHARE,
    MANIFEST,
    SPLITS,
    file_of,
    is_trial,
    read_manifest,
    share_of,
)

# Crops are centred within cells of this many voxels a side.
CELL = 8

# Columns that a manifest must have.
PAIR_COLUMNS = ("subject", "dose", "split", "voxel_mm", "pair")


@dataclass(frozen=True)
class Pair:
    """One low-dose image and its normal-dose image. `dose` is the fraction as a decimal, "" if unknown.

    reference_noise: the share of its noise that the normal-dose image has: 1 as acquired, 0 free of noise.
    """

    path: Path
    subject: str
    dose: str = ""
    reference_noise: float = 1.0


@dataclass(frozen=True)
class Crop:
    """A training example, normalised float32 [1, Z, X, Y], and standard normal noise of the same shape, None where none
    is wanted.

    reference: float32 [2], the dose of the pair (NaN if unknown) and the noise of its reference.
    """

    low_dose: np.ndarray
    normal_dose: np.ndarray
    noise: np.ndarray | None
    reference: np.ndarray


def find_pairs(data_dir: str | Path, split: str, voxel_mm: Sequence[float], flag: str = "--data_dir") -> list[Pair]:
    """The pairs of a data set, in a fixed order.

    With a manifest, these are the rows of `split` ("train" or "validation"), whose voxel size must be `voxel_mm`.
    Without one, every `.npz` below the folder belongs to "train", and none to "validation"; their dose is what they
    state (`prepare.py --thin`).

    flag: what the user named the folder by. Raises InputError for a missing or empty folder, and for an unusable
    manifest.
    """
    folder = Path(data_dir)
    if not folder.is_dir():
        state = "is a file" if folder.is_file() else "no such folder"
        raise InputError(f"{folder}: {state}; {flag} is a folder of .npz pairs or a virtual trial")
    if is_trial(folder):
        return _pairs_of_manifest(folder, split, voxel_mm)
    if split != "train":
        return []
    paths, notices = arrays_below(folder)
    for notice in notices:
        logger.log(f"notice: {notice}")
    if not paths:
        raise InputError(f"{folder}: neither a {MANIFEST} nor any .npz file below this folder")
    return [Pair(path, str(path.relative_to(folder)), _as_text(read_dose(path))) for path in paths]


def _pairs_of_manifest(folder: Path, split: str, voxel_mm: Sequence[float]) -> list[Pair]:
    manifest = folder / MANIFEST
    pairs, unused = [], Counter()
    for row in read_manifest(folder, PAIR_COLUMNS):
        own = row["split"].lower()
        if own not in SPLITS:
            unused[printable(row["split"])] += 1
        if own != split:
            continue
        _check_voxel_size(row["voxel_mm"], voxel_mm, manifest)
        dose = _as_text(share_of(folder, row["dose"], "dose") if row["dose"] else None)
        clean = share_of(folder, row.get(CLEAN_SHARE) or "0", CLEAN_SHARE)
        pairs.append(Pair(file_of(folder, row, "pair"), row["subject"], dose, 1 - clean))
    if split == "train" and not pairs:
        raise InputError(f"{manifest}: no row has the split 'train'")
    for name, count in unused.items() if split == "train" else ():
        logger.log(f"notice: {manifest}: {count} row(s) of the split '{name}' are not used ({', '.join(SPLITS)} are)")
    return pairs


def _as_text(dose: float | None) -> str:
    """A dose fraction as a decimal, "" where it is unknown."""
    return "" if dose is None else np.format_float_positional(dose, trim="-")


def _check_voxel_size(text: str, expected: Sequence[float], manifest: Path) -> None:
    """A manifest gives one size for all axes."""
    size = number_of_cell(text)
    if math.isnan(size):
        raise InputError(f"{manifest}: voxel_mm '{printable(text)}' is not a number")
    if not np.allclose(size, expected, rtol=1e-3):
        wanted = ",".join(f"{length:g}" for length in expected)
        raise InputError(f"{manifest}: voxels of {size:g} mm, but --voxel_mm is {wanted}")


def open_pair(path: str | Path) -> np.ndarray:
    """The array [2, X, Y, Z] of a subject file, of any real dtype, in SUV.

    An uncompressed member is memory-mapped, so that only the parts used are read. A compressed one is loaded whole, and
    the log says so. Raises InputError for a file that is not such a pair. Loading executes no code from the file.
    """
    array = map_npz(Path(path))
    if array is None:
        array = load_npz(Path(path))
        size = array.nbytes / 2**20
        logger.log(f"{path}: compressed, so it cannot be mapped and stays in memory whole ({size:.0f} MiB)")
    if array.ndim != 4 or array.shape[0] != 2 or not np.issubdtype(array.dtype, np.floating):
        raise InputError(
            f"{path}: arr_0 is {array.dtype} of shape {array.shape}; a pair is floating-point [2, X, Y, Z] in SUV"
        )
    return array


@dataclass(frozen=True)
class CropShares:
    """Shares (0 to 1) of crops that are drawn in a special way.

    hot: near a hot spot of the normal dose, if it has one. coarse: with every second voxel along randomly chosen axes,
    so that the noise of neighbours is less correlated than in the data.
    """

    hot: float = 0.0
    coarse: float = 0.0


class CropSource:
    """Random crops of a list of pairs. Several threads may take crops at the same time.

    crop_size: [X, Y, Z] in voxels. A smaller volume is centred in air. grid: that of the pairs, with the scale and
    whether values below 0 are kept. shares: of crops that are drawn in a special way. with_noise: whether crops include
    noise, which takes longer to draw than a crop to cut.

    Every pair is drawn equally often. A crop is centred on a point of the body, since most of a scan's grid is air:
    half of the centres are drawn uniformly from the body, half in proportion to uptake, which favours organs and
    lesions. A hot spot lies anywhere in the inner half of its crop. A crop does not extend beyond a volume into which
    it fits. Half of the crops are mirrored left to right.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        crop_size: Sequence[int],
        grid: PreprocessingConfig,
        seed: int,
        *,
        shares: CropShares = CropShares(),
        with_noise: bool = True,
    ):
        if not pairs:
            raise InputError("there are no pairs to take crops from")
        allow_open_files(len(pairs))  # each stays mapped
        self.pairs = list(pairs)
        self.crop_size = tuple(crop_size)
        self.grid = grid
        self.shares = shares
        self.with_noise = with_noise
        self._left_right = next(axis for axis, code in enumerate(grid.axis_codes) if code in "LR")
        self.seed = seed
        self._arrays = functools.cache(self._open)
        self._centres = functools.cache(self._find_centres)
        self._hot_spots = functools.cache(self._find_hot_spots)

    def check(self, numbers: Iterable[int], voxel_mm: Sequence[float], axis_codes: str) -> list[str]:
        """Reads the pairs of these numbers completely and returns notices on doubtful ones.

        Raises InputError for a pair that is not in SUV, has voxels that are not numbers, or lies on another grid.
        """
        return [
            notice
            for number in numbers
            for notice in check_pair(self.pairs[number].path, self._arrays(number), voxel_mm, axis_codes)
        ]

    def crop(self, step: int, item: int) -> Crop:
        """The crop of a step's item, always the same. Raises InputError for a file that cannot be used."""
        rng = generator(self.seed, Stream.CROP, step, item)
        number = int(rng.integers(len(self.pairs)))
        steps = self._draw_steps(number, rng)
        start = self._draw_start(number, steps, rng)
        low_dose, normal_dose = self._cut(number, start, steps, mirrored=rng.random() < 0.5)[:, None]
        noise = None
        if self.with_noise:
            noise_rng = generator(self.seed, Stream.NOISE, step, item)
            noise = noise_rng.standard_normal(low_dose.shape, dtype=np.float32)
        pair = self.pairs[number]
        reference = np.array([float(pair.dose or "nan"), pair.reference_noise], dtype=np.float32)
        return Crop(low_dose, normal_dose, noise, reference)

    def _open(self, number: int) -> np.ndarray:
        return open_pair(self.pairs[number].path)

    def _draw_steps(self, number: int, rng: np.random.Generator) -> np.ndarray:
        """Steps in voxels from one sample of a crop to the next along X, Y and Z: 1, or 2 where the volume has room."""
        # With a share of 0 no number is drawn here or below, so that runs of before are continued on the same crops.
        if not (self.shares.coarse > 0 and rng.random() < self.shares.coarse):
            return np.ones(3, int)
        has_room = 2 * np.array(self.crop_size) <= self._arrays(number).shape[1:]
        return np.where(has_room, rng.integers(1, 3, size=3), 1)

    def _draw_start(self, number: int, steps: np.ndarray, rng: np.random.Generator) -> tuple[int, ...]:
        """First voxel of a crop along X, Y and Z; 0 where the volume is smaller than the crop."""
        size = steps * self.crop_size
        is_hot = self.shares.hot > 0 and rng.random() < self.shares.hot
        spots = self._hot_spots(number) if is_hot else ()
        centre = self._near_one_of(spots, size, rng) if len(spots) else self._in_body(number, rng)
        room = np.subtract(self._arrays(number).shape[1:], size).clip(min=0)
        return tuple(int(first) for first in np.clip(centre - size // 2, 0, room))

    def _in_body(self, number: int, rng: np.random.Generator) -> np.ndarray:
        """A random voxel of the body, drawn as described in the class."""
        cells, cumulative = self._centres(number)
        cell = cells[np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right")]
        return cell * CELL + rng.integers(CELL, size=3)

    @staticmethod
    def _near_one_of(spots: np.ndarray, size: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A centre whose crop of a size in voxels has one of the voxels [n, 3] in its inner half."""
        reach = size // 4
        return spots[rng.integers(len(spots))] + rng.integers(-reach, reach + 1)

    def _find_hot_spots(self, number: int) -> np.ndarray:
        """Centres of the hot spots of a volume, int [n, 3]."""
        return hot_spots(np.asarray(self._arrays(number)[1], dtype=np.float32))

    def _find_centres(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Cells [n, 3] of a volume that lie in the body, and the cumulative weights [n] to draw them with."""
        normal_dose = self._arrays(number)[1]
        middles = tuple(slice(min(CELL, length) // 2, None, CELL) for length in normal_dose.shape)
        sample = np.asarray(normal_dose[middles])
        uptake = sample.astype(np.float64).clip(0.0, self.grid.suv_max)
        cells = np.argwhere(uptake > BODY_SUV)
        if len(cells) == 0:
            cells = np.argwhere(np.ones(uptake.shape, dtype=bool))
            return cells, np.arange(1.0, len(cells) + 1)
        weights = uptake[tuple(cells.T)]
        return cells, np.cumsum(0.5 / len(cells) + 0.5 * weights / weights.sum())

    def _cut(self, number: int, start: tuple[int, ...], steps: np.ndarray, *, mirrored: bool) -> np.ndarray:
        """A crop of both images, normalised float32 [2, Z, X, Y], with air around a volume that is smaller.

        mirrored: left to right.
        """
        window = tuple(
            slice(first, first + step * size, step)
            for first, step, size in zip(start, steps.tolist(), self.crop_size, strict=True)
        )
        part = self._arrays(number)[(slice(None), *window)]
        lacking = [size - length for size, length in zip(self.crop_size, part.shape[1:], strict=True)]
        around = [(gap // 2, gap - gap // 2) for gap in lacking]
        if mirrored:
            side = self._left_right
            part, around[side] = np.flip(part, 1 + side), around[side][::-1]
        # Converted and brought into the order of tensors in one pass over the file's voxels.
        voxels = np.array(part.transpose(0, 3, 1, 2), dtype=np.float32, order="C")
        if not np.isfinite(voxels).all():
            raise InputError(f"{self.pairs[number].path}: has voxels that are not finite numbers")
        voxels = normalise(voxels, self.grid.suv_max, negative=self.grid.linear_transfer)
        return np.pad(voxels, [(0, 0), around[2], *around[:2]]) if any(lacking) else voxels
