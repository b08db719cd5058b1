"""The NEMA IEC phantom before and after denoising, beside a Gaussian filter that leaves as much noise.

    python evaluation/phantom.py --scan SERIES --ratio 8 --model_path checkpoint/local3d.pt --out OUT
    python evaluation/phantom.py --simulate held-out-fine --noise 0.3 --model_path checkpoint/local3d.pt --out OUT

Contrast recovery of the six spheres, background variability, and the limits of EARL 1. OUT receives report.json,
report.md, contrast.png, the denoised volume, and the scan with its flags where it is simulated.
"""

import json
from dataclasses import MISSING, dataclass
from math import inf
from pathlib import Path

import numpy as np

from evaluation.equal_noise import gaussian_of_equal_noise
from evaluation.iec_spheres import Numbers, Places, find_places, measure_phantom
from guided_diffusion.commands import denoise_flags
from guided_diffusion.commands.denoise import denoise_subjects
from guided_diffusion.commands.input_flags import add_input_flags, overrides_from, words_of
from guided_diffusion.config import Role, flag
from guided_diffusion.config.inference_flags import TagFlags
from guided_diffusion.config.parser import Parser, add_flags, read_flags, refuse_without_effect
from guided_diffusion.dist_util import communicator, on_root, run_main
from guided_diffusion.errors import InputError
from guided_diffusion.files import writable_folder, write_text
from guided_diffusion.gate import read_small
from guided_diffusion.inference.earlier_results import check_same_scan
from guided_diffusion.inference.subjects import DENOISED_NAME, Subject, digest_of
from guided_diffusion.pet.damage import damage_as
from guided_diffusion.pet.fingerprint import fingerprint
from guided_diffusion.pet.grid import Volume
from guided_diffusion.pet.orientation import turned
from guided_diffusion.pet.suv import SUVOverrides
from guided_diffusion.pet.volume import load_volume, save_volume
from guided_diffusion.ranks.stalls import watching
from guided_diffusion.report.picture_files import save_png
from guided_diffusion.simulation.iec_phantom import SPHERES_MM, scan_phantom
from guided_diffusion.simulation.random_acquisition import RANDOM_SCANNERS, draw_acquisition

EARL1_RCMAX = {10: (0.34, 0.57), 13: (0.59, 0.85), 17: (0.73, 1.01), 37: (0.95, 1.16)}
"""Limits of the highest voxel over the true activity (Boellaard et al., Eur J Nucl Med Mol Imaging 42:328, 2015)."""
RECORD_NAME = "simulated.json"  # not scan.json, which would be the scan's sidecar
CURVES = (("input", "tab:grey"), ("denoised", "tab:blue"), ("gaussian", "tab:orange"))

Report = dict[str, object]


@dataclass(frozen=True, kw_only=True)
class PhantomFlags:
    """Flags that name the phantom, the weights and the folder of results."""

    scan: Path | None = flag(None, "a phantom's scan: DICOM folder or NIfTI", Role.FILES, metavar="PATH")
    simulate: str | None = flag(
        None, "simulate one instead, at a scanner and a reconstruction drawn from these", Role.IMAGES,
        choices=RANDOM_SCANNERS,
    )  # fmt: skip
    ratio: float = flag(8.0, "activity of the spheres over the background's", Role.IMAGES)
    noise: float = flag(0.3, "simulated: coefficient of variation of the background's voxels", Role.IMAGES)
    seed: int = flag(0, "simulated: names scanner, reconstruction and counts", Role.IMAGES)
    model_path: Path = flag(MISSING, "the weights", Role.FILES, metavar="FILE")
    out: Path = flag(MISSING, "folder of results; a denoised volume there is kept", Role.FILES, metavar="DIR")

    def __post_init__(self) -> None:
        if (self.scan is None) == (self.simulate is None):
            raise InputError("give either --scan or --simulate")
        if not 1 < self.ratio < inf:  # NaN included
            raise InputError(f"--ratio {self.ratio:g}: spheres are hotter than the background, above 1")
        if not 0.02 <= self.noise <= 2:
            raise InputError(f"--noise {self.noise:g}: from 0.02 to 2")
        if self.seed < 0:
            raise InputError(f"--seed {self.seed}: must be 0 or more")


