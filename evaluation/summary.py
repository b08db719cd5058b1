"""Means over subjects with confidence intervals, and tests between methods, from the numbers of each scan."""

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from evaluation.confidence import Interval, bootstrap_mean
from evaluation.measures import METRICS, pooled_region
from evaluation.measuring import Row
from evaluation.significance import benjamini_hochberg, paired_wilcoxon

EVERYONE = "all subjects"


@dataclass(frozen=True)
class Summary:
    """One metric of one method at one dose over the subjects of a group.

    region: as in the rows, but with all lesions pooled. by_subject: the mean of each subject's values. p_corrected: of
    the paired test against another method, None if there was none.
    """

    group: str
    dose: float | None
    method: str
    metric: str
    region: str
    interval: Interval
    by_subject: dict[str, float]
    p_corrected: float | None = None

    @property
    def place(self) -> tuple[str, float | None, str, str]:
        """Everything but the method."""
        return self.group, self.dose, self.metric, self.region


def summarise(rows: Sequence[Row]) -> list[Summary]:
    """Every metric for all subjects and by tracer and scanner, at each dose, for each method.

    Sorted by group in order of first occurrence, by falling dose, and by method and metric in order of first
    occurrence.
    """
    values: dict[tuple, dict[str, list[float]]] = {}
    for row in rows:
        region = pooled_region(row.region)
        for group in _groups(row):
            place = (group, row.dose, row.method, row.metric, region)
            values.setdefault(place, {}).setdefault(row.subject, []).append(row.value)
    groups = list(dict.fromkeys(place[0] for place in values))
    groups.sort(key=lambda group: (group != EVERYONE, group.split()[0] == "scanner"))  # stable: the order of rows else
    methods = list(dict.fromkeys(row.method for row in rows))

    def order(place: tuple) -> tuple:
        group, dose, method, *_ = place
        return groups.index(group), math.inf if dose is None else -dose, methods.index(method)

    return [_summary(place, values[place]) for place in sorted(values, key=order)]


def _groups(row: Row) -> Iterator[str]:
    yield EVERYONE
    for kind, value in (("tracer", row.tracer), ("scanner", row.scanner)):
        if value:
            yield f"{kind} {value}"


def _summary(place: tuple, by_subject: dict[str, list[float]]) -> Summary:
    means = {subject: sum(own) / len(own) for subject, own in by_subject.items()}
    return Summary(*place, bootstrap_mean(list(by_subject.values())), means)


def with_tests(summaries: Sequence[Summary], against: str, numbers: Collection[tuple[str, str]]) -> list[Summary]:
    """The summaries, with the corrected p of a paired test against a method for some metrics (metric, region).

    Only the summaries of all subjects are tested, not those of groups: by Wilcoxon's signed-rank test of each subject's
    difference in quality (in the distance from the target, if the metric has one), corrected by Benjamini and Hochberg
    over these metrics, all doses and all methods. Metrics shared by fewer than two subjects, and those without a better
    direction, are not tested.
    """
    baseline = {one.place: one for one in summaries if one.method == against}
    tested: list[int] = []
    p_values: list[float] = []
    for number, one in enumerate(summaries):
        other = baseline.get(one.place)
        if one.group != EVERYONE or (one.metric, one.region) not in numbers or other in (None, one):
            continue
        metric = METRICS[one.metric]
        if metric.better is None:
            continue
        shared = [subject for subject in one.by_subject if subject in other.by_subject]
        if len(shared) >= 2:
            tested.append(number)
            differences = [metric.loss(one.by_subject[s]) - metric.loss(other.by_subject[s]) for s in shared]
            p_values.append(paired_wilcoxon(differences))
    corrected = dict(zip(tested, benjamini_hochberg(p_values), strict=True))
    return [replace(one, p_corrected=corrected.get(number)) for number, one in enumerate(summaries)]


def as_line(summary: Summary) -> dict[str, object]:
    """A line of summary.csv."""
    interval, means = summary.interval, summary.by_subject.values()
    return {
        "group": summary.group, "dose": "" if summary.dose is None else summary.dose, "method": summary.method,
        "metric": summary.metric, "region": summary.region, "mean": interval.mean, "ci_low": _or_empty(interval.low),
        "ci_high": _or_empty(interval.high), "subjects": interval.subjects, "lowest_subject": min(means),
        "highest_subject": max(means), "p_corrected": _or_empty(summary.p_corrected),
    }  # fmt: skip


def _or_empty(value: float | None) -> float | str:
    return "" if value is None or math.isnan(value) else value
