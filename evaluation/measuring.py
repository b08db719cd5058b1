"""Measures every image of every scan of a comparison over MPI ranks, reusing results of earlier runs."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

import evaluation.measures
import guided_diffusion.pet
import guided_diffusion.simulation
from evaluation import compared_scans, filters, method_results
from evaluation.compared_scans import ComparedScan, dose_text, open_examination
from evaluation.filters import FILTERS, FilterInput, best_candidate, noise_level, tuning_scores
from evaluation.kept_results import KeptResults, key_of
from evaluation.measures import Examination, Measurement, measure, measure_ensemble
from evaluation.method_results import ComparedMethod, StatedPlan, digest_of_image, plan_of, scan_of
from guided_diffusion.errors import InputError
from guided_diffusion.files import sha256_of_code
from guided_diffusion.inference import running_statistics
from guided_diffusion.pet.fingerprint import fingerprint
from guided_diffusion.pet.formats import volume_formats
from guided_diffusion.tasks import share_tasks

LOW_DOSE = "low_dose"

Parameters = dict[float | None, dict[str, float]]
"""The filters' parameters at each dose, by the filters' names."""


class Row(NamedTuple):
    """A line of the tidy table: one number. dose: None where nobody says."""

    subject: str
    tracer: str
    scanner: str
    dose: float | None
    method: str
    metric: str
    region: str
    value: float


@dataclass(frozen=True)
class Comparison:
    """What is compared: scans, methods, and the scans of other subjects for tuning filters (none: no filters).

    kept: results of earlier runs, which are reused if everything that they depend on is unchanged.
    """

    scans: Sequence[ComparedScan]
    methods: Sequence[ComparedMethod]
    tuning: Sequence[ComparedScan]
    kept: KeptResults
    code: str = field(default_factory=lambda: _digest_of_code())

    def names(self) -> list[str]:
        """The images that are measured of each scan."""
        return [LOW_DOSE, *(FILTERS if self.tuning else ()), *(method.name for method in self.methods)]

    def steps(self) -> int:
        """The steps of a progress bar: each candidate of a filter on each scan that tunes it, each image measured."""
        candidates = sum(len(chosen.candidates) for chosen in FILTERS.values())
        return len(self.tuning) * candidates + len(self.scans) * len(self.names())


class MeasuredScan(NamedTuple):
    """The numbers of a scan, and the methods whose results make these doubtful.

    of_other_image: by run.json their image was made of another one than the scan. repeated: realisations are equal.
    """

    rows: list[Row]
    of_other_image: list[str]
    repeated: list[str]


@dataclass(frozen=True)
class Compared:
    """A comparison that has been made: the filters' parameters, and what was measured of each scan."""

    comparison: Comparison
    parameters: Parameters
    by_scan: Sequence[MeasuredScan]

    @property
    def rows(self) -> list[Row]:
        """Every number, in the order of the scans."""
        return [row for own in self.by_scan for row in own.rows]

    def rows_of(self, scan: ComparedScan) -> Sequence[Row]:
        """The numbers of a scan, of which the rows only say the subject and the dose."""
        return self.by_scan[self.comparison.scans.index(scan)].rows

    def doubts(self) -> list[str]:
        """A line for each scan of which results were made of another image, and for methods that repeat themselves."""
        measured = list(zip(self.comparison.scans, self.by_scan, strict=True))
        lines = [
            f"{scan.low_dose}: not the image that {', '.join(own.of_other_image)} denoised, by run.json beside the"
            " result; denoise it again"
            for scan, own in measured
            if own.of_other_image
        ]
        for method in self.comparison.methods:
            scans = [scan for scan, own in measured if method.name in own.repeated]
            if scans:
                lines.append(
                    f"{method.name}: realisations are equal in {len(scans)} of {len(measured)} scans, so that their"
                    " spread is too low; give each run a --seed of its own"
                )
        return lines

    def images_of(self, scan: ComparedScan, examination: Examination) -> dict[str, np.ndarray]:
        """Every image of a scan by name, float32 [X, Y, Z] in SUV."""
        methods = {method.name: method for method in self.comparison.methods}
        parameters = self.parameters.get(scan.dose, {})
        return {
            name: image_of(examination, scan, name, methods.get(name), parameters) for name in self.comparison.names()
        }