def main() -> None:
    flags, overrides = communicator().bcast(on_root(read_command_line))
    scan = flags.scan or flags.out / "scan.nii.gz"
    arguments = ["--base_samples", scan, "--model_path", flags.model_path, "--save_dir", flags.out / "denoised"]
    arguments += ["--resume", "True", *words_of(overrides)]
    with watching(None):  # which encloses the report too
        on_root(write_simulated, flags, scan)
        on_root(check_scan, flags, scan, overrides)
        denoise_subjects(denoise_flags.create_parser(""), [*map(str, arguments)])
        on_root(write_report, flags, scan, overrides)


def create_parser() -> Parser:
    parser = Parser(__doc__)
    add_flags(parser, PhantomFlags, given_only=True)
    add_input_flags(parser, TagFlags)
    return parser


def read_command_line() -> tuple[PhantomFlags, SUVOverrides | None]:
    """The flags, once the folder of results can be written, and replacements of the scan's tags."""
    parsed = create_parser().parse_args()
    flags, overrides = read_flags(PhantomFlags, vars(parsed)), overrides_from(parsed)
    if flags.simulate is None:
        refuse_without_effect(vars(parsed), ("noise", "seed"), "is for a phantom that is simulated (--simulate)")
    if flags.simulate is not None and overrides is not None:
        raise InputError(f"{words_of(overrides)[0].partition('=')[0]} is for a --scan")
    writable_folder(flags.out)
    return flags, overrides


def write_simulated(flags: PhantomFlags, path: Path) -> None:
    """A phantom's scan, if one is to be simulated and none of the same flags is there yet, and a record of these.

    The record has the noise that was reached, too. Raises InputError for noise that is not, and where a scan stands
    there without a record: it may be the user's own.
    """
    if flags.simulate is None:
        return
    record = path.with_name(RECORD_NAME)
    deciding = {"simulate": flags.simulate, "ratio": flags.ratio, "noise": flags.noise, "seed": flags.seed}
    if path.exists():
        if not record.exists():
            raise InputError(
                f"{path}: no {RECORD_NAME} beside it says how it was simulated; move it or choose another --out"
            )
        with damage_as(f"{record}: is no readable JSON; remove it and {path.name}"):
            kept = dict(json.loads(read_small(record)))
        if kept == deciding | {"noise_reached": kept.get("noise_reached"), "sha256": digest_of(path)}:
            return
    acquisition = draw_acquisition(flags.simulate, 1, np.random.default_rng(flags.seed))
    scanned = scan_phantom(acquisition, flags.ratio, flags.seed, background_noise, flags.noise)
    save_volume(scanned.image, path)
    made = deciding | {"noise_reached": scanned.noise, "sha256": digest_of(path)}
    write_text(record, json.dumps(made, indent=1) + "\n")


def check_scan(flags: PhantomFlags, path: Path, overrides: SUVOverrides | None) -> None:
    """Raises InputError, before the work, for a scan of no phantom and for a folder with results of another scan."""
    scan = load_volume(path, overrides=overrides)
    check_same_scan(Subject(str(path), flags.out / "denoised"), fingerprint(scan), flag="--out")
    upright = turned(scan)
    find_places(upright.data, upright.voxel_mm)


def background_noise(image: Volume) -> float:
    """The coefficient of variation of the background's voxels in a phantom's scan."""
    upright = turned(image)
    return measure_phantom(upright.data, find_places(upright.data, upright.voxel_mm), upright.voxel_mm).noise


def write_report(flags: PhantomFlags, scan: Path, overrides: SUVOverrides | None) -> None:
    """report.json, report.md and contrast.png from the scan and its denoised image."""
    before = turned(load_volume(scan, overrides=overrides))
    after = turned(load_volume(flags.out / "denoised" / DENOISED_NAME))
    report = compare(before, after, flags.ratio)
    write_text(flags.out / "report.json", json.dumps(report, indent=1) + "\n")
    text = format_report(report)
    write_text(flags.out / "report.md", text)
    print(text, end="")
    draw_contrast(flags.out / "contrast.png", report)


def compare(before: Volume, after: Volume, ratio: float) -> Report:
    """Numbers of a scan, of its denoised image and of the Gaussian of equal noise; places are found in the scan."""
    places = find_places(before.data, before.voxel_mm)
    own, denoised = (measure_phantom(image.data, places, before.voxel_mm) for image in (before, after))

    def noise_of(image: np.ndarray) -> float:
        return measure_phantom(image, places, before.voxel_mm).noise

    filtered, sigma_mm = gaussian_of_equal_noise(before.data, before.voxel_mm, noise_of, denoised.noise)
    images = {"input": own, "denoised": denoised, "gaussian": measure_phantom(filtered, places, before.voxel_mm)}
    return {
        "sphere_mm": list(SPHERES_MM),
        "gaussian_mm": sigma_mm,
        "centres_mm": _in_mm(before, places),
        "images": {name: _numbers(numbers, own, ratio) for name, numbers in images.items()},
    }


