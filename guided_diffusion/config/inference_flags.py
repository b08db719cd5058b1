"""The flags of inference. Those of network, process, grid and patches are declared in `config.model`."""

import math
import typing
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from guided_diffusion.config.flags import Role, flag, flags_of, stall_flag, threads_flag
from guided_diffusion.config.model import DiffusionConfig, ModelConfig, PreprocessingConfig
from guided_diffusion.errors import InputError
from guided_diffusion.pet.suv_bases import SUVBasis

INFERENCE_PRESETS = ("paper", "fast")
PUBLISHED_SEED = 10
FUSIONS = ("end", "each_step")
PRECISIONS = ("float32", "bfloat16", "float16")
_BY_PRESET = "the preset's"
MANIFEST_DOSE = "manifest"


def suv_basis_flag() -> Any:
    """The flag of every command that writes SUV."""
    meaning = "body mass that the written SUV refer to: weight, lean mass or surface"
    return flag("bw", meaning, Role.IMAGES, choices=typing.get_args(SUVBasis))


@dataclass(frozen=True)
class OutputFlags:
    """The scan, the weights, and what is written of the result."""

    base_samples: str = flag("", "scan, DICOM folder or folder of subjects", Role.FILES, metavar="PATH")
    model_path: str = flag(
        "",
        "weights: a published state dict or our own",
        Role.FILES,
        metavar="FILE",
        shown="checkpoint/local3d.pt of the repository",
    )
    save_dir: str = flag("results", "where results go", Role.FILES, metavar="DIR")
    above_cap: str = flag(
        "keep",
        "uptake above the model's largest SUV: keep it from the input, or leave it clipped",
        Role.IMAGES,
        choices=("keep", "clip"),
    )
    suv_basis: str = suv_basis_flag()
    write_dicom: bool = flag(
        False, "for a DICOM input, also write a derived DICOM series into the folder denoised_dicom", Role.IMAGES
    )


@dataclass(frozen=True)
class ReportFlags:
    """The page about each denoised scan."""

    report: bool = flag(
        False, "also write report.html: projections, linked slices, foci and noise before and after", Role.FILES
    )
    reference: str = flag("", "normal-dose image of the scan, for the report", Role.FILES, metavar="PATH")
    report_neck_mm: float = flag(
        0.0,
        "leave this much of the scan's upper end out of all pictures of the report: a head shows a face",
        Role.FILES,
        metavar="MM",
    )

    def __post_init__(self) -> None:
        """Raises InputError for flags of a page where none is written."""
        if not self.report and (self.reference or self.report_neck_mm):
            raise InputError("--reference and --report_neck_mm belong to a page: give --report True")


@dataclass(frozen=True)
class InputFlags:
    """Choice of the series of an input, and replacements of its missing or wrong DICOM tags."""

    series: str | None = flag(
        None, "SeriesInstanceUID or SeriesNumber, where a folder holds several PET series", Role.IMAGES
    )
    weight_kg: float | None = flag(None, "body weight in kg", Role.IMAGES)
    dose_bq: float | None = flag(None, "injected activity in Bq at the injection time", Role.IMAGES)
    injection_time: str | None = flag(None, "HHMMSS, HH:MM:SS, or YYYYMMDDHHMMSS with the date", Role.IMAGES)
    half_life_s: float | None = flag(None, "half-life of the radionuclide in s", Role.IMAGES)
    scan_start: str | None = flag(
        None, "when the scan began, to which the image is decay-corrected; written as --injection_time", Role.IMAGES
    )


@dataclass(frozen=True)
class PresetFlags:
    """The preset that everything else is taken from, and two flags that published command lines state besides."""

    preset: str | None = flag(
        None,
        "paper: the published protocol, the default for weights without a header; fast: what the header recommends, the"
        " default with one",
        Role.SAMPLING,
        choices=INFERENCE_PRESETS,
    )
    use_ddim: bool | None = flag(None, "the published flag: True is --sampler ddim, False ddpm", Role.STEPS)
    num_samples: int | None = flag(
        None, "number of patches, as published scripts state it; checked against the plan", Role.FILES
    )


