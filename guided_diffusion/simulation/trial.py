"""A virtual trial on disk: its subjects and their files.

DIR/manifest.csv has a row per subject and dose, DIR/labels.json the label values, DIR/trial.json the settings of the
simulation, and DIR/sub-0000/ the files of a subject. Its subject.json is written last and lists them, so a subject that
has it and them is complete. Everything about a subject follows from the trial's seed and the subject's number.
"""

import csv
import io
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path, PurePath

import nibabel as nib
import numpy as np

from guided_diffusion.errors import InputError
from guided_diffusion.files import atomic_write, writable_folder, write_text
from guided_diffusion.gate import read_small
from guided_diffusion.pet.damage import damage_as
from guided_diffusion.pet.grid import Volume
from guided_diffusion.pet.trial_manifest import CLEAN_SHARE, MANIFEST, MANIFEST_COLUMNS, SETTINGS
from guided_diffusion.pet.volume import save_pair, save_volume
from guided_diffusion.simulation.acquisition import DOSES, measure, reconstruct, thin
from guided_diffusion.simulation.body_phantom import (
    FIRST_LESION_LABEL,
    Phantom,
    generator,
    load_tissues,
    make_patient,
    make_phantom,
)
from guided_diffusion.simulation.canvas import Grid
from guided_diffusion.simulation.lesions import MAX_LESIONS
from guided_diffusion.simulation.scanner import load_scanners
from guided_diffusion.simulation.tracers import draw_injection, load_tracers

GRID_PRESETS: dict[str, tuple[tuple[int, int, int], float]] = {
    "demo": ((96, 144, 180), 3.3),
    "small": ((96, 144, 260), 3.3),
    "full": ((192, 288, 520), 1.65),
    "slab": ((96, 144, 60), 3.3),
}
"""Shape [X, Y, Z] and voxel size in mm. `demo` covers 59 cm of the body, `slab` 20 cm, the others 86 cm."""

SCAN_END_MM = 1060.0
"""Depth of the middle of the thigh below the vertex in a patient of 1.70 m: where whole-body scans end."""

SUBJECT = "subject.json"


@dataclass(frozen=True)
class Trial:
    """Settings of a data set. `split` is `auto` (8 train : 1 validation : 1 test) or the split of all subjects."""

    preset: str
    seed: int
    tracers: list[str]
    scanners: list[str]
    doses: list[str]
    split: str

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise InputError(f"--seed {self.seed}: must be 0 or more")
        known = [str(Fraction(dose).limit_denominator(1000)) for dose in (1, *DOSES)]
        for dose in self.doses:
            if dose not in known:
                raise InputError(f"dose {dose!r} is not simulated; choose from {', '.join(known)}")


@dataclass(frozen=True)
class VirtualSubject:
    """One virtual patient on one scanner with one tracer; `seed` determines everything else."""

    name: str
    seed: int
    tracer: str
    scanner: str
    split: str


def plan_subject(trial: Trial, index: int) -> VirtualSubject:
    """Subject `index` of a trial, independent of the number of subjects.

    Tracers and scanners rotate so that all combinations occur once before one recurs. Splits are drawn for every ten.
    """
    turn, place = divmod(index, len(trial.tracers))
    scanner = trial.scanners[(turn + place) % len(trial.scanners)]
    split = trial.split
    if split == "auto":
        block = ["train"] * 8 + ["validation", "test"]
        order = generator(trial.seed, f"split {index // 10}").permutation(10)
        split = block[order[index % 10]]
    seed = int(np.random.SeedSequence([trial.seed, index]).generate_state(1)[0])
    return VirtualSubject(f"sub-{index:04d}", seed, trial.tracers[place], scanner, split)


def subject_grid(subject: VirtualSubject, preset: str) -> Grid:
    """The preset's grid, placed at random between the patient's vertex and mid-thigh."""
    shape, voxel_mm = GRID_PRESETS[preset]
    end = SCAN_END_MM * make_patient(subject.seed, subject.tracer).height_scale
    slack = max(end + 5.0 - shape[2] * voxel_mm, 0.0)
    return Grid(shape, voxel_mm, -5.0 + slack * float(generator(subject.seed, "field of view").random()))


@dataclass(frozen=True)
class SimulatedScan:
    """A simulated examination: the phantom and its images in SUV, float32 [X, Y, Z], by dose (1.0 is normal)."""

    phantom: Phantom
    images: dict[float, np.ndarray]


def simulate(subject: VirtualSubject, preset: str, doses: Iterable[float]) -> SimulatedScan:
    """Scan a subject at normal dose and reconstruct that and the wanted thinned doses."""
    scanner, tracer = load_scanners()[subject.scanner], load_tracers()[subject.tracer]
    phantom = make_phantom(subject.seed, subject.tracer, subject_grid(subject, preset))
    injection = draw_injection(tracer, phantom.patient.weight_kg, generator(subject.seed, "injection"))
    depth = phantom.grid.axes()[2]
    exposure = scanner.exposure(depth, 0.0, SCAN_END_MM * phantom.patient.height_scale)
    measured = measure(
        phantom.activity, phantom.attenuation, phantom.grid.voxel_mm, exposure, scanner, injection,
        generator(subject.seed, "counts"),
    )  # fmt: skip
    wanted = set(doses)
    images = {1.0: reconstruct(measured, scanner, phantom.grid.shape)}
    for dose, counts in thin(measured.counts, generator(subject.seed, "thinning")):
        if dose in wanted:
            images[dose] = reconstruct(measured.thinned(counts, dose), scanner, phantom.grid.shape)
    return SimulatedScan(phantom, images)


