"""Every metric by name: title, unit, which values are good, definition and source.

A metric that needs a reference has two names: one ending in `_normal` (against the normal-dose image) and one ending in
`_truth` (against the true activity, blurred to the scan's resolution).
"""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from evaluation.measures.measurement import Metric

_AGAINST = {"normal": "normal dose", "truth": "truth"}
_WITHOUT_REFERENCE = "low_dose"

_WITH_REFERENCE = {
    "psnr": Metric(
        "PSNR", "dB", 2, "higher", "10 log10(16² / MSE), MSE in SUV² over all voxels, SUV clipped to [0, 16]; at most"
        " 100, the value of equal images", "the published protocol, with a fixed peak; README"
    ),
    "ssim": Metric(
        "SSIM", "", 4, "higher", "mean structural similarity, windows of 7x7x7 voxels, data range 16, SUV clipped to"
        " [0, 16]", "Wang et al., IEEE Trans Image Process 13:600, 2004; scikit-image"
    ),
    "nrmse": Metric(
        "NRMSE", "%", 2, "lower", "root mean squared error over the reference's root mean square, SUV clipped to"
        " [0, 16]", "Fienup, Appl Opt 36:8352, 1997; scikit-image (euclidean)"
    ),
    "nmae": Metric(
        "NMAE", "%", 2, "lower", "mean absolute error over the reference's mean absolute value, SUV clipped to [0, 16]",
        "as NRMSE, with absolute values"
    ),
    "suv_mean_bias": Metric(
        "SUVmean bias", "%", 1, "target", "SUVmean of the region, its difference from the reference's", "ours"
    ),
    "suv_max_bias": Metric(
        "SUVmax bias", "%", 1, "target", "SUVmax of the region, its difference from the reference's", "ours"
    ),
    "suv_peak_bias": Metric(
        "SUVpeak bias", "%", 1, "target", "SUVpeak of the region, its difference from the reference's", "ours"
    ),
    "total_uptake_bias": Metric(
        "total uptake bias", "%", 1, "target", "total lesion uptake, its difference from the reference's", "ours"
    ),
    "contrast_recovery": Metric(
        "contrast recovery", "%", 1, "target", "mean of the lesion over that of the healthy tissue 8 to 16 mm off, less"
        " one, in per cent of the same in the reference, whose contrast is 0.5 or more", "NEMA NU 2, with a measured"
        " reference in place of the filled ratio", target=100.0
    ),
    "foci_lost": Metric(
        "foci lost", "", 2, "lower", "foci of the reference without a contrast of 1.5 within 8 mm in the image; a focus"
        " is a maximum of SUVpeak within 10 mm, of SUV 1 and twice its surroundings or more", "ours (pet/foci.py)"
    ),
    "foci_invented": Metric(
        "foci invented", "", 2, "lower", "foci of the image without a contrast of 1.5 within 8 mm in the reference",
        "as foci lost"
    ),
    "seam_index": Metric(
        "seam index", "", 3, "target", "mean absolute axial step of the error between slices where patches are blended,"
        " over that elsewhere", "ours", target=1.0
    ),
    "crps": Metric(
        "CRPS", "SUV", 4, "lower", "continuous ranked probability score of the realisations, fair, mean over voxels",
        "Gneiting and Raftery, J Am Stat Assoc 102:359, 2007; Ferro et al., Meteorol Appl 15:19, 2008"
    ),
    "crps_gain": Metric(
        "CRPS below the mean's error", "%", 1, "higher", "1 - CRPS / mean absolute error of the realisations' mean;"
        " 29.3 % for a calibrated normal forecast", "skill score with a deterministic forecast, whose CRPS is its"
        " absolute error, as reference"
    ),
    "spread_over_error": Metric(
        "spread over error", "", 2, "target", "root of (K + 1) / K times the mean variance of K realisations, over the"
        " root mean squared error of their mean", "Fortin et al., J Hydrometeorol 15:1708, 2014", target=1.0
    ),
    "rank_deviation": Metric(
        "rank histogram's deviation", "%", 1, "lower", "sum over the K + 1 ranks of the reference among K realisations"
        " of the share's distance from 1 / (K + 1)", "Hamill, Mon Weather Rev 129:550, 2001; Delle Monache et al.,"
        " J Geophys Res 111:D24307, 2006"
    ),
    **{f"coverage_{level}": Metric(
        f"coverage of {level} % intervals", "%", 1, "target", "share of voxels whose reference lies in mean +- t s"
        " sqrt(1 + 1/K), Student's t for K - 1 degrees of freedom", "prediction interval of a normal sample",
        target=float(level)
    ) for level in (50, 68, 95)},
    "suv_peak_coverage_95": Metric(
        "SUVpeak in its 95 % interval", "%", 0, "target", "100 where the reference's SUVpeak lies in the 95 % interval"
        " from the realisations' SUVpeak, else 0", "as coverage", target=95.0
    ),
}  # fmt: skip