def check_results(comparison: Comparison) -> None:
    """Raises InputError where a method's image is missing, or scans at a dose have none to tune filters on."""
    for method in comparison.methods:
        for scan in comparison.scans:
            method.files(scan)
    tuned = {scan.dose for scan in comparison.tuning}
    for scan in comparison.scans if comparison.tuning else ():
        if scan.dose not in tuned:
            raise InputError(f"no scan of validation at dose {dose_text(scan.dose)} to tune the filters on; add one")


def tune_filters(comparison: Comparison, step: Callable[[], None]) -> tuple[Parameters, list[dict[str, object]]]:
    """The filters' parameters at each dose, and a table of them with their PSNR, on rank 0; empty elsewhere.

    All ranks call this together. The reference is the normal-dose image, or the blurred truth for scans that are the
    normal-dose image themselves. Raises InputError if a scan for tuning has no reference.
    """
    found: dict[int, dict[str, list[float]]] = {}
    share_tasks(
        comparison.tuning,
        lambda scan, step_here: _scores_of(scan, comparison, step_here),
        on_result=found.__setitem__,
        on_step=step,
    )
    parameters: Parameters = {}
    table: list[dict[str, object]] = []
    for dose in sorted({scan.dose for scan in comparison.tuning} if found else (), key=_descending):
        own = [(scan, found[number]) for number, scan in enumerate(comparison.tuning) if scan.dose == dose]
        parameters[dose] = {}
        for name, chosen in FILTERS.items():
            value, score = best_candidate(name, [scores[name] for _, scores in own])
            parameters[dose][name] = value
            table.append({
                "dose": "" if dose is None else dose, "filter": name, "parameter": chosen.parameter, "value": value,
                "reference": _reference_name(own[0][0]), "subjects": len(own), "psnr": score,
            })  # fmt: skip
    return parameters, table


def _scores_of(scan: ComparedScan, comparison: Comparison, step: Callable[[], None]) -> dict[str, list[float]]:
    """PSNR of every candidate of every filter on a scan."""
    candidates = {name: chosen.candidates for name, chosen in FILTERS.items()}
    key = key_of(comparison.code, _digests(scan.files()), _how_read(scan), candidates)
    scores = comparison.kept.load(f"tuning {scan.name}", key)
    if scores is not None:
        for _ in range(sum(map(len, candidates.values()))):
            step()
        return scores
    examination = open_examination(scan)
    reference = getattr(examination, _reference_name(scan))
    if reference is None:
        raise InputError(f"{scan.low_dose}: has no normal dose (or no truth) to tune filters on")
    scores = {name: tuning_scores(name, filter_input(examination), reference, step) for name in FILTERS}
    comparison.kept.save(f"tuning {scan.name}", key, scores)
    return scores


def _reference_name(scan: ComparedScan) -> str:
    return "truth" if scan.dose is not None and scan.dose >= 1 else "normal_dose"


def filter_input(examination: Examination) -> FilterInput:
    """The low dose as filters take it."""
    low_dose = examination.low_dose
    return FilterInput(low_dose.data, low_dose.voxel_mm, noise_level(low_dose.data))


def measure_all(comparison: Comparison, parameters: Parameters, step: Callable[[], None]) -> list[MeasuredScan]:
    """All metrics of all images of each scan, in the order of the scans, on rank 0; empty elsewhere.

    parameters: of the filters, on every rank. All ranks call this together.
    """
    found: dict[int, MeasuredScan] = {}
    share_tasks(
        comparison.scans,
        lambda scan, step_here: _ScanUnderMeasure(scan, comparison, parameters.get(scan.dose, {})).measured(step_here),
        on_result=found.__setitem__,
        on_step=step,
    )
    return [found[number] for number in sorted(found)]