def label_values() -> dict[str, int]:
    """Label value of every tissue (background 0) and of lesion_01 to lesion_30, from 100."""
    values = {"background": 0} | {name: tissue.label for name, tissue in load_tissues().items()}
    return values | {f"lesion_{n + 1:02d}": FIRST_LESION_LABEL + n for n in range(MAX_LESIONS)}


def manifest_rows(trial: Trial, subject: VirtualSubject) -> list[dict[str, object]]:
    """The manifest's rows of one subject, one per dose; paths relative to the data set."""
    rows = []
    for dose in trial.doses:
        tag = dose.replace("/", "-")
        files = {"pair": f"pair_{tag}.npz", "low_dose": f"low_dose_{tag}.nii.gz"}
        files |= {kind: f"{kind}.nii.gz" for kind in ("normal_dose", "truth", "labels")}
        row = {
            "subject": subject.name, "seed": subject.seed, "tracer": subject.tracer, "scanner": subject.scanner,
            "dose": float(Fraction(dose)), "split": subject.split, "voxel_mm": GRID_PRESETS[trial.preset][1],
        }  # fmt: skip
        rows.append(row | {column: f"{subject.name}/{file}" for column, file in files.items()})
    return rows


def write_subject(trial: Trial, subject: VirtualSubject, out: Path) -> None:
    """Simulate a subject and write its files, unless they are complete already."""
    if is_complete(subject, out):
        return
    scan = simulate(subject, trial.preset, [float(Fraction(dose)) for dose in trial.doses])
    (out / subject.name).mkdir(parents=True, exist_ok=True)
    affine = scan.phantom.grid.affine()
    volumes = {dose: Volume(image, affine) for dose, image in scan.images.items()}
    for row in manifest_rows(trial, subject):
        save_pair(volumes[row["dose"]], volumes[1.0], out / row["pair"])
        save_volume(volumes[row["dose"]], out / row["low_dose"])
    save_volume(volumes[1.0], out / row["normal_dose"])
    save_volume(Volume(scan.phantom.activity, affine), out / row["truth"])
    write_labels(scan.phantom.labels, affine, out / row["labels"])
    complete(subject, description(subject, scan.phantom), out)


def complete(subject: VirtualSubject, about: dict[str, object], out: Path) -> None:
    """Write subject.json once all other files of a subject are there, with their paths below the data set."""
    folders = [out / subject.name, *out.glob(f"{subject.name}-*")]
    files = [path.relative_to(out).as_posix() for folder in folders if folder.is_dir() for path in folder.iterdir()]
    listed = sorted(file for file in files if not PurePath(file).name.startswith(".") and not file.endswith(SUBJECT))
    write_text(out / subject.name / SUBJECT, json.dumps(about | {"files": listed}, indent=1))


def is_complete(subject: VirtualSubject, out: Path) -> bool:
    """Whether subject.json and every file that it lists are there; older ones list none. Scratch disks delete files."""
    try:
        files = json.loads(read_small(out / subject.name / SUBJECT)).get("files", [])
        return all((out / file).is_file() for file in files)
    except (InputError, ValueError, AttributeError, TypeError):  # missing or damaged
        return False


def description(subject: VirtualSubject, phantom: Phantom) -> dict[str, object]:
    """Data of a subject for subject.json: patient and lesions."""
    patient = phantom.patient
    lesions = [
        {
            "label": FIRST_LESION_LABEL + n, "site": lesion.site, "kind": lesion.kind,
            "diameter_mm": round(lesion.diameter_mm, 1), "contrast": round(lesion.contrast, 2),
            "voxels": int((phantom.labels == FIRST_LESION_LABEL + n).sum()),
        }
        for n, lesion in enumerate(phantom.lesions)
    ]  # fmt: skip
    return asdict(subject) | {
        "sex": patient.sex, "height_m": round(patient.height_m, 3), "weight_kg": round(patient.weight_kg, 1),
        "arms_up": patient.arms_up, "top_mm": round(phantom.grid.top_mm, 1), "lesions": lesions,
    }  # fmt: skip


def open_trial(trial: Trial, out: Path) -> None:
    """Make the folder of a data set, or check that the one that is there was begun with the same settings."""
    settings = asdict(trial)
    marker = out / SETTINGS
    writable_folder(out)
    if marker.exists():
        content = read_small(marker)
        with damage_as(f"{marker}: is damaged; choose another folder"):
            begun_with = json.loads(content)
        if begun_with != settings:
            raise InputError(f"{marker}: this data set was begun with other settings; choose another folder")
        return
    write_text(out / "labels.json", json.dumps(label_values(), indent=1))
    write_text(marker, json.dumps(settings, indent=1))


def write_manifest(rows: Iterable[dict[str, object]], out: Path) -> None:
    """DIR/manifest.csv with the rows of all subjects."""
    text = io.StringIO()
    writer = csv.DictWriter(text, (*MANIFEST_COLUMNS, CLEAN_SHARE), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(out / MANIFEST, text.getvalue())


def write_labels(labels: np.ndarray, affine: np.ndarray, path: Path) -> None:
    """NIfTI of integer label values, where `save_volume` would make them float."""
    image = nib.Nifti1Image(labels, affine)
    image.header.set_xyzt_units("mm")
    with atomic_write(path) as temporary:
        nib.save(image, temporary)
