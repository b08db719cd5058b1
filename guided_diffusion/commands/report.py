"""The HTML report on each denoised scan that `scripts/test.py --report True` writes."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from guided_diffusion.config.inference_flags import ReportFlags
from guided_diffusion.config.parser import read_flags
from guided_diffusion.errors import InputError
from guided_diffusion.inference.denoising import Denoised
from guided_diffusion.inference.result_files import load_results, write_manifest
from guided_diffusion.inference.subjects import REPORT_NAME, Subject
from guided_diffusion.pet.fingerprint import fingerprint
from guided_diffusion.pet.formats import volume_formats
from guided_diffusion.pet.formats.declaration import Request
from guided_diffusion.pet.grid import Volume
from guided_diffusion.pet.orientation import turned_like
from guided_diffusion.pet.plausibility import check_suv
from guided_diffusion.pet.volume import load_volume
from guided_diffusion.report.findings import foci_of, peaks_near
from guided_diffusion.report.images import Image, upright, without_head
from guided_diffusion.report.run_page import RunImages, write_run_page

REFERENCE = "sha256_of_reference"


@dataclass(frozen=True, eq=False)
class PlannedReport:
    """Input of the page about a scan besides the result, checked and loaded before the work."""

    scan: Volume
    reference: Volume | None
    neck_mm: float
    foci: Sequence[tuple[int, int, int]]

    @property
    def reference_digest(self) -> str | None:
        """The `fingerprint` of the reference, which another image of the same name does not have."""
        return None if self.reference is None else fingerprint(self.reference)

    def peaks(self, realisation: Volume) -> np.ndarray:
        """SUVpeak of a realisation near each focus of the scan."""
        (image,) = upright([Image("realisation", realisation)])
        return peaks_near(image.volume.data, self.foci, image.volume.voxel_mm)

    def write(self, subject: Subject, denoised: Denoised, manifest: dict[str, Any]) -> Path:
        """Write the page into the subject's folder, note its reference in the manifest, and return the page's path."""
        manifest[REFERENCE] = self.reference_digest
        peaks = np.array(denoised.measured) if len(denoised.measured) > 1 else None
        images = RunImages(self.scan, denoised.volume, denoised.volume_sd, self.reference)
        return self._write(subject, images, manifest, peaks)

    def renew(self, subject: Subject, flags: Mapping[str, Any]) -> Path | None:
        """Write the report on a finished subject from its files, unless it exists as the flags require.

        It lacks the intervals of foci, which need the realisations themselves. Returns the path of a new page.
        """
        manifest = subject.read_manifest()
        wanted = asdict(read_flags(ReportFlags, flags))
        if wanted.items() <= manifest["flags"].items() and manifest.get(REFERENCE) == self.reference_digest:
            return None
        denoised, deviation = load_results(subject, self.scan, manifest)
        manifest["flags"] |= wanted
        manifest[REFERENCE] = self.reference_digest
        page = self._write(subject, RunImages(self.scan, denoised, deviation, self.reference), manifest, None)
        names = dict.fromkeys([*manifest["files"], page.name])
        write_manifest(subject, manifest, [subject.folder / name for name in names])
        return page

    def _write(
        self, subject: Subject, images: RunImages, manifest: Mapping[str, Any], peaks: np.ndarray | None
    ) -> Path:
        path = subject.folder / REPORT_NAME
        write_run_page(path, images, manifest, peaks=peaks, neck_mm=self.neck_mm)
        return path


def plan_report(scan: Volume, flags: Mapping[str, Any], realisations: int) -> PlannedReport:
    """Returns the input of the report on a scan.

    Raises InputError for a reference that cannot be read, is in another unit or lies on another grid, and for a cut
    that leaves nothing.
    """
    wanted = read_flags(ReportFlags, flags)
    reference = _load_reference(wanted.reference, scan) if wanted.reference else None
    images = RunImages(scan, scan, None, reference).titled()
    (image, *_) = turned = upright(images)
    without_head(turned, wanted.report_neck_mm)
    foci = foci_of(image.volume) if realisations > 1 else ()
    return PlannedReport(scan, reference, wanted.report_neck_mm, foci)


def _load_reference(path: str, scan: Volume) -> Volume:
    """A normal-dose image; of an `.npz` pair the second volume, on the scan's grid unless the file names another.

    Axes that the file stores in another order or direction are turned to the scan's.

    Raises InputError for another unit than SUV by body weight, and for values that cannot be SUV.
    """
    pair = _normal_dose_of_pair(path, scan) if path.endswith(".npz") else None
    reference = load_volume(path) if pair is None else pair
    if reference.unit != "SUV":
        raise InputError(f"{path}: is in {reference.unit}, but the report compares SUV by body weight (--suv_basis bw)")
    return turned_like(reference, scan)


def _normal_dose_of_pair(path: str, scan: Volume) -> Volume | None:
    """The second volume of an `.npz`, None where it holds a single one. Raises InputError for what is no SUV."""
    try:
        stored = volume_formats.read(Path(path), Request(channel=1, channels=2))
    except InputError:
        return None  # whatever is wrong with it, reading it as a single volume says so
    check_suv(stored.data, path, stated=bool(stored.source.get("unit_stated")))
    affine = scan.affine if stored.affine is None else stored.affine
    return replace(scan, data=stored.data, affine=affine, unit=stored.unit)
