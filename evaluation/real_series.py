"""Denoise a real series that has no low-dose partner, and check the effect by fixed rules.

    mpiexec -n 2 python evaluation/real_series.py --series SERIES --model_path checkpoint/demo_ddpm3d.pt --out OUT

Reports noise and means in uniform tissue, foci lost or appearing, and whether denoising undoes added noise. OUT
receives report.json, report.md, the volumes, and with --neck_mm a picture of what lies below the neck.
"""

import json
from dataclasses import MISSING, asdict, dataclass
from math import inf
from pathlib import Path

import numpy as np
from scipy.stats import t as student

from evaluation.equal_noise import gaussian_of_equal_noise
from evaluation.filters import TISSUE_SUV
from evaluation.measures.image_fidelity import clip_suv, psnr
from evaluation.mip_pictures import save_coronal_mips
from evaluation.weights_method import method_of
from guided_diffusion.commands import denoise_flags
from guided_diffusion.commands.denoise import denoise_subjects
from guided_diffusion.commands.input_flags import add_input_flags, overrides_from, words_of
from guided_diffusion.config import Role, flag
from guided_diffusion.config.inference_flags import TagFlags
from guided_diffusion.config.parser import Parser, add_flags, read_flags
from guided_diffusion.dist_util import communicator, on_root, run_main
from guided_diffusion.errors import InputError
from guided_diffusion.files import write_text
from guided_diffusion.inference.earlier_results import check_same_scan
from guided_diffusion.inference.subjects import DENOISED_NAME, UNCERTAINTY_NAME, Subject
from guided_diffusion.pet.fingerprint import fingerprint
from guided_diffusion.pet.grid import Volume
from guided_diffusion.pet.orientation import turned
from guided_diffusion.pet.preparation import check_output
from guided_diffusion.pet.suv import SUVOverrides
from guided_diffusion.pet.thinning import fraction_of, measure_noise
from guided_diffusion.pet.thinning import thinned as thinned_scan
from guided_diffusion.pet.uniform_tissue import most_uniform_spheres, sphere_statistics
from guided_diffusion.pet.volume import load_volume, save_volume
from guided_diffusion.ranks.stalls import watching
from guided_diffusion.report.findings import find
from guided_diffusion.report.images import position_mm, slices_of_head

NOISE_SEED = 0
LESS_NOISE_PERCENT = 30.0
SAME_MEAN_PERCENT = 2.0
LEVEL, LEAST_COVERAGE_PERCENT, MOST_COVERAGE_PERCENT = 0.95, 90.0, 99.0
PICTURE_WINDOW = (0.0, 6.0)

Report = dict[str, object]


@dataclass(frozen=True)
class SeriesFlags:
    """Flags that name the series, the weights and the folder of results."""

    series: Path = flag(MISSING, "a real scan: DICOM folder or NIfTI in SUV", Role.FILES, metavar="PATH")
    model_path: Path = flag(MISSING, "the weights", Role.FILES, metavar="FILE")
    out: Path = flag(MISSING, "folder of results; denoised volumes there are kept", Role.FILES, metavar="DIR")
    neck_mm: float | None = flag(
        None,
        "distance of the neck from the uppermost slice; without it there is no picture",
        Role.IMAGES,
        metavar="MM",
    )
    thin: str = flag("1/4", "dose fraction of the noisier version that is made of the series", Role.IMAGES)
    realisations: int = flag(
        1, "2 or more, with weights that draw images: as many are drawn of the noisier version for the series itself",
        Role.REALISATIONS, metavar="K",
    )  # fmt: skip

    def __post_init__(self) -> None:
        if self.realisations < 1:
            raise InputError(f"--realisations {self.realisations}: at least 1")
        if self.neck_mm is not None and not 0 <= self.neck_mm < inf:  # NaN included
            raise InputError(f"--neck_mm {self.neck_mm:g}: must be 0 or more")
        self.dose  # noqa: B018 (checked)

    @property
    def dose(self) -> float:
        """The number that `thin` says. Raises InputError for one that is no share of a dose."""
        return fraction_of("--thin", self.thin)


def main() -> None:
    flags, overrides, of_thinned = communicator().bcast(on_root(read_command_line))
    thinned = flags.out / "thinned.nii.gz"
    with watching(None):  # which encloses both of the denoisings, and the report
        on_root(write_thinned, flags.series, flags.dose, thinned, overrides)
        denoise(flags, flags.series, "denoised", *words_of(overrides))
        denoise(flags, thinned, "denoised_thinned", *of_thinned)
        on_root(write_report, flags, overrides)


def read_command_line() -> tuple[SeriesFlags, SUVOverrides | None, tuple[object, ...]]:
    """The flags, replacements of the series' tags, and the flags of `scripts/test.py` for the noisier version only.

    Raises InputError for weights that cannot do what they ask for.
    """
    parsed = create_parser().parse_args()
    flags = read_flags(SeriesFlags, vars(parsed))
    method = method_of(flags.model_path)
    if flags.realisations > 1 and not method.noise_fields:
        raise InputError(f"--realisations {flags.realisations}: {flags.model_path} draws no images of a stated dose")
    of_series = ("--dose_fraction", flags.thin) if method.noise_free else ()
    drawn = ("--realisations", flags.realisations) if flags.realisations > 1 else ()
    return flags, overrides_from(parsed), (*of_series, *drawn)


