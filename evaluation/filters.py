"""Reference filters, each with one parameter, which is tuned on subjects other than those tested."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import gaussian_filter
from skimage.restoration import denoise_nl_means, denoise_tv_chambolle

from evaluation.measures.image_fidelity import clip_suv, psnr
from guided_diffusion.pet.blur import gaussian_blur

TUNING_SLICES, TUNING_VOXELS = 32, 2**20  # at the most; of the latter 18 slices on the published grid
NLM_PATCH, NLM_DISTANCE = 3, 3  # voxels: patches of 3x3x3 within 3 voxels either way, 23 mm at 3.3 mm
TISSUE_SUV = 0.3  # above this, noise is measured
MAD_TO_SIGMA = 1.4826  # of a normal distribution


@dataclass(frozen=True)
class FilterInput:
    """Input of a filter: `data` float32 [X, Y, Z] in SUV, `voxel_mm` along X, Y, Z, `noise` in SUV."""

    data: np.ndarray
    voxel_mm: tuple[float, float, float]
    noise: float

    def middle(self) -> "FilterInput":
        """The slices in the middle, enough for tuning; the noise stays that of the whole."""
        return replace(self, data=middle_slices(self.data))


def middle_slices(volume: np.ndarray) -> np.ndarray:
    """Slices in the middle of [X, Y, Z] along Z: 32, or as many as there are, or as have no more than 2^20 voxels."""
    plane = volume.shape[0] * volume.shape[1]
    slices = min(TUNING_SLICES, volume.shape[2], max(TUNING_VOXELS // plane, 1))
    first = (volume.shape[2] - slices) // 2
    return volume[:, :, first : first + slices]


def noise_level(volume: np.ndarray) -> float:
    """Noise of a volume [X, Y, Z] in SUV: what a Gaussian of one voxel removes in the body, by its median magnitude."""
    removed = volume - gaussian_filter(volume, 1)
    body = gaussian_filter(volume, 3) > TISSUE_SUV
    return float(MAD_TO_SIGMA * np.median(np.abs(removed[body]))) if body.any() else 0.0


def gaussian(scan: FilterInput, sigma_mm: float) -> np.ndarray:
    """Gaussian filter, isotropic in mm: float32 [X, Y, Z]."""
    return gaussian_blur(scan.data, sigma_mm, scan.voxel_mm)


def non_local_means(scan: FilterInput, strength: float) -> np.ndarray:
    """Non-local means (Buades et al. 2005) in 3D, float32 [X, Y, Z]; its width h is `strength` x the scan's noise.

    The strength is relative to the noise because scanners differ in noise by several times at the same dose.
    """
    return denoise_nl_means(
        scan.data,
        patch_size=NLM_PATCH,
        patch_distance=NLM_DISTANCE,
        h=strength * scan.noise,
        sigma=scan.noise,
        fast_mode=True,
        preserve_range=True,
    )


def total_variation(scan: FilterInput, strength: float) -> np.ndarray:
    """Total-variation denoising (Rudin, Osher and Fatemi 1992, by the algorithm of Chambolle 2004) in 3D, float32
    [X, Y, Z]: the image that is nearest to the scan among those of equal variation. Its weight is `strength` x noise.
    """
    if not scan.noise:
        return scan.data
    return denoise_tv_chambolle(scan.data, weight=strength * scan.noise)


@dataclass(frozen=True)
class Filter:
    """A filter, the name of its parameter, and the values to try."""

    apply: Callable[[FilterInput, float], np.ndarray]
    parameter: str
    candidates: tuple[float, ...]


FILTERS = {
    "gaussian": Filter(gaussian, "sigma_mm", tuple(np.arange(0, 10.5, 0.5).tolist())),
    "nl_means": Filter(non_local_means, "strength", (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0)),
    "total_variation": Filter(total_variation, "strength", (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0)),
}


def tuning_scores(
    name: str, scan: FilterInput, reference: np.ndarray, step: Callable[[], None] = lambda: None
) -> list[float]:
    """PSNR (dB, peak 16) of a scan's middle slices for each candidate; calls step() after each."""
    wanted, part, scores = clip_suv(middle_slices(reference)), scan.middle(), []
    for candidate in FILTERS[name].candidates:
        scores.append(psnr(wanted, clip_suv(FILTERS[name].apply(part, candidate))))
        step()
    return scores


def best_candidate(name: str, scores: Sequence[Sequence[float]]) -> tuple[float, float]:
    """The candidate with the best mean over scans (scores: one sequence per scan), and that mean."""
    means = np.mean(scores, axis=0)
    best = int(np.argmax(means))
    return FILTERS[name].candidates[best], float(means[best])
