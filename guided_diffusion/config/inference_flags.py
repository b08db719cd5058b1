"""The flags of inference. Those of network, process, grid and patches are declared in `config.model`."""

import typing
from dataclasses import dataclass, replace
from math import inf
from typing import Any

from guided_diffusion.config.flags import Role, flag, flags_of, stall_flag, threads_flag
from guided_diffusion.config.model import DiffusionConfig, ModelConfig, PreprocessingConfig
from guided_diffusion.errors import InputError
from guided_diffusion.pet.suv_bases import SUVBasis
from guided_diffusion.pet.text import number_of

INFERENCE_PRESETS = ("paper", "fast")
PUBLISHED_SEED = 10
FUSIONS = ("end", "each_step")
PRECISIONS = ("float32", "bfloat16", "float16")
_BY_PRESET = "the preset's"
MANIFEST_DOSE = "manifest"
UNKNOWN_DOSE = 0.25
"""Of a scan whose dose nobody states, the image of four times the counts is estimated: a quarter of its noise stays,
and a quarter of whatever a network takes for noise by mistake."""


def suv_basis_flag() -> Any:
    """The flag of every command that writes SUV."""
    meaning = "what the written SUV is normalised by: body weight, lean body mass or body surface area"
    return flag("bw", meaning, Role.IMAGES, choices=typing.get_args(SUVBasis))


@dataclass(frozen=True)
class OutputFlags:
    """The scan, the weights and the files to write."""

    base_samples: str = flag("", "a scan, a DICOM folder, or a folder of subjects", Role.FILES, metavar="PATH")
    model_path: str = flag(
        "",
        "weights: a published state dict, or a checkpoint of this program",
        Role.FILES,
        metavar="FILE",
        shown="checkpoint/local3d.pt of the repository",
    )
    save_dir: str = flag("results", "folder for the results", Role.FILES, metavar="DIR")
    above_cap: str = flag(
        "keep",
        "uptake above the largest SUV that the model represents: keep the input's values, or clip",
        Role.IMAGES,
        choices=("keep", "clip"),
    )
    suv_basis: str = suv_basis_flag()
    write_dicom: bool = flag(
        False, "for DICOM input, also write a derived DICOM series into the folder denoised_dicom", Role.IMAGES
    )


@dataclass(frozen=True)
class ReportFlags:
    """The HTML report on each denoised scan."""

    report: bool = flag(
        False,
        "also write report.html: projections, linked slices, and foci and noise before and after denoising",
        Role.FILES,
    )
    reference: str = flag("", "normal-dose image of the scan, for the report", Role.FILES, metavar="PATH")
    report_neck_mm: float = flag(
        0.0,
        "cut this length off the top of every picture in the report, since an image of the head can show a face",
        Role.FILES,
        metavar="MM",
    )

    def __post_init__(self) -> None:
        """Raises InputError for flags about the report where none is written, and for no length."""
        if not self.report and (self.reference or self.report_neck_mm):
            raise InputError("--reference and --report_neck_mm belong to the report: give --report True")
        if not 0 <= self.report_neck_mm < inf:  # NaN included
            raise InputError(f"--report_neck_mm {self.report_neck_mm:g}: must be 0 or more")


@dataclass(frozen=True)
class TagFlags:
    """Replacements of an input's missing or wrong DICOM tags."""

    weight_kg: float | None = flag(None, "body weight in kg", Role.IMAGES)
    dose_bq: float | None = flag(None, "injected activity in Bq at the injection time", Role.IMAGES)
    injection_time: str | None = flag(None, "as HHMMSS, HH:MM:SS, or YYYYMMDDHHMMSS with the date", Role.IMAGES)
    half_life_s: float | None = flag(None, "half-life of the radionuclide in s", Role.IMAGES)
    scan_start: str | None = flag(
        None, "start of the scan, to which the image is decay-corrected; in the format of --injection_time", Role.IMAGES
    )


@dataclass(frozen=True)
class InputFlags(TagFlags):
    """The same, and the choice of an input's series."""

    series: str | None = flag(
        None, "SeriesInstanceUID or SeriesNumber to read, if a folder holds several PET series", Role.IMAGES
    )


@dataclass(frozen=True)
class PresetFlags:
    """The preset that gives all settings not stated, and two flags that published command lines contain."""

    preset: str | None = flag(
        None,
        "paper: the published protocol, the default for weights without a header; fast: what the header recommends,"
        " the default for weights that have one",
        Role.SAMPLING,
        choices=INFERENCE_PRESETS,
    )
    use_ddim: bool | None = flag(
        None, "flag of the published program: True means --sampler ddim, False --sampler ddpm", Role.STEPS
    )
    num_samples: int | None = flag(
        None, "number of patches as stated by published scripts; must match the number planned", Role.FILES
    )


