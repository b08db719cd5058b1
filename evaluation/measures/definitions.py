"""Every metric by name: title, unit, which values are good, definition and source.

A number that is measured against a reference has two names: it ends in `_normal` against the normal-dose image and in
`_truth` against the true activity, blurred to the scan's resolution.
"""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from evaluation.measures.measurement import Metric

_AGAINST = {"normal": "normal dose", "truth": "truth"}

_WITH_REFERENCE = {
    "psnr": Metric(
        "PSNR", "dB", 2, "higher", "10 log10(16² / MSE), MSE in SUV² over all voxels, SUV clipped to [0, 16]; 100 for"
        " equal images", "honest peak of the published protocol, README"
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
}  # fmt: skip


def _table() -> dict[str, Metric]:
    pairs = {
        f"{name}_{reference}": replace(metric, title=f"{metric.title}, {text}")
        for name, metric in _WITH_REFERENCE.items()
        for reference, text in _AGAINST.items()
    }
    return pairs | _OF_THE_IMAGE


METRICS: Mapping[str, Metric] = MappingProxyType(_table())
