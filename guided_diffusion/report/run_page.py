"""The HTML report on one denoised scan."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student

from guided_diffusion.pet import image_quality
from guided_diffusion.pet.foci import Focus
from guided_diffusion.pet.grid import Volume
from guided_diffusion.pet.normalisation import DEFAULT_SUV_MAX
from guided_diffusion.report import images as shown_images
from guided_diffusion.report.facts import facts_of
from guided_diffusion.report.findings import Findings, find
from guided_diffusion.report.images import Image
from guided_diffusion.report.page import write_page

TITLE = "PET denoising report"
SUV_RANGE = (0.0, DEFAULT_SUV_MAX)  # of PSNR and SSIM
ALERT_PERCENT = 5.0


@dataclass(frozen=True, eq=False)
class RunImages:
    """The volumes of a run, all in SUV on the scan's grid. uncertainty: the standard deviation of several realisations.

    reference: a normal-dose image to compare with.
    """

    scan: Volume
    denoised: Volume
    uncertainty: Volume | None = None
    reference: Volume | None = None

    def titled(self) -> list[Image]:
        """All volumes that exist, the scan and the result first."""
        images = [Image("Input", self.scan), Image("Denoised", self.denoised)]
        if self.uncertainty is not None:
            images.append(Image("Uncertainty (SD)", self.uncertainty, is_deviation=True))
        if self.reference is not None:
            images.append(Image("Reference", self.reference))
        return images


def write_run_page(
    path: Path,
    images: RunImages,
    manifest: Mapping[str, Any],
    *,
    peaks: np.ndarray | None = None,
    neck_mm: float = 0.0,
) -> None:
    """Write the report on a run.

    manifest: the content of `run.json`. peaks: float [realisations, foci], SUVpeak of every realisation near each focus
    of the scan, in the order of `foci_of`; None for a single realisation. neck_mm: length to leave out of all pictures
    at the top. Raises InputError if grids differ or nothing would be left.
    """
    whole = shown_images.upright(images.titled())
    kept = shown_images.without_head(whole, neck_mm)
    layout = shown_images.viewer(kept)
    texts = layout.pop("texts")
    findings = find(whole[0].volume, whole[1].volume)
    affine = whole[0].volume.affine
    differences = [(kept[1], kept[0])] + [(kept[1], image) for image in kept if image.title == "Reference"]
    content = {
        "title": TITLE,
        "neck_mm": neck_mm,
        "cards": _cards(findings, manifest),
        "projections": shown_images.projection_rows(kept, differences),
        "rotation": shown_images.rotation([image for image in kept if not image.is_deviation]),
        "layout": layout,
        "texts": texts,
        "foci": _foci(findings, affine, layout, peaks),
        "has_intervals": peaks is not None,
        "spheres": _spheres(findings, affine, layout),
        "change_of_warm": findings.change_of_warm,
        "metrics": _metrics(images),
        "realisations": manifest["settings"]["sampling"]["realisations"],
        "ignored": manifest["without_effect"],
        "facts": facts_of(manifest),
    }
    write_page(path, "run.html", content)


def _cards(findings: Findings, manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The table of main results."""
    before, after = findings.median_cov
    kept = len(findings.before) - len(findings.lost)
    cap = manifest["settings"]["preprocessing"]["suv_max"]
    above = manifest["input"]["above_suv_max"]
    cards = []
    if findings.spheres:
        change = findings.largest_change
        cards += [
            {
                "value": f"{before:.1f} → {after:.1f} %",
                "text": f"noise (COV) in {len(findings.spheres)} uniform spheres, median",
                "alert": after >= before,
            },
            {
                "value": f"{change:+.1f} %",
                "text": "largest change of a mean in these spheres",
                "alert": abs(change) > ALERT_PERCENT,
            },
        ]
    cards += [
        {"value": f"{kept} of {len(findings.before)}", "text": "foci of the input kept", "alert": bool(findings.lost)},
        {"value": str(len(findings.new)), "text": "foci that the input does not show", "alert": bool(findings.new)},
        {
            "value": f"{above['ml']:.1f} mL",
            "text": f"of the input above SUV {cap:g}, the model's limit; peak {above['peak']:.1f}",
            "alert": False,
        },
    ]
    return cards


def _foci(
    findings: Findings, affine: np.ndarray, layout: Mapping[str, Any], peaks: np.ndarray | None
) -> list[dict[str, Any]]:
    """Groups of foci: lost, new, kept; a row each."""
    numbered = list(enumerate(findings.before))
    own = [(focus, None if peaks is None else peaks[:, number]) for number, focus in numbered]
    lost = [_focus(focus, affine, layout, samples) for focus, samples in own if focus.is_lacking]
    kept = [_focus(focus, affine, layout, samples) for focus, samples in own if not focus.is_lacking]
    new = [_focus(_seen_from_the_scan(focus), affine, layout, None) for focus in findings.new]
    return [
        {"title": "Lost", "rows": lost, "has_intervals": True},
        {"title": "New", "rows": new, "has_intervals": False},
        {"title": "Kept", "rows": kept, "has_intervals": True},
    ]


def _seen_from_the_scan(focus: Focus) -> Focus:
    """A focus of the result with its numbers in the order input, result."""
    return Focus(focus.voxel, focus.suv_peak_elsewhere, focus.contrast_elsewhere, focus.suv_peak, focus.contrast)


def _focus(focus: Focus, affine: np.ndarray, layout: Mapping[str, Any], samples: np.ndarray | None) -> dict[str, Any]:
    row = {
        **shown_images.where(focus.voxel, affine, layout),
        "before": focus.suv_peak,
        "after": focus.suv_peak_elsewhere,
        "change": 100 * (focus.suv_peak_elsewhere / max(focus.suv_peak, 1e-6) - 1),
        "contrast_before": focus.contrast,
        "contrast_after": focus.contrast_elsewhere,
        "interval": "",
    }
    if samples is not None:
        low, high = _interval(samples)
        row["interval"] = f"{low:.2f} to {high:.2f}"
    return row


def _interval(samples: np.ndarray) -> tuple[float, float]:
    """Where one more realisation lies with a probability of 95 %, of K from a normal distribution, float [K]."""
    number = len(samples)
    reach = student.ppf(0.975, number - 1) * samples.std(ddof=1) * np.sqrt(1 + 1 / number)
    return samples.mean() - reach, samples.mean() + reach


def _spheres(findings: Findings, affine: np.ndarray, layout: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            **shown_images.where(sphere.voxel, affine, layout),
            "mean_before": sphere.mean_before,
            "mean_after": sphere.mean_after,
            "change": sphere.change_percent,
            "cov_before": sphere.cov_before,
            "cov_after": sphere.cov_after,
        }
        for sphere in findings.spheres
    ]


def _metrics(images: RunImages) -> list[dict[str, Any]]:
    """PSNR and SSIM of the scan and the result against the reference, where there is one."""
    if images.reference is None:
        return []
    reference = np.clip(images.reference.data, *SUV_RANGE)
    has_windows = min(reference.shape) >= image_quality.SSIM_WINDOW
    rows = []
    for title, volume in (("Input", images.scan), ("Denoised", images.denoised)):
        image = np.clip(volume.data, *SUV_RANGE)
        rows.append(
            {
                "title": title,
                "psnr": min(image_quality.LARGEST_PSNR, image_quality.psnr(reference, image, SUV_RANGE[1])),
                "ssim": image_quality.ssim(reference, image, SUV_RANGE[1]) if has_windows else None,
            }
        )
    return rows