@dataclass(frozen=True)
class Sampling:
    """Settings for sampling patches; those not given come from a preset. Raises InputError for impossible values.

    sampler, start_from: names in `samplers.SAMPLERS` and `samplers.STARTS`. start_step: the original timestep of the
    start, None for the last. noise: "field" names the noise by axial slice, so that overlapping patches get the same;
    "per_patch" is the published protocol, in which every patch restarts PyTorch's generator from `seed` (and further
    realisations from `seed` + 1, `seed` + 2, ...). realisations: how many volumes are sampled. fuse: "end" samples each
    patch by itself and blends the finished ones, as published; "each_step" blends neighbours after every step.
    """

    sampler: str = flag(
        "ddpm",
        "how the image is computed step by step",
        Role.STEPS,
        shown=_BY_PRESET,
        choices={
            "ddpm": "ancestral",
            "ddim": "first-order, deterministic",
            "dpmpp_2m": "DPM-Solver++, second-order, deterministic",
            "dpmpp_2m_sde": "the same, adding fresh noise at every step",
        },
    )
    start_from: str = flag(
        "noise",
        "image at which sampling starts",
        Role.STEPS,
        shown=_BY_PRESET,
        choices={
            "noise": "pure noise, and all timesteps that are used",
            "low_dose": "the low-dose image with the noise of --start_step, and only the timesteps up to there",
        },
    )
    start_step: int | None = flag(
        None,
        "with --start_from low_dose: timestep at which to start, from 0 to diffusion_steps - 1; rounded down to a"
        " timestep that is used",
        Role.STEPS,
        shown=_BY_PRESET,
    )
    clip_denoised: bool = flag(True, "clamp every predicted image to [-1, 1]", Role.SAMPLING)
    noise: str = flag(
        "field",
        "how patches are given noise",
        Role.SAMPLING,
        shown=_BY_PRESET,
        choices={
            "field": "from one noise field for the volume, so that overlapping patches agree",
            "per_patch": "the same in every patch, as in the published program",
        },
    )
    mirrored: bool = flag(
        False,
        "average every network call with that on the patch mirrored along all axes, in twice the time",
        Role.SAMPLING,
    )
    seed: int = flag(PUBLISHED_SEED, "seed of the noise", Role.SAMPLING)
    batch_size: int = flag(1, "patches denoised together; also the smallest unit of work of a rank", Role.ARITHMETIC)
    realisations: int = flag(
        1,
        "volumes to sample, each with its own noise; their mean is the result, and their voxelwise standard deviation"
        " is written beside it. Methods that draw images about a predicted mean write that mean instead",
        Role.REALISATIONS,
        metavar="K",
    )
    dose_fraction: str = flag(
        MANIFEST_DOSE,
        "dose of the scan relative to the image to estimate, such as 1/20: mean and error bars then describe that image"
        " as it would be acquired, noise included. 0: they describe the noise-free image. manifest: the dose that the"
        " manifest of a virtual trial states for each scan (0 for one at normal dose), and 1/4 for scans of no trial",
        Role.REFERENCE,
    )
    sample: bool = flag(
        False, "write the first realisation instead of the mean; with --dose_fraction, one plausible scan", Role.DRAWING
    )
    fuse: str = flag(
        "end",
        "when overlapping patches are blended. end: once each is finished; each_step: after every step, so that the"
        " volume is sampled as a whole",
        Role.SAMPLING,
        choices=FUSIONS,
    )

    @property
    def dose(self) -> float:
        """`dose_fraction` as a number. Raises InputError for one outside [0, 1).

        "manifest" is that of a scan without one: `at_dose` replaces it for a scan whose manifest states a dose.
        """
        if self.dose_fraction == MANIFEST_DOSE:
            return UNKNOWN_DOSE
        dose = number_of(self.dose_fraction)
        if not 0 <= dose < 1:
            raise InputError(f"--dose_fraction {self.dose_fraction!r}: a fraction such as 1/20, from 0 to below 1")
        return dose

    def at_dose(self, dose: float | None) -> "Sampling":
        """The settings for a scan whose manifest states this dose; None: no manifest does."""
        if self.dose_fraction != MANIFEST_DOSE:
            return self
        stated = UNKNOWN_DOSE if dose is None else dose
        return replace(self, dose_fraction=str(stated) if stated < 1 else "0")

    @property
    def drawn(self) -> int:
        """How many images are drawn about a mean: all realisations of several, and a single one if it is written."""
        return self.realisations if self.realisations > 1 or self.sample else 0

    def __post_init__(self) -> None:
        self.dose  # noqa: B018 raises for what is no fraction
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
        None,
        "precision of the network; where the default is bfloat16, devices without it calculate in float32",
        Role.ARITHMETIC,
        choices=PRECISIONS,
        shown="what --use_fp16 says, else the preset",
    )
    compile: bool = flag(
        False,
        "compile the normalisation layers with torch.compile (ddpm3d, unet3d and gan3d have some); needs a C++ "
        "compiler and about a minute",
        Role.ARITHMETIC,
    )


@dataclass(frozen=True)
class ExecutionFlags:
    """Whether a run is continued or only described, and the number of threads."""

    resume: bool = flag(False, "continue an interrupted run: reuse its finished patches and subjects", Role.FILES)
    info: bool = flag(False, "only print how the volume would be cut into patches, and the memory needed", Role.FILES)
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
"""The flags of `scripts/test.py` by name, and those of the grid, which a checkpoint's header states."""