def denoise(flags: SeriesFlags, scan: Path, folder: str, *further: object) -> None:
    """Denoise a scan into a folder of the results, unless it is there already; all ranks call this together."""
    arguments = ["--base_samples", scan, "--model_path", flags.model_path, "--save_dir", flags.out / folder, *further]
    denoise_subjects(denoise_flags.create_parser(""), [*map(str, arguments), "--resume", "True"])


def create_parser() -> Parser:
    parser = Parser(__doc__)
    add_flags(parser, SeriesFlags)
    add_input_flags(parser, TagFlags)
    return parser


def write_thinned(series: Path, dose: float, path: Path, overrides: SUVOverrides | None) -> None:
    """The series as if at a fraction of its dose: its own noise is measured in uniform tissue, and more is added.

    Raises InputError where the folder has results of another series, before anything there is replaced.
    """
    check_output(str(path), [str(series)])
    out = path.parent
    loaded = load_volume(series, overrides=overrides)
    check_same_scan(Subject(str(series), out / "denoised"), fingerprint(loaded), flag="--out")
    scan = turned(loaded)
    noisy = thinned_scan(scan, measure_noise(scan, series), dose, NOISE_SEED)
    save_volume(Volume(noisy.data, scan.affine), path)


def write_report(flags: SeriesFlags, overrides: SUVOverrides | None) -> None:
    """report.json, report.md and the picture from the series and the volumes in `out`."""
    out = flags.out
    scan = turned(load_volume(flags.series, overrides=overrides))
    paths = (out / "denoised" / DENOISED_NAME, out / "thinned.nii.gz", out / "denoised_thinned" / DENOISED_NAME)
    denoised, thinned, restored = (turned(load_volume(path)) for path in paths)
    report = measure(scan, denoised)
    report |= {"thinned_to": flags.thin, "thinned_psnr": compare_thinned(scan, thinned, restored)}
    if flags.realisations > 1:
        bar = turned(load_volume(out / "denoised_thinned" / UNCERTAINTY_NAME))
        report["error_bar"] = check_error_bar(scan.data, restored.data, bar.data, flags.realisations)
    write_text(out / "report.json", json.dumps(report, indent=1) + "\n")
    text = format_report(report)
    write_text(out / "report.md", text)
    print(text, end="")
    if flags.neck_mm is not None:
        low = f"{flags.thin} dose"
        shown = {"input": scan, "denoised": denoised, low: thinned, f"{low}, denoised": restored}
        save_mips(out / "coronal_mips.png", shown, flags.neck_mm)


def compare_thinned(scan: Volume, thinned: Volume, restored: Volume) -> dict[str, float]:
    """PSNR (dB) against a scan of its thinned version: as it is, denoised, and after a Gaussian filter of equal noise.

    Noise is the median COV in the scan's most uniform spheres: `noise` (%) is that of the denoised version,
    `gaussian_noise` that of the filtered one, which is higher if no filter reaches the former. `gaussian_mm` is the
    filter's sigma.
    """
    places = tuple(most_uniform_spheres(*sphere_statistics(scan.data, scan.voxel_mm), scan.voxel_mm).T)

    def noise_of(volume: np.ndarray) -> float:
        mean, deviation = sphere_statistics(volume, scan.voxel_mm)
        return float(np.median(deviation[places] / mean[places]))

    filtered, sigma_mm = gaussian_of_equal_noise(thinned.data, scan.voxel_mm, noise_of, noise_of(restored.data))
    reference = clip_suv(scan.data)
    numbers = {"before": thinned.data, "after": restored.data, "gaussian": filtered}
    noise = {"noise": 100 * noise_of(restored.data), "gaussian_noise": 100 * noise_of(filtered)}
    psnrs = {name: psnr(reference, clip_suv(data)) for name, data in numbers.items()}
    return psnrs | noise | {"gaussian_mm": sigma_mm}


def check_error_bar(scan: np.ndarray, mean: np.ndarray, bar: np.ndarray, number: int) -> dict[str, float]:
    """Whether a scan deviates from the prediction from its thinned version by as much as the error bar says.

    scan, mean, bar: float32 [X, Y, Z] in SUV; the bar is the standard deviation of `number` images. For voxels with a
    mean above 0.3 SUV, gives the share within the 95 % interval (%), by the quantile of Student's distribution for this
    number of images, and the root mean square of the bar over that of the error (1 is right). `measures.ensembles` has
    both for an error about the images' own mean, which is uncertain itself; this mean is the regression's.
    """
    body = mean > TISSUE_SUV
    error, deviation = (scan - mean)[body].astype(float), bar[body].astype(float)
    inside = np.abs(error) <= student.ppf((1 + LEVEL) / 2, number - 1) * deviation
    return {
        "coverage_percent": float(100 * inside.mean()),
        "spread_over_error": float(np.sqrt((deviation**2).mean() / (error**2).mean())),
    }


