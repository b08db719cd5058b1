"""One score per method over parts of the body and doses, weighted as in the Ultra-low Dose PET Imaging Challenge.

The challenge (udpet-challenge.github.io) weights the whole image 30 %, organs 35 % and lesions 35 %, and the doses 1/4
to 1/100 from 5 to 35 %. Its code was not available. Participants' public scripts compute NRMSE, PSNR and SSIM of the
image, and SUVmean, SUVmax and total uptake of organs and lesions, so these are used here; how they become one number is
our own choice. The scores compare methods on the same scans, and are not comparable with the challenge's own tables.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from evaluation.measures.examination import ORGANS
from evaluation.measures.measurement import LESIONS, pooled_region

PART_WEIGHTS = {"image": 0.30, "organs": 0.35, "lesions": 0.35}
DOSE_WEIGHTS = {1 / 4: 0.05, 1 / 10: 0.15, 1 / 20: 0.20, 1 / 50: 0.25, 1 / 100: 0.35}

OF_IMAGES = ("nrmse_normal", "ssim_normal")
OF_ORGANS = ("suv_mean_bias_normal", "suv_max_bias_normal")
OF_LESIONS = (*OF_ORGANS, "total_uptake_bias_normal")


class TableRow(Protocol):
    """What is needed of a measurement in a table: whose it is, and `Measurement`'s fields."""

    subject: str
    dose: float | None
    method: str
    metric: str
    region: str
    value: float


@dataclass(frozen=True)
class ChallengeScore:
    """100 for no error, 0 for the errors of the low dose, negative for larger ones.

    total: weighted over parts and doses; NaN if a part was measured at no dose. parts: by name, weighted over doses.
    doses: by dose, weighted over parts.
    """

    total: float
    parts: Mapping[str, float]
    doses: Mapping[float, float]


def challenge_scores(rows: Iterable[TableRow], low_dose: str) -> dict[str, ChallengeScore]:
    """The score of every method, by name. low_dose: the name of the low dose among them.

    The error of a part is a mean over subjects: for the image, of NRMSE and 1 - SSIM relative to the low dose's; for
    organs (SUVmean, SUVmax) and lesions (these and total uptake), of the absolute biases in per cent, averaged over a
    subject's regions. PSNR is omitted because for one scan it is equivalent to NRMSE. The score of a part is 100 (1 -
    its error / the low dose's). The weights of doses that were not measured go to the others; without any dose of the
    challenge there is no score.
    """
    errors = _errors(rows)
    methods = dict.fromkeys(method for method, _, _ in errors)
    doses = [dose for dose in DOSE_WEIGHTS if any(found == dose for _, found, _ in errors)]
    return {method: _score(method, low_dose, doses, errors) for method in methods} if doses else {}


def _errors(rows: Iterable[TableRow]) -> dict[tuple[str, float, str], dict[str, float]]:
    """Mean over subjects of every metric's error, by (method, dose, part)."""
    values: dict[tuple[str, float, str], dict[str, dict[str, list[float]]]] = {}
    for row in rows:
        part = _part_of(row)
        dose = next((known for known in DOSE_WEIGHTS if row.dose is not None and np.isclose(row.dose, known)), None)
        if part is not None and dose is not None:
            error = 1 - row.value if row.metric == "ssim_normal" else abs(row.value)
            of_metric = values.setdefault((row.method, dose, part), {}).setdefault(row.metric, {})
            of_metric.setdefault(row.subject, []).append(error)
    return {
        place: {metric: float(np.mean([np.mean(own) for own in subjects.values()])) for metric, subjects in of.items()}
        for place, of in values.items()
    }


def _part_of(row: TableRow) -> str | None:
    if row.region == "volume" and row.metric in OF_IMAGES:
        return "image"
    if row.region in ORGANS and row.metric in OF_ORGANS:
        return "organs"
    return "lesions" if pooled_region(row.region) == LESIONS and row.metric in OF_LESIONS else None


def _score(
    method: str, low_dose: str, doses: Sequence[float], errors: Mapping[tuple[str, float, str], Mapping[str, float]]
) -> ChallengeScore:
    scores = {}
    for dose in doses:
        for part in PART_WEIGHTS:
            own, before = (errors.get((name, dose, part), {}) for name in (method, low_dose))
            scores[dose, part] = _of_part(part, own, before)
    parts = {part: _weighted({dose: scores[dose, part] for dose in doses}, DOSE_WEIGHTS) for part in PART_WEIGHTS}
    by_dose = {dose: _weighted({part: scores[dose, part] for part in PART_WEIGHTS}, PART_WEIGHTS) for dose in doses}
    total = sum(weight * parts[part] for part, weight in PART_WEIGHTS.items())
    return ChallengeScore(total, parts, by_dose)


def _of_part(part: str, own: Mapping[str, float], before: Mapping[str, float]) -> float:
    """100 (1 - error / the low dose's), NaN where either was not measured."""
    shared = [metric for metric in own if before.get(metric)]
    if not shared:
        return np.nan
    if part == "image":
        return float(100 * (1 - np.mean([own[metric] / before[metric] for metric in shared])))
    return float(100 * (1 - sum(own[metric] for metric in shared) / sum(before[metric] for metric in shared)))


def _weighted(scores: Mapping[Any, float], weights: Mapping[Any, float]) -> float:
    """The weighted mean of the scores that are there, NaN where there is none."""
    there = {name: score for name, score in scores.items() if not np.isnan(score)}
    whole = sum(weights[name] for name in there)
    return sum(weights[name] * score for name, score in there.items()) / whole if there else np.nan