_OF_THE_IMAGE = {
    "psnr_published": Metric(
        "PSNR, published peak", "dB", 2, "higher", "as psnr_normal, but the peak is the normal dose's highest voxel"
        " before clipping", "published protocol, README"
    ),
    "suv_mean": Metric("SUVmean", "SUV", 2, None, "mean over the region", "EANM, Boellaard et al. 2015"),
    "suv_max": Metric("SUVmax", "SUV", 2, None, "highest voxel of the region", "EANM, Boellaard et al. 2015"),
    "suv_peak": Metric(
        "SUVpeak", "SUV", 2, None, "highest mean over a sphere of 1 mL with its centre in the region, border voxels by"
        " the share inside", "PERCIST 1.0, Wahl et al., J Nucl Med 50 Suppl 1:122S, 2009"
    ),
    "total_uptake": Metric(
        "total lesion uptake", "SUV mL", 1, None, "volume times SUVmean of the lesion's voxels of 41 % of its SUVmax or"
        " more", "EANM, Boellaard et al., Eur J Nucl Med Mol Imaging 42:328, 2015"
    ),
    "lesion_cnr": Metric(
        "lesion CNR", "", 1, "higher", "SUVmean of the lesion less that of a sphere of 3 cm in the liver, over the"
        " standard deviation of the sphere's voxels", "sphere of PERCIST, Wahl et al., J Nucl Med 50 Suppl 1:122S, 2009"
    ),
    "cov": Metric(
        "COV", "%", 1, None, "standard deviation over mean of the voxels of a sphere of 3 cm, the deepest in the"
        " healthy liver, or the median of the 20 most uniform of the low dose where there are no labels",
        "doi:10.1186/s40658-019-0264-9"
    ),
    "cov_change_normal": Metric(
        "COV over normal dose's", "%", 1, None, "difference of the COV from the normal dose's; 0 for a realisation that"
        " looks like one", "ours"
    ),
    "correlation": Metric(
        "noise correlation width", "mm", 1, None, "full width at half maximum of the autocorrelation in the healthy"
        " liver within a sphere of 6 cm, geometric mean over the axes", "ours; sqrt(2) w for white noise behind a"
        " Gaussian of FWHM w"
    ),
    "correlation_change_normal": Metric(
        "correlation width over normal dose's", "%", 1, None, "difference of the width from the normal dose's; 0 for a"
        " realisation that looks like one", "ours"
    ),
    "uncertainty_mean": Metric(
        "uncertainty", "SUV", 4, None, "standard deviation between realisations, mean over voxels", "uncertainty.nii.gz"
    ),
    "uncertainty_variance": Metric(
        "variance of the uncertainty map", "SUV²", 5, None, "variance over voxels of the standard deviation between"
        " realisations", "ours"
    ),
    "realisation_variance": Metric(
        "variance between realisations", "SUV²", 5, None, "variance between realisations, mean over voxels", "ours"
    ),
}  # fmt: skip


def _table() -> dict[str, Metric]:
    pairs = {
        f"{name}_{reference}": replace(metric, title=f"{metric.title}, {text}")
        for name, metric in _WITH_REFERENCE.items()
        for reference, text in _AGAINST.items()
    }
    alone = {
        f"{name}_{_WITHOUT_REFERENCE}": replace(metric, title=f"{metric.title}, low dose")
        for name, metric in _WITH_REFERENCE.items()
        if name in ("suv_mean_bias", "foci_lost", "foci_invented", "seam_index")
    }
    return pairs | alone | _OF_THE_IMAGE


METRICS: Mapping[str, Metric] = MappingProxyType(_table())