def _numbers(numbers: Numbers, of_input: Numbers, ratio: float) -> dict[str, object]:
    """Of one image: noise and variability (%), contrast recovery, contrast kept of the input's (%), and RCmax."""
    return {
        "noise_percent": 100 * numbers.noise,
        "variability_percent": (100 * numbers.variability).tolist(),
        "contrast_recovery": (numbers.contrast() / (ratio - 1)).tolist(),
        "contrast_kept_percent": (100 * numbers.contrast() / of_input.contrast()).tolist(),
        "rc_max": (numbers.peaks / (ratio * of_input.background)).tolist(),
    }


def _in_mm(scan: Volume, places: Places) -> list[list[float]]:
    world = places.centres @ scan.affine[:3, :3].T + scan.affine[:3, 3]
    return np.round(world, 1).tolist()


def format_report(report: Report) -> str:
    """The report for a reader."""
    images = report["images"]
    own, model, gaussian = (images[name] for name, _ in CURVES)
    lines = [
        f"Noise of the background (coefficient of variation of its voxels): {own['noise_percent']:.1f} % to"
        f" {model['noise_percent']:.1f} %, {100 * model['noise_percent'] / own['noise_percent']:.0f} % of it."
        f" Gaussian of equal noise: sigma {report['gaussian_mm']:.1f} mm.",
        "",
        "| sphere (mm) | contrast recovery: input | denoised | Gaussian | kept: denoised | Gaussian"
        " | variability: input | denoised | RCmax: input | denoised | EARL 1 |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for n, diameter in enumerate(report["sphere_mm"]):
        low, high = EARL1_RCMAX.get(diameter, (None, None))
        cells = [f"{image['contrast_recovery'][n]:.2f}" for image in (own, model, gaussian)]
        cells += [f"{image['contrast_kept_percent'][n]:.0f} %" for image in (model, gaussian)]
        cells += [f"{image['variability_percent'][n]:.1f} %" for image in (own, model)]
        cells += [f"{image['rc_max'][n]:.2f}" for image in (own, model)]
        lines.append(f"| {diameter} | {' | '.join(cells)} | {f'{low} to {high}' if low else '–'} |")
    worse = [
        str(diameter)
        for diameter, ours, theirs in zip(
            report["sphere_mm"], model["contrast_recovery"], gaussian["contrast_recovery"], strict=True
        )
        if ours <= theirs
    ]
    verdict = (
        f"No more contrast than with the Gaussian is kept by: {', '.join(worse)} mm."
        if worse
        else "Every sphere keeps more contrast than with the Gaussian."
    )
    return "\n".join([*lines, "", verdict]) + "\n"


def draw_contrast(path: Path, report: Report) -> None:
    """Contrast recovery and RCmax over the spheres' diameters, with the limits of EARL 1."""
    from matplotlib.figure import Figure  # once guided_diffusion takes what Matplotlib says as it is loaded

    figure = Figure(figsize=(10, 4), layout="constrained")
    recovery, peaks = figure.subplots(1, 2)
    for name, colour in CURVES:
        numbers = report["images"][name]
        label = f"{name}, noise {numbers['noise_percent']:.1f} %"
        recovery.plot(report["sphere_mm"], numbers["contrast_recovery"], "o-", color=colour, label=label)
        peaks.plot(report["sphere_mm"], numbers["rc_max"], "o-", color=colour, label=label)
    limits = np.array(list(EARL1_RCMAX.values()))
    peaks.errorbar(
        list(EARL1_RCMAX), limits.mean(axis=1), np.diff(limits)[:, 0] / 2,
        fmt="none", ecolor="black", capsize=4, label="EARL 1",
    )  # fmt: skip
    for axes, title in ((recovery, "contrast recovery"), (peaks, "RCmax")):
        axes.set(xlabel="sphere (mm)", ylabel=title, ylim=(0, None))
        axes.legend(fontsize=8)
    save_png(figure, path, dpi=120)


if __name__ == "__main__":
    run_main(main)