@dataclass(eq=False)
class _ScanUnderMeasure:
    """A scan whose images are measured; they are read only where a number is missing."""

    scan: ComparedScan
    comparison: Comparison
    parameters: Mapping[str, float]

    def measured(self, step: Callable[[], None]) -> MeasuredScan:
        about = (self.scan.subject, self.scan.tracer, self.scan.scanner, self.scan.dose)
        rows = []
        for name in self.comparison.names():
            rows += [Row(*about, name, *measurement) for measurement in self._measurements(name)]
            step()
        repeated = [name for name, digests in self.result_digests.items() if len(set(digests)) < len(digests)]
        return MeasuredScan(rows, self._of_other_image(), repeated)

    @cached_property
    def examination(self) -> Examination:
        return open_examination(self.scan)

    @cached_property
    def digests(self) -> list[str]:
        return _digests(self.scan.files())

    @cached_property
    def result_digests(self) -> dict[str, list[str]]:
        """Of each method the digests of its images of the scan."""
        return {method.name: _digests(method.files(self.scan)) for method in self.comparison.methods}

    @cached_property
    def fingerprint(self) -> str:
        """That of the low dose, kept or new."""
        key = key_of(self.comparison.code, self.digests, _how_read(self.scan))
        place = f"fingerprint of {self.scan.name}"
        kept = self.comparison.kept.load(place, key)
        if kept is None:
            kept = fingerprint(self.examination.low_dose)
            self.comparison.kept.save(place, key, kept)
        return kept

    def _of_other_image(self) -> list[str]:
        """The methods whose run.json says that they made an image of another one than the scan.

        Not of arrays: the fingerprint covers the affine, for which inference takes the network's grid.
        """
        if volume_formats.names_array(self.scan.low_dose.name):
            return []
        found = []
        for method in self.comparison.methods:
            stated = [one for one in map(scan_of, method.files(self.scan)) if one is not None]
            if any(one != self.fingerprint for one in stated):
                found.append(method.name)
        return found

    def _measurements(self, name: str) -> list[list[object]]:
        """(metric, region, value) of an image, kept or new."""
        methods = {method.name: method for method in self.comparison.methods}
        made_from = self._made_from(methods[name]) if name in methods else self.parameters.get(name)
        key = key_of(self.comparison.code, self.digests, _how_read(self.scan), made_from)
        place = f"{name} {self.scan.name}"
        kept = self.comparison.kept.load(place, key)
        if kept is None:
            kept = [[one.metric, one.region, float(one.value)] for one in self._measure(name, methods.get(name))]
            self.comparison.kept.save(place, key, kept)
        return kept

    def _made_from(self, method: ComparedMethod) -> tuple[object, ...]:
        """What a method's numbers depend on besides the scan: its images, and the patches that are stated beside."""
        plan = self._plan(method)
        return self.result_digests[method.name], None if plan is None else asdict(plan)

    def _plan(self, method: ComparedMethod) -> StatedPlan | None:
        return plan_of(method.files(self.scan)[0])

    def _measure(self, name: str, method: ComparedMethod | None) -> list[Measurement]:
        if method is not None and method.has_realisations:
            realisations = list(method.images(self.scan, self.examination.low_dose))
            mean = np.mean(realisations, axis=0, dtype=np.float32)
            return [*measure(self.examination, mean), *measure_ensemble(self.examination, realisations)]
        image = image_of(self.examination, self.scan, name, method, self.parameters)
        stated = None if method is None else self._plan(method)
        return measure(self.examination, image, None if stated is None else stated.on(self.examination.low_dose))


def image_of(
    examination: Examination,
    scan: ComparedScan,
    name: str,
    method: ComparedMethod | None,
    parameters: Mapping[str, float],
) -> np.ndarray:
    """The low dose, a filter's image or a method's (of realisations, their mean), float32 [X, Y, Z] in SUV."""
    if method is not None:
        return np.mean(list(method.images(scan, examination.low_dose)), axis=0, dtype=np.float32)
    if name == LOW_DOSE:
        return examination.low_dose.data
    return FILTERS[name].apply(filter_input(examination), parameters[name])


def _digests(files: Sequence[Path]) -> list[str]:
    return [digest_of_image(path) for path in files]


def _how_read(scan: ComparedScan) -> tuple[object, ...]:
    """What else than its files a scan's numbers depend on."""
    return scan.dose, scan.arrays.units, scan.arrays.voxel_mm


def _digest_of_code() -> str:
    """SHA-256 of the code that measures, its tools and tables too: what it measured otherwise is not taken over."""
    packages = (evaluation.measures, guided_diffusion.pet, guided_diffusion.simulation)
    folders = (Path(inspect.getfile(package)).parent for package in packages)
    modules = (compared_scans, filters, method_results, running_statistics)
    return sha256_of_code([*folders, *(Path(inspect.getfile(module)) for module in modules), Path(__file__)])


def _descending(dose: float | None) -> float:
    return 0.0 if dose is None else -dose