def measure(scan: Volume, denoised: Volume) -> Report:
    """Noise, means and foci of a scan before and after; both with axes posterior, left, superior, in SUV."""
    found = find(scan, denoised)
    spheres = [
        {
            "mm": position_mm(scan.affine, sphere.voxel),
            "mean_before": sphere.mean_before,
            "mean_after": sphere.mean_after,
            "cov_before": sphere.cov_before,
            "cov_after": sphere.cov_after,
        }
        for sphere in found.spheres
    ]
    lost, appearing = (
        [asdict(focus) | {"mm": position_mm(scan.affine, focus.voxel)} for focus in foci]
        for foci in (found.lost, found.new)
    )
    return {
        "uniform_spheres": spheres,
        "change_of_all_warm_spheres_percent": dict(zip(("5 %", "median", "95 %"), found.change_of_warm, strict=True)),
        "foci": {
            "before": len(found.before),
            "after": len(found.after),
            "lost": lost,
            "appearing": appearing,
        },
    }


def format_report(report: Report) -> str:
    """The report for a reader: what was asked for, what was found."""
    spheres, foci, thinned = report["uniform_spheres"], report["foci"], report["thinned_psnr"]
    cov_before, cov_after = (float(np.median([s[f"cov_{when}"] for s in spheres])) for when in ("before", "after"))
    fall = 100 * (1 - cov_after / cov_before)
    changes = [100 * (sphere["mean_after"] / sphere["mean_before"] - 1) for sphere in spheres]
    largest = max(changes, key=abs)
    low, median, high = report["change_of_all_warm_spheres_percent"].values()
    rows = [
        (f"COV in the {len(spheres)} most uniform spheres, median",
         f"{cov_before:.1f} to {cov_after:.1f} % ({-fall:+.0f} %)", fall >= LESS_NOISE_PERCENT),
        ("their means, largest change", f"{largest:+.1f} %", abs(largest) <= SAME_MEAN_PERCENT),
        ("foci lost", f"{len(foci['lost'])} of {foci['before']}", not foci["lost"]),
        ("foci appearing", f"{len(foci['appearing'])} of {foci['after']}", not foci["appearing"]),
        (f"PSNR of the series thinned to {report['thinned_to']}",
         f"{thinned['before']:.2f} to {thinned['after']:.2f} dB", thinned["after"] > thinned["before"]),
        (f"the same over a Gaussian of equal noise (sigma {thinned['gaussian_mm']:.1f} mm, COV"
         f" {thinned['gaussian_noise']:.1f} %, the model's {thinned['noise']:.1f} %)",
         f"{thinned['after'] - thinned['gaussian']:+.2f} dB", thinned["after"] > thinned["gaussian"]),
    ]  # fmt: skip
    if "error_bar" in report:
        bar = report["error_bar"]
        covered, spread = bar["coverage_percent"], bar["spread_over_error"]
        rows.append((
            "voxels within the 95 % intervals that the thinned series predicts",
            f"{covered:.1f} % (error bar over error {spread:.2f})",
            LEAST_COVERAGE_PERCENT <= covered <= MOST_COVERAGE_PERCENT,
        ))  # fmt: skip
    lines = ["| | measured | as it should be |", "|---|---|---|"]
    lines += [f"| {what} | {measured} | {'yes' if good else '**no**'} |" for what, measured, good in rows]
    if thinned["after"] <= thinned["gaussian"]:
        lines += ["", "On this series the model is no better than a Gaussian filter that leaves as much noise."]
    lines += ["", f"Means of all warm spheres: median {median:+.1f} %, 90 % within {low:+.1f} to {high:+.1f} %.", ""]
    for kind in ("lost", "appearing"):
        for focus in foci[kind]:
            x, y, z = focus["mm"]
            lines.append(
                f"- {kind}: SUVpeak {focus['suv_peak']:.1f} at {x}, {y}, {z} mm (RAS),"
                f" contrast {focus['contrast']:.1f}, in the other image {focus['contrast_elsewhere']:.1f}"
            )
    return "\n".join(lines).rstrip() + "\n"


def save_mips(path: Path, volumes: dict[str, Volume], neck_mm: float) -> None:
    """Coronal MIPs of what lies below the neck."""
    scan = next(iter(volumes.values()))
    slices = slices_of_head(neck_mm, scan.voxel_mm[2])
    if not 0 <= slices < scan.data.shape[2]:
        raise InputError(f"--neck_mm {neck_mm:g}: the scan is {scan.data.shape[2] * scan.voxel_mm[2]:.0f} mm long")
    kept = {title: volume.data[:, :, : scan.data.shape[2] - slices] for title, volume in volumes.items()}
    save_coronal_mips(path, kept, scan.voxel_mm, PICTURE_WINDOW)


if __name__ == "__main__":
    run_main(main)
