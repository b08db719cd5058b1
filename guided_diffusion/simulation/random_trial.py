"""Subjects of `simulate.py --scanners random`: each has its own scanner, grid and reconstructions.

Every reconstruction is a case with a folder of its own: `sub-0000-1` has the first of subject 0. Its pairs are
resampled from the scanner's grid to the model's like a user's scan (`pet.geometry`). With `random`, one subject in four
consists of random shapes instead of a patient; with `random-spheres`, all subjects are columns with hot spheres.
"""

from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from guided_diffusion.errors import InputError
from guided_diffusion.pet.formats import arrays
from guided_diffusion.pet.geometry import resample_like, to_model_grid
from guided_diffusion.pet.grid import Volume
from guided_diffusion.pet.plausibility import check_suv
from guided_diffusion.pet.volume import save_volume
from guided_diffusion.simulation.acquisition import thin
from guided_diffusion.simulation.body_phantom import Phantom, generator, make_phantom
from guided_diffusion.simulation.canvas import Grid
from guided_diffusion.simulation.lesions import MAX_LESIONS, draw_lesions, draw_small_lesions
from guided_diffusion.simulation.native_scan import RawData, acquire, on_native_grid, reconstruct_all
from guided_diffusion.simulation.random_acquisition import RANDOM, SPHERES, Acquisition, draw_acquisition
from guided_diffusion.simulation.random_shapes import make_hot_spheres, make_random_shapes
from guided_diffusion.simulation.tracers import draw_injection, load_tracers
from guided_diffusion.simulation.trial import (
    SCAN_END_MM,
    Trial,
    VirtualSubject,
    complete,
    description,
    is_complete,
    subject_grid,
    write_labels,
)

FINE_MM = 2.0
"""Voxels on which patients are painted, before a scanner's own average them."""
SHAPES_EVERY = 4
MOST_ORDINARY_LESIONS = 8
LEAST_UPTAKE_SHARE = 0.5
LEAST_SLICE_SUV = 0.02
"""Mean of a slice above which it holds a part of a body."""


@dataclass(frozen=True)
class RandomTrial(Trial):
    """A trial in which each subject has a scanner of its own.

    voxel_mm: of the pairs. reconstructions: of each subject's data. native: whether to keep the images on the scanner's
    grid, as needed for evaluation. clean_share: share of the normal dose's noise to remove from the targets of pairs,
    by averaging with the reconstruction of noise-free data (0: none, 1: all); several numbers are used in turn for the
    reconstructions of a subject.
    """

    voxel_mm: float = 2.5
    reconstructions: int = 4
    native: bool = False
    clean_share: float | list[float] = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.5 <= self.voxel_mm <= 10:
            raise InputError(f"--pair_voxel_mm {self.voxel_mm:g}: from 0.5 to 10")
        if self.reconstructions < 1:
            raise InputError(f"--reconstructions {self.reconstructions}: at least 1")
        for number in range(self.reconstructions):
            if not 0 <= self.clean_share_of(number) <= 1:
                raise InputError(f"--clean_share {self.clean_share_of(number):g}: from 0 to 1")

    def clean_share_of(self, reconstruction: int) -> float:
        """The share of noise that is taken from what the pairs of a reconstruction aim at."""
        shares = self.clean_share if isinstance(self.clean_share, list) else [self.clean_share]
        return shares[reconstruction % len(shares)]


@dataclass(frozen=True)
class _Case:
    """One reconstruction of one subject, and the names of its files."""

    subject: VirtualSubject
    number: int

    @property
    def name(self) -> str:
        return f"{self.subject.name}-{self.number + 1}"

    def files(self, dose: str, native: bool) -> dict[str, str]:
        """Paths relative to the data set, "" for what is not kept."""
        tag = dose.replace("/", "-")
        own = {"low_dose": f"low_dose_{tag}.nii.gz"}
        own |= {kind: f"{kind}.nii.gz" for kind in ("normal_dose", "truth", "labels")}
        kept = {kind: f"{self.name}/{file}" if native else "" for kind, file in own.items()}
        return {"pair": f"{self.name}/pair_{tag}.npz"} | kept


def random_manifest_rows(trial: RandomTrial, subject: VirtualSubject) -> list[dict[str, object]]:
    """The manifest's rows of one subject, one per reconstruction and dose."""
    rows = []
    for number in range(trial.reconstructions):
        case = _Case(subject, number)
        for dose in trial.doses:
            about = {
                "subject": subject.name, "seed": subject.seed, "tracer": subject.tracer, "scanner": subject.scanner,
                "dose": float(Fraction(dose)), "split": subject.split, "voxel_mm": trial.voxel_mm,
                "clean_share": trial.clean_share_of(number),
            }  # fmt: skip
            rows.append(about | case.files(dose, trial.native))
    return rows


def write_random_subject(trial: RandomTrial, subject: VirtualSubject, out: Path) -> None:
    """Simulate a subject and write its files, unless they are already complete.

    Pairs with too few counts for an image are left out.
    """
    if is_complete(subject, out):
        return
    acquisition = draw_acquisition(subject.scanner, trial.reconstructions, generator(subject.seed, "acquisition"))
    phantom = _phantom(subject, trial.preset)
    raw = _scan(subject, phantom, acquisition)
    normal = reconstruct_all(raw, raw.counts, 1.0)
    references = _references(trial, raw, normal)
    wanted = {float(Fraction(dose)): dose for dose in trial.doses}
    if 1.0 in wanted:
        _write_dose(trial, subject, out, wanted[1.0], normal, references)
    for dose, counts in thin([raw.counts], generator(subject.seed, "thinning")):
        if dose in wanted:
            _write_dose(trial, subject, out, wanted[dose], reconstruct_all(raw, counts[0], dose), references)
    if trial.native:
        _write_native(subject, phantom, normal, raw, out)
    complete(subject, description(subject, phantom) | {"acquisition": asdict(acquisition)}, out)


