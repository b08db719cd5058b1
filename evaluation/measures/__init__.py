"""Metrics of image quality, one file per topic, and the table of their definitions.

`measure` computes those of one image, `measure_ensemble` those of several realisations; `METRICS` defines each.
"""

from evaluation.measures.definitions import METRICS
from evaluation.measures.ensemble_measurements import measure_ensemble
from evaluation.measures.examination import Examination
from evaluation.measures.image_measurements import measure
from evaluation.measures.measurement import LESIONS, Measurement, Metric, pooled_region

__all__ = [
    "LESIONS",
    "METRICS",
    "Examination",
    "Measurement",
    "Metric",
    "measure",
    "measure_ensemble",
    "pooled_region",
]