@dataclass(frozen=True)
class Sampling:
    """Settings of sampling patches; those not given come from a preset. Raises InputError for impossible values.

    sampler, start_from: names in `samplers.SAMPLERS` and `samplers.STARTS`. start_step: the original timestep of the
    start, None for the last. noise: "field" names the noise by axial slice, so that overlapping patches get the same;
    "per_patch" is the published protocol, in which every patch restarts PyTorch's generator from `seed` (and further
    realisations from `seed` + 1, `seed` + 2, ...). realisations: how many volumes are sampled. fuse: "end" samples each
    patch by itself and blends the finished ones, as published; "each_step" blends neighbours after every step.
    """

    sampler: str = flag(
        "ddpm",
        "how steps are walked",
        Role.STEPS,
        shown=_BY_PRESET,
        choices={
            "ddpm": "ancestral",
            "ddim": "first-order, deterministic",
            "dpmpp_2m": "DPM-Solver++, second-order, deterministic",
            "dpmpp_2m_sde": "the same with fresh noise at every step",
        },
    )
    start_from: str = flag(
        "noise",
        "where the walk starts",
        Role.STEPS,
        shown=_BY_PRESET,
        choices={
            "noise": "all the kept timesteps, down from pure noise",
            "low_dose": "only those up to --start_step, from the low-dose image with the noise of that timestep",
        },
    )
    start_step: int | None = flag(
        None,
        "with --start_from low_dose: where to start, a timestep of 0 to diffusion_steps - 1; the nearest kept one at or"
        " below it is taken",
        Role.STEPS,
        shown=_BY_PRESET,
    )
    clip_denoised: bool = flag(True, "clamp every predicted image to [-1, 1]", Role.SAMPLING)
    noise: str = flag(
        "field",
        "the noise of patches",
        Role.SAMPLING,
        shown=_BY_PRESET,
        choices={
            "field": "one noise for the volume, so that patches agree",
            "per_patch": "the published one, the same in every patch",
        },
    )
    seed: int = flag(PUBLISHED_SEED, "seed of the noise", Role.SAMPLING)
    batch_size: int = flag(1, "patches walked together, which are a rank's smallest piece of work", Role.ARITHMETIC)
    realisations: int = flag(
        1,
        "volumes to sample, each with noise of its own; the result is their mean, and their voxelwise standard"
        " deviation is written beside it; methods that draw images write the mean that they are drawn about",
        Role.STEPS,
        metavar="K",
    )
    dose_fraction: str = flag(
        "0",
        "the scan's share of the counts of the image that is estimated, such as 1/20: mean and error bar are then those"
        " of that image as acquired, with its noise; 0: of the noise-free image; manifest: the dose that a virtual"
        " trial's manifest states of each of its scans (0 for one at the normal dose)",
        Role.DRAWING,
    )
    sample: bool = flag(
        False, "write the first realisation instead of the mean: with --dose_fraction, one plausible scan", Role.DRAWING
    )
    fuse: str = flag(
        "end",
        "when patches are blended: at the end, each finished by itself; or neighbours after each_step, so that the"
        " volume is sampled as one",
        Role.SAMPLING,
        choices=FUSIONS,
    )

    @property
    def dose(self) -> float:
        """The number that `dose_fraction` says. Raises InputError for one that is no share of an image's counts.

        "manifest" is none: `at_dose` puts a scan's own in its place.
        """
        try:
            dose = float(Fraction(self.dose_fraction))
        except (ValueError, ZeroDivisionError):
            dose = math.nan
        if not 0 <= dose < 1:
            raise InputError(f"--dose_fraction {self.dose_fraction!r}: a fraction such as 1/20, from 0 to below 1")
        return dose

    def at_dose(self, dose: float | None) -> "Sampling":
        """The same for a scan of this dose, of which the manifest of its trial is asked; None: no manifest says it.

        Raises InputError where none says it.
        """
        if self.dose_fraction != MANIFEST_DOSE:
            return self
        if dose is None:
            raise InputError(
                f"--dose_fraction {MANIFEST_DOSE}: the scan is of no virtual trial, whose manifest states its dose;"
                " give a number such as 1/20"
            )
        return replace(self, dose_fraction=str(dose) if dose < 1 else "0")

    @property
    def drawn(self) -> int:
        """How many images are drawn about a mean: all realisations of several, and a single one if it is written."""
        return self.realisations if self.realisations > 1 or self.sample else 0

    def __post_init__(self) -> None:
        if self.dose_fraction != MANIFEST_DOSE:
            self.dose  # noqa: B018 raises for a fraction that is none
        if self.realisations < 1:
            raise InputError(f"--realisations {self.realisations}: at least one volume is sampled")
        if self.fuse not in FUSIONS:
            raise InputError(f"--fuse {self.fuse!r} is unknown: choose {' or '.join(FUSIONS)}")
        if self.fuse == "each_step" and self.noise != "field":
            raise InputError(
                f"--fuse each_step with --noise {self.noise}: blending unrelated noise would weaken it;"
                " use --noise field"
            )


@dataclass(frozen=True)
class PrecisionFlags:
    """Precision of the network, and whether it is compiled."""

    precision: str | None = flag(
        None, "precision of the network", Role.ARITHMETIC, choices=PRECISIONS, shown="--use_fp16, or the preset's"
    )
    compile: bool = flag(
        False,
        "compile the norms with torch.compile, which takes a C++ compiler and a minute or so",
        Role.ARITHMETIC,
    )


@dataclass(frozen=True)
class ExecutionFlags:
    """Whether a run is continued or only described, and the number of threads."""

    resume: bool = flag(False, "continue an interrupted run: take over its finished patches and subjects", Role.FILES)
    info: bool = flag(
        False, "only say how the volume would be cut into patches and what memory they would take", Role.FILES
    )
    threads: int = threads_flag()
    stall_seconds: float | None = stall_flag()


INFERENCE_FLAGS = flags_of(
    OutputFlags,
    ReportFlags,
    InputFlags,
    PresetFlags,
    Sampling,
    PreprocessingConfig,
    PrecisionFlags,
    ExecutionFlags,
    ModelConfig,
    DiffusionConfig,
)
"""All that decides what becomes of a scan, by name: the flags of `scripts/test.py`, and the grid that a header says."""