def _phantom(subject: VirtualSubject, preset: str) -> Phantom:
    """The subject's body on fine voxels over the preset's field of view."""
    placed = subject_grid(subject, preset)
    shape = tuple(round(n * placed.voxel_mm / FINE_MM) for n in placed.shape)
    grid = Grid(shape, FINE_MM, placed.top_mm)
    if subject.scanner == SPHERES:
        return make_hot_spheres(subject.seed, grid)
    if subject.scanner == RANDOM and int(subject.name.rsplit("-", 1)[-1]) % SHAPES_EVERY == SHAPES_EVERY - 1:
        return make_random_shapes(subject.seed, grid)
    if subject.scanner != RANDOM:
        return make_phantom(subject.seed, subject.tracer, grid)
    depth = (grid.top_mm, grid.top_mm + shape[2] * FINE_MM)

    def draw(parts, uptake, rng):
        ordinary = draw_lesions(parts, uptake, rng)[:MOST_ORDINARY_LESIONS]
        return (ordinary + draw_small_lesions(parts, uptake, rng, depth))[:MAX_LESIONS]

    return make_phantom(subject.seed, subject.tracer, grid, draw)


def _scan(subject: VirtualSubject, phantom: Phantom, acquisition: Acquisition) -> RawData:
    injection = draw_injection(
        load_tracers()[subject.tracer], phantom.patient.weight_kg, generator(subject.seed, "injection")
    )
    end = SCAN_END_MM * phantom.patient.height_scale
    exposure = acquisition.scanner.exposure(phantom.grid.axes()[2], 0.0, end)
    return acquire(phantom, acquisition, injection, exposure, generator(subject.seed, "counts"))


def _references(trial: RandomTrial, raw: RawData, normal: list[Volume]) -> list[Volume]:
    """Targets of the pairs, one per reconstruction: the normal dose, with a share of its noise removed."""
    shares = [np.float32(trial.clean_share_of(number)) for number in range(len(normal))]
    if not any(shares):
        return normal
    clean = reconstruct_all(raw, raw.mean, 1.0)
    return [
        Volume((1 - share) * noisy.data + share * pure.data, noisy.affine)
        for share, noisy, pure in zip(shares, normal, clean, strict=True)
    ]


def _write_dose(
    trial: RandomTrial, subject: VirtualSubject, out: Path, dose: str, images: list[Volume], references: list[Volume]
) -> None:
    """Write the pairs of a dose, in half precision, and its images if they are kept.

    Images of so few counts that they would not be accepted as SUV, such as those without a voxel above zero, are left
    out; for training, also those that `loses_uptake` detects.
    """
    for number, (image, reference) in enumerate(zip(images, references, strict=True)):
        files = _Case(subject, number).files(dose, trial.native)
        low = to_model_grid(image, voxel_mm=trial.voxel_mm, linear=True)
        pair = np.stack([low.data, resample_like(reference, low, linear=True).data]).astype(np.float16)
        try:
            check_suv(pair[0], files["pair"], stated=True)
        except InputError:
            continue
        if subject.split == "train" and loses_uptake(pair):
            continue
        (out / files["pair"]).parent.mkdir(parents=True, exist_ok=True)
        arrays.write(out / files["pair"], arr_0=pair, affine=low.affine, unit=np.array("SUV"))
        if trial.native:
            save_volume(image, out / files["low_dose"])


def loses_uptake(pair: np.ndarray) -> bool:
    """Whether a slice of the low dose of a pair [2, X, Y, Z] has less than half of the uptake of its reference.

    OSEM does this with very few counts, in single beds or everywhere. Such a slice teaches nothing, but a crop of it
    has thousands of times the loss of others, in units of its apparent noise.
    """
    low, reference = pair.mean(axis=(1, 2), dtype=np.float64)
    in_body = reference > LEAST_SLICE_SUV
    return bool((low[in_body] < LEAST_UPTAKE_SHARE * reference[in_body]).any())


def _write_native(subject: VirtualSubject, phantom: Phantom, normal: list[Volume], raw: RawData, out: Path) -> None:
    """Normal dose, truth and labels of every reconstruction, on its grid."""
    for number, (image, made) in enumerate(zip(normal, raw.acquisition.reconstructions, strict=True)):
        files = _Case(subject, number).files("1", native=True)
        sizes = (made.voxel_mm, raw.acquisition.slice_mm)
        truth = on_native_grid(phantom.activity, phantom.grid, image.data.shape, sizes)
        save_volume(image, out / files["normal_dose"])
        save_volume(Volume(truth, image.affine), out / files["truth"])
        write_labels(_nearest_labels(phantom, image), image.affine, out / files["labels"])


def _nearest_labels(phantom: Phantom, image: Volume) -> np.ndarray:
    """The label at the centre of each voxel of an image, uint8; 0 outside the phantom."""
    to_phantom = np.linalg.inv(phantom.grid.affine()) @ image.affine
    labels = phantom.labels
    for axis, count in enumerate(image.data.shape):
        index = np.rint(to_phantom[axis, axis] * np.arange(count) + to_phantom[axis, 3]).astype(int)
        inside = (index >= 0) & (index < labels.shape[axis])
        labels = np.take(labels, np.clip(index, 0, labels.shape[axis] - 1), axis)
        labels = np.where(np.expand_dims(inside, tuple({0, 1, 2} - {axis})), labels, 0)
    return labels.astype(np.uint8)
