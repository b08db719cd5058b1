"""Numbers that say how good an image is, one file per subject, and the table of all of them.

`measure` takes them of an image, `measure_ensemble` of the realisations of one; `METRICS` says what each means.
"""

from evaluation.measures.definitions import METRICS
from evaluation.measures.ensemble_measurements import measure_ensemble
from evaluation.measures.examination import Examination
from evaluation.measures.image_measurements import measure
from evaluation.measures.measurement import Measurement, Metric

__all__ = ["METRICS", "Examination", "Measurement", "Metric", "measure", "measure_ensemble"]
